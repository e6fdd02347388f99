#!/bin/sh
# as_box.sh TREE COMMAND...: runs a command that sees the memory of a recorded box (tests/trees); under unshare -m, as root.
set -e
tree=$1; shift
mount --bind "$tree/proc/meminfo" /proc/meminfo
for folder in class module kernel/mm; do
  mount -t tmpfs none "/sys/$folder"
  if [ -d "$tree/sys/$folder" ]; then cp -r "$tree/sys/$folder/." "/sys/$folder"; fi
done
exec "$@"
