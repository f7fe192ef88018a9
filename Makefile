# make demo   the gateway in front of four built-in services
# make test   installs what the tests need, and runs them all
# make deb    a Debian package, in target/debian

.PHONY: demo test parts packages cargo-deb deb pack lint

demo:
	cargo run --release --locked -- demo

test: parts
	cargo test --locked

# Real servers and clients for the drills.
parts: tests/parts/.venv/complete tests/parts/node_modules/.complete tests/parts/.json-schema/complete cargo-deb

# Debian's packages, where they are missing.
packages:
	@for part in nginx:nginx-light h2load:nghttp2-client curl:curl wrk:wrk python3:python3 pebble:pebble \
		pebble-challtestsrv:pebble systemctl:systemd nsenter:util-linux logrotate:logrotate dpkg-shlibdeps:dpkg-dev \
		redis-server:redis-server prometheus:prometheus node:nodejs npm:npm chromium:chromium; do \
		command -v $${part%%:*} > /dev/null || missing="$$missing $${part##*:}"; \
	done; \
	python3 -c 'import ensurepip, venv' 2> /dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq $$missing; \
	fi

# Python's packages, where they are missing or not the ones that are asked for.
tests/parts/.venv/complete: tests/parts/requirements.txt | packages
	python3 -m venv --clear tests/parts/.venv
	tests/parts/.venv/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# The JSON Schema Test Suite, which the source of Python's jsonschema brings. Its build tools come with it; it is not built.
tests/parts/.json-schema/complete: Makefile | packages
	rm -rf tests/parts/.json-schema && mkdir -p tests/parts/.json-schema
	python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary jsonschema -d tests/parts/.json-schema \
		jsonschema==4.26.0
	tar -xzf tests/parts/.json-schema/jsonschema-4.26.0.tar.gz -C tests/parts/.json-schema --strip-components=2 \
		jsonschema-4.26.0/json
	touch $@

# npm's packages, as the lock file has them; none of their scripts is run.
tests/parts/node_modules/.complete: tests/parts/package-lock.json | packages
	cd tests/parts && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

cargo-deb:
	@command -v cargo-deb > /dev/null || cargo install --locked cargo-deb

deb: cargo-deb
	cargo build --release --locked --bin portcullis --example manual
	$(MAKE) pack

# Packs what is built, as the version that is in VERSION or in Cargo.toml.
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
pack:
	rm -rf $(RELEASE)/manual
	$(RELEASE)/examples/manual $(RELEASE)/manual
	gzip -9n $(RELEASE)/manual/man/*
	cargo deb --no-build --strip $(if $(VERSION),--deb-version $(VERSION))

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo deny check bans licenses sources
