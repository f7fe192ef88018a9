//! The book and the README say what is there: every configuration in them is accepted, every link leads somewhere, and
//! every error, log field and command is explained.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Authority, portcullis};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the book, and the README.
fn pages() -> Vec<(PathBuf, String)> {
    let book = fs::read_dir(root().join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = book.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs/src").join(name)).unwrap()
}

/// A fenced block of TOML.
struct Block {
    /// Where it is, for who has to mend it.
    place: String,
    /// Whether it is a part of a configuration.
    fragment: bool,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (path, text) in pages() {
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text: String = inside.flat_map(|line| [line, "\n"]).collect();
            let place = format!("{}:{}", path.strip_prefix(root()).unwrap().display(), number + 1);
            match info {
                "toml" => blocks.push(Block { place, fragment: false, text }),
                "toml,fragment" => blocks.push(Block { place, fragment: true, text }),
                other => assert!(!other.starts_with("toml"), "{place}: write `toml` or `toml,fragment`, not `{other}`"),
            }
        }
    }
    blocks
}

/// A fragment with what it lacks to be whole: a listener, the upstreams that it names, a route.
fn completed(fragment: &str) -> String {
    let has = |table: &str| fragment.lines().any(|line| line.starts_with(table));
    let mut text = fragment.to_owned();
    if !has("[listen.") {
        text += "[listen.public]\naddress = \"127.0.0.1:8080\"\n";
    }
    if !has("[upstream") {
        let named =
            |rest: &'_ str| rest.trim_start().strip_prefix('=').is_some_and(|rest| rest.trim_start().starts_with('"'));
        let mut names: Vec<&str> =
            fragment.split("upstream").filter(|rest| named(rest)).filter_map(|rest| rest.split('"').nth(1)).collect();
        names.sort_unstable();
        names.dedup();
        text += "[upstream]\n";
        names.iter().for_each(|name| text += &format!("{name} = [\"127.0.0.1:8081\"]\n"));
    }
    if !has("[[route]]") {
        text += "[[route]]\nmatch = \"/**\"\nrespond = {}\n";
    }
    text
}

/// A folder with the files that the pages name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let authority = Authority::new("docs");
    write("ca.pem", &authority.pem());
    for (name, host) in [("api", "api.example.com"), ("w", "*.example.com"), ("client", "gateway.internal")] {
        let identity = authority.issue(&[host]);
        write(&format!("{name}.pem"), &identity.cert);
        write(&format!("{name}.key"), &identity.key);
    }
    write("admin.token", "0123456789abcdef0123456789abcdef\n");
    write("token.secret", "0123456789abcdef0123456789abcdef\n");
    write("idp.secret", "0123456789abcdef\n");
    let point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let p256 = ["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"];
    write(
        "jwks.json",
        &format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{point}"}},{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}]}}"#,
            p256[0], p256[1]
        ),
    );
    write("acme.hmac", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n");
    fs::create_dir(dir.path().join("apis")).unwrap();
    write("apis/users.toml", "[[route]]\nmatch = \"/users/**\"\nrespond = {}\n");
    dir
}

#[test]
fn every_configuration_is_accepted() {
    let blocks = blocks();
    assert!(blocks.len() >= 20, "only {} configurations were found", blocks.len());
    let dir = folder();
    let file = dir.path().join("portcullis.toml");
    let mut refused = Vec::new();
    for Block { place, fragment, text } in blocks {
        let text = if fragment { completed(&text) } else { text };
        fs::write(&file, &text).unwrap();
        let output = portcullis(&["check", file.to_str().unwrap()]);
        if !output.status.success() {
            refused.push(format!("{place}\n{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(refused.is_empty(), "{} are refused\n{}", refused.len(), refused.join("\n=====\n"));
}

#[test]
fn every_example_does_what_its_tests_say() {
    let examples = fs::read_dir(root().join("conf/examples")).unwrap().map(|e| e.unwrap().path());
    // What they include is in folders.
    let examples: Vec<_> = examples.filter(|path| path.is_file()).collect();
    assert!(examples.len() >= 12);
    let secrets = [("IDP_SECRET", "0123456789abcdef"), ("ADMIN_TOKEN", "0123456789abcdef0123456789abcdef")];
    for example in examples {
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let output = check.arg("check").arg(&example).envs(secrets).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("warning"), "{}\n{said}", example.display());
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn every_link_leads_to_a_page_and_every_page_is_linked() {
    let summary = page("SUMMARY.md");
    for (path, text) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["README.md", "SUMMARY.md"].contains(&name) {
            assert!(summary.contains(&format!("({name})")), "SUMMARY.md lacks {name}");
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let there = fs::read_to_string(&target).unwrap_or_else(|error| panic!("{name} links to {link}: {error}"));
            let found = there.lines().any(|line| line.starts_with('#') && anchor(line) == fragment);
            assert!(fragment.is_empty() || found, "{name} links to {link}, and there is no such heading");
        }
    }
}

#[test]
fn every_problem_and_every_log_field_is_explained() {
    let errors = page("errors.md");
    let source = fs::read_to_string(root().join("src/reply.rs")).unwrap();
    let table = source.split("\nproblems! {").nth(1).unwrap().split("\n}").next().unwrap();
    let kinds: Vec<&str> = table.lines().filter_map(|line| line.split(", \"").nth(1)?.split('"').next()).collect();
    assert!(kinds.len() >= 16, "{kinds:?}");
    for kind in kinds {
        assert!(errors.contains(&format!("| `{kind}` |")), "errors.md lacks {kind}");
    }
    let logging = page("logging.md");
    let source = fs::read_to_string(root().join("src/telemetry/access_log/line.rs")).unwrap();
    let table = source.split("\nfields! {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields: Vec<&str> = table.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(fields.len() >= 20, "{fields:?}");
    for field in fields {
        assert!(logging.contains(&format!("| `{field}` |")), "logging.md lacks {field}");
    }
}

#[test]
fn every_metric_is_explained() {
    let metrics = page("metrics.md");
    let source = fs::read_to_string(root().join("src/telemetry/metrics.rs")).unwrap();
    let table = source.split("\n    pub fn new() -> Self {").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let is_name = |text: &str| text.contains('_') && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let traffic = fs::read_to_string(root().join("src/telemetry/metrics/traffic.rs")).unwrap();
    let shown = traffic.split(" name: \"").skip(1).filter_map(|rest| rest.split('"').next());
    let names = table.split('"').skip(1).step_by(2).filter(|text| is_name(text)).chain(shown);
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        assert!(metrics.contains(&format!("| `portcullis_{name}` |")), "metrics.md lacks {name}");
    }
}

#[test]
fn every_command_and_option_is_explained() {
    let running = page("running.md");
    let help = |arguments: &[&str]| String::from_utf8(portcullis(arguments).stdout).unwrap();
    let text = help(&["--help"]);
    let commands = text.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 4, "{text}");
    for command in commands {
        assert!(running.contains(&format!("`portcullis {command}")), "running.md lacks {command}");
        if command == "help" {
            continue;
        }
        for word in help(&[command, "--help"]).split_whitespace().filter(|word| word.starts_with("--")) {
            let option = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(running.contains(option), "running.md lacks {option} of {command}");
        }
    }
}
