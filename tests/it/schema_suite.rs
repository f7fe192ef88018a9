//! The JSON Schema Test Suite, as the source of Python's `jsonschema` ships it: `make parts` puts it in its place.
//!
//! Everything that is required of the drafts 2020-12 and 7 holds, but that `format` says nothing: here it is asserted, and
//! so the optional tests of formats hold, as do the others that are optional.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis::body::schema::{Folder, Schema, json};
use serde_json::Value;

fn suite() -> PathBuf {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/.json-schema");
    assert!(suite.join("complete").exists(), "the JSON Schema Test Suite is missing: run `make parts`");
    suite
}

/// The text of a file of the suite, whose other files are at `http://localhost:1234/`.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap().replace("http://localhost:1234/", "folder:///")
}

/// Runs the tests of a file; gives how many there are, and those that fail.
fn run(file: &Path, draft: &str, remotes: &Path) -> (usize, Vec<String>) {
    let (mut count, mut failed) = (0, Vec::new());
    let groups: Vec<Value> = serde_json::from_str(&read(file)).unwrap();
    for group in &groups {
        let mut schema = group["schema"].clone();
        if let Value::Object(schema) = &mut schema {
            schema.entry("$schema").or_insert_with(|| draft.into());
        }
        let compiled = Schema::compile(&schema, "root.json", &Folder::new(remotes, |_| {}));
        for test in group["tests"].as_array().unwrap() {
            count += 1;
            let data = json::parse(test["data"].to_string().as_bytes());
            let verdict = match (&compiled, &data) {
                (Ok(schema), Ok(data)) => Ok(schema.check_value(data, 1).is_ok()),
                (Err(error), _) => Err(error.clone()),
                (_, Err(malformed)) => Err(malformed.to_string()),
            };
            if verdict != Ok(test["valid"].as_bool().unwrap()) {
                let name = file.file_stem().unwrap().to_string_lossy();
                failed.push(format!("{name}: {} / {}: {verdict:?}", group["description"], test["description"]));
            }
        }
    }
    (count, failed)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// The files that others of the suite refer to, at the place that they are called by.
fn remotes() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            match path.is_dir() {
                true => copy(&path, &target),
                false => fs::write(&target, read(&path)).unwrap(),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&suite().join("remotes"), folder.path());
    folder
}

fn hold(of: impl Fn(&Path) -> Vec<PathBuf>, least: usize) {
    let remotes = remotes();
    for (folder, draft) in [
        ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
        ("draft7", "http://json-schema.org/draft-07/schema#"),
    ] {
        let (mut count, mut failed) = (0, Vec::new());
        for file in of(&suite().join("tests").join(folder)) {
            let (ran, wrong) = run(&file, draft, remotes.path());
            count += ran;
            failed.extend(wrong);
        }
        assert!(failed.is_empty(), "{folder}: {} of {count} fail:\n{}", failed.len(), failed.join("\n"));
        assert!(count >= least, "{folder} has {count} tests");
    }
}

#[test]
fn what_the_drafts_require() {
    let required = |folder: &Path| files(folder).into_iter().filter(|file| !file.ends_with("format.json")).collect();
    hold(required, 800);
}

#[test]
fn what_is_optional() {
    hold(|folder| [files(&folder.join("optional")), files(&folder.join("optional/format"))].concat(), 300);
}
