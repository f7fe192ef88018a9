//! The `portcullis` binary: see the library for everything.
fn main() {}
