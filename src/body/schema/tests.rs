use std::path::Path;

use serde_json::json;

use super::*;

fn compile(schema: &Value) -> Result<Schema, String> {
    Schema::compile(schema, "test.json", &Folder::new(Path::new(""), |_| {}))
}

fn schema(schema: Value) -> Schema {
    compile(&schema).unwrap()
}

fn wrong(schema: &Schema, body: &str) -> Vec<(String, String)> {
    match schema.check(body.as_bytes(), 10) {
        Ok(()) => Vec::new(),
        Err(violations) => violations.into_iter().map(|v| (v.pointer, v.message)).collect(),
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_without_the_value() {
    let user = schema(json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "minLength": 2, "pattern": "^[a-z]+$" },
            "age": { "type": ["integer", "null"], "minimum": 0, "maximum": 150 },
            "mail": { "format": "email" },
            "a/b ü": { "enum": [1] },
        }
    }));
    assert_eq!(wrong(&user, r#"{"name": "ada", "age": 1.0, "mail": "a@b.test"}"#), []);
    let all = wrong(&user, r#"{"name": "S", "age": 200, "mail": "secret", "a/b ü": "secret", "x": 1}"#);
    let said = |pointer: &str, message: &str| assert!(all.contains(&(pointer.into(), message.into())), "{all:?}");
    said("#/name", "has fewer than 2 characters");
    said("#/name", "does not match ^[a-z]+$");
    said("#/age", "is more than 150");
    said("#/mail", "is no email");
    said("#/a~1b%20%C3%BC", "is not one of the values that are allowed");
    said("#", "`x` is not expected here");
    assert!(!format!("{all:?}").contains("secret"));
    assert_eq!(wrong(&user, "{}"), [("#".into(), "`name` is missing".into())]);
    assert_eq!(wrong(&user, "[1"), [("#".into(), "not JSON: it ends too early, at byte 2".into())]);
    assert_eq!(user.check(br#"{"name": "S", "age": 200, "mail": "x"}"#, 2).unwrap_err().len(), 2);
}

#[test]
fn a_limit_is_not_rounded_away() {
    let at_most = schema(json!({ "maximum": 9_007_199_254_740_992u64 }));
    assert!(wrong(&at_most, "9007199254740992").is_empty());
    for over in ["9007199254740993", "9007199254740993.0", "9007199254740992.0000000000000001", "1e400"] {
        assert!(!wrong(&at_most, over).is_empty(), "{over}");
    }
    let cents = schema(json!({ "multipleOf": 0.01 }));
    assert!(wrong(&cents, "19.99").is_empty() && !wrong(&cents, "19.995").is_empty());
    let _ = wrong(&schema(json!({ "multipleOf": 1e-300 })), "1.7976931348623157e308");
}

#[test]
fn mistakes_in_a_schema_are_said_with_their_place() {
    for (schema, what) in [
        (
            json!({ "properties": { "a": { "minimum": "1" } } }),
            "at /properties/a/minimum: \"1\" is not of type \"number\"",
        ),
        (json!({ "properties": { "a": { "pattern": "(?=a)" } } }), "at /properties/a/pattern: "),
        (json!({ "pattern": "(?=a)" }), "no look-around"),
        (json!({ "pattern": "((a{1000}){1000}){1000}" }), "not too large"),
        (json!({ "$ref": "#/nowhere" }), "/nowhere"),
        (json!({ "$ref": "https://example.test/x.json" }), "nothing is fetched"),
        (json!({ "$ref": "missing.json" }), "missing.json"),
        (json!({ "$ref": "../Cargo.toml" }), "Cargo.toml"),
        (json!(1), "1"),
    ] {
        let error = compile(&schema).err().unwrap_or_else(|| panic!("{schema} compiles"));
        assert!(error.contains(what), "{schema}: {error}");
    }
}

#[test]
fn references_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("in");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("out.json"), "{}").unwrap();
    std::fs::write(inner.join("a b.json"), r##"{"$defs": {"n": {"type": "integer"}}, "$ref": "c.yaml#/x"}"##).unwrap();
    std::fs::write(inner.join("c.yaml"), "x: { minimum: 3 }").unwrap();
    std::os::unix::fs::symlink("../out.json", inner.join("link.json")).unwrap();
    let here = || Folder::new(&inner, |_| {});
    let compile = |schema: Value, folder: &Folder| Schema::compile(&schema, "root.json", folder);
    let read = here();
    let schema =
        compile(json!({ "allOf": [{ "$ref": "a%20b.json" }, { "$ref": "a%20b.json#/$defs/n" }] }), &read).unwrap();
    assert_eq!(wrong(&schema, "4"), []);
    assert_eq!(wrong(&schema, "2"), [("#".into(), "is less than 3".into())]);
    assert_eq!(wrong(&schema, "3.5"), [("#".into(), "is not of the type integer".into())]);
    assert_eq!(read.files(), [inner.join("a b.json"), inner.join("c.yaml")]);
    let by_id = json!({ "$id": "https://schemas.test/v1/root.json", "$ref": "c.yaml#/x" });
    assert_eq!(wrong(&compile(by_id, &here()).unwrap(), "2").len(), 1);
    for outside in
        ["link.json", "%2e%2e/out.json", "..%2Fout.json", "/etc/passwd", "file:///etc/passwd", "%2Fetc%2Fpasswd"]
    {
        assert!(compile(json!({ "$ref": outside }), &here()).is_err(), "{outside}");
    }
}

#[test]
fn hostile_bodies_take_bounded_time() {
    // What is asked twice at each level, and is refused for two reasons, would take 4^100 steps.
    let tree = schema(json!({ "anyOf": [
        { "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a", "x"] },
        { "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a", "y"] },
        { "type": "object", "properties": { "a": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } }, "required": ["a", "z"] },
    ] }));
    let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    assert_eq!(wrong(&tree, &deep), [("#".into(), "is not as the schema wants it".into())]);
    let unevaluated = schema(json!({
        "anyOf": [{ "properties": { "a": { "$ref": "#" } } }, { "properties": { "a": { "$ref": "#" }, "b": {} } }],
        "unevaluatedProperties": false,
    }));
    assert_eq!(wrong(&unevaluated, &deep), []);
    assert!(!wrong(&unevaluated, &deep.replace('1', "{\"c\":1}")).is_empty());
    let unique = schema(json!({ "uniqueItems": true }));
    let items: Vec<String> = (0..100_000).map(|i| format!("[{i}]")).collect();
    assert_eq!(wrong(&unique, &format!("[{}]", items.join(","))), []);
    assert_eq!(wrong(&unique, &format!("[{},[5]]", items.join(","))).len(), 1);
    let loops =
        schema(json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }));
    assert_eq!(wrong(&loops, "1"), []);
    let text = schema(json!({ "pattern": "^(a+)+$" }));
    assert_eq!(wrong(&text, &format!("\"{}b\"", "a".repeat(1 << 20))).len(), 1);
}
