# A thin front for meson: make, make demo, make stop, make check, make test, make install.
BUILD = build

.PHONY: all check test demo stop install clean setup

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)
	@echo "built $(BUILD)/hearth"

$(BUILD)/build.ninja:
	@tools/setup.sh build
	meson setup $(BUILD) --buildtype=release

# Fetches a small model, serves it on this machine, asks it something.
demo:
	@tools/setup.sh build demo
	@$(MAKE) --no-print-directory all
	@tools/demo.py $(BUILD)/hearth

stop:
	@tools/demo.py $(BUILD)/hearth stop

# Installs what is missing for building and testing (asks first; YES=1 does not ask).
setup:
	@tools/setup.sh build demo check test

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
