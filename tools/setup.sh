#!/bin/sh
# setup.sh SET...: installs the Debian packages of the sets that are missing. Asks first on a terminal; YES=1 does
# not ask. Sets: build demo check test.
set -eu
BUILD="build-essential meson ninja-build pkg-config python3 libmicrohttpd-dev libgnutls28-dev libjansson-dev \
libhwloc-dev libsqlite3-dev libutf8proc-dev zlib1g-dev libcurl4-gnutls-dev libedit-dev \
liburing-dev node-marked"
DEMO="python3-pip"
CHECK="libcmocka-dev pmccabe clang-format-19"
TEST="python3-venv chromium clang-19 libclang-rt-19-dev gcc-aarch64-linux-gnu \
libc6-dev-arm64-cross qemu-user"
command -v npm >/dev/null 2>&1 || TEST="$TEST nodejs npm" # Node's own packages bring npm under another name
want=""
for set in "$@"; do
    case $set in
    build) want="$want $BUILD" ;;
    demo) want="$want $DEMO" ;;
    check) want="$want $CHECK" ;;
    test) want="$want $TEST" ;;
    *) echo "setup.sh: unknown set $set" >&2; exit 2 ;;
    esac
done
missing=""
for p in $want; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "missing Debian packages:$missing" >&2
if [ "${YES:-}" != 1 ]; then
    if [ ! -t 0 ]; then
        echo "install them with: sudo apt-get install$missing   (or run again with YES=1)" >&2
        exit 1
    fi
    printf 'install them now? [y/N] ' >&2
    read -r answer
    [ "$answer" = y ] || exit 1
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
for tool in apt-get $sudo; do
    command -v "$tool" >/dev/null 2>&1 || { echo "there is no $tool here: install the packages above by other means" >&2; exit 1; }
done
# shellcheck disable=SC2086
if ! $sudo apt-get update -qq || ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    echo "could not install them. Without a network: on a machine of the same release, fetch them and what they need with" >&2
    echo "apt-get install --download-only, copy the .deb files from /var/cache/apt/archives here, install them with dpkg -i, and run again." >&2
    exit 1
fi
