#![no_main]

use std::sync::LazyLock;

/// The set that the tests have too.
static DESCRIPTORS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut compiler = protox::Compiler::with_file_resolver(Files);
    compiler.include_imports(true).open_file("shop.proto").expect("this is a proto file");
    compiler.encode_file_descriptor_set()
});

struct Files;

impl protox::file::FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match name {
            "shop.proto" => {
                protox::file::File::from_source(name, include_str!("../../src/body/grpc/tests/shop.proto"))
            }
            "google/api/annotations.proto" => {
                protox::file::File::from_source(name, include_str!("../../src/body/grpc/tests/annotations.proto"))
            }
            _ => protox::file::GoogleFileResolver::new().open_file(name),
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::fuzzing::transcode(&DESCRIPTORS, data));
