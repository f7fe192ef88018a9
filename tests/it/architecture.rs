//! The import rule, and that a policy is one folder, one `mod` line and one row.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from left to right; those in one group may import each other's left only, not each other.
const ORDER: [&[&str]; 13] = [
    &["types", "http1", "http01", "deadline", "clock"],
    &["reply", "telemetry"],
    &["body"],
    &["facts"],
    &["keep", "client"],
    &["build"],
    &["cache", "store"],
    &["policy", "upstream"],
    &["config"],
    &["gateway"],
    &["proxy", "admin"],
    &["server"],
    &["cli"],
];

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|group| group.contains(&room))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_go_to_the_left() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = rank(room) else { continue };
        let text = fs::read_to_string(&file).unwrap();
        for part in text.split("crate::").skip(1) {
            let other: String =
                part.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
            if other == room {
                continue;
            }
            if let Some(theirs) = rank(&other) {
                assert!(theirs < own, "{} imports {other}, which is not to its left", inside.display());
            }
        }
    }
}

#[test]
fn a_policy_is_a_folder_a_mod_line_and_a_row() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy");
    let table = fs::read_to_string(policies.join("mod.rs")).unwrap();
    let (_, rows) = table.split_once("\npolicies! {").unwrap();
    let rows: Vec<&str> = rows.lines().take_while(|line| *line != "}").filter(|line| line.contains("=>")).collect();
    assert!(rows.len() >= 20);
    let folders = fs::read_dir(&policies).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(rows.len(), folders, "each has a folder");
    for row in rows {
        let name = row.split_once("=>").unwrap().0.trim();
        assert!(row.contains(&format!("({name}::")), "{row}");
        assert_eq!(
            table.lines().filter(|line| line.trim_start_matches("pub ") == format!("mod {name};")).count(),
            1,
            "{name}"
        );
        let text = fs::read_to_string(policies.join(name).join("mod.rs")).unwrap();
        assert!(text.starts_with("//! "), "{name} opens with what it does");
    }
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    assert!(fs::read_to_string(main).unwrap().lines().count() < 60);
}
