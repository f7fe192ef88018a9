# make demo   the gateway in front of three built-in services
# make test   installs what the tests need, and runs them all

.PHONY: demo test parts lint

demo:
	cargo run --release --locked -- demo

test: parts
	cargo test --locked

# Real servers and clients for the drills, from Debian's packages.
parts:
	@for part in nginx:nginx-light h2load:nghttp2-client curl:curl python3:python3; do \
		command -v $${part%%:*} > /dev/null || missing="$$missing $${part##*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq $$missing; \
	fi

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo deny check bans licenses sources
