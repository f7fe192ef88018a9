# make demo   the gateway in front of three built-in services
# make test   everything that is tested

.PHONY: demo test lint

demo:
	cargo run --release --locked -- demo

test:
	cargo test --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo deny --all-features check
