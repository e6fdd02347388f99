# A thin front for meson: make, make check, make test, make demo, make install.
BUILD = build

.PHONY: all check test demo install clean setup

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) hearth
	@echo "built $(BUILD)/hearth"

$(BUILD)/build.ninja:
	@tools/setup.sh build
	meson setup $(BUILD) --buildtype=release

# Installs what is missing for building and testing (asks first; YES=1 does not ask).
setup:
	@tools/setup.sh build test

# Unit tests and gates; downloads nothing.
check:
	@tools/setup.sh build check
	@tests/run.py check

# Everything: also what needs packages from PyPI and npm.
test:
	@tools/setup.sh build check test
	@tests/run.py test

install: all
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) build-*
