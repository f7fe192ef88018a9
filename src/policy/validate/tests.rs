use crate::build::Sources;

use super::*;

fn compiled(toml: &str) -> Validate {
    let mut sources = Sources::default();
    let (root, found) = sources.parse("x.toml", format!("x = {toml}"));
    assert!(found.is_empty());
    let mut build = Build::new(&sources, root.get("x").unwrap());
    let config = build.deserialize().unwrap();
    let providers = crate::policy::Providers::default();
    let (zones, stores) = (crate::cache::Zones::default(), crate::store::Stores::default());
    let scope = Scope { route: "a route", owner: "here", ..Scope::new(&providers, &zones, &stores) };
    config::compile(config, &scope, &mut build).unwrap_or_else(|| panic!("{}", build.diagnostics()))
}

#[test]
fn a_body_is_held_to_its_schema() {
    let validate =
        compiled("{ body = { type = 'object', required = ['name'], properties = { name = { type = 'string' } } } }");
    assert!(validate.needs_body(&Method::POST));
    assert_eq!(validate.max_body, Some(crate::body::HELD));
    let check = |kind: Option<&str>, body: &str| match validate.check_body(&Method::POST, kind, body.as_bytes()) {
        Ok(()) => (200, serde_json::Value::Null),
        Err(reply) => {
            (reply.status.as_u16(), reply.problem.unwrap().members.get("errors").cloned().unwrap_or_default())
        }
    };
    let json = Some("application/json; charset=utf-8");
    assert_eq!(check(json, r#"{"name": "ada"}"#).0, 200);
    assert_eq!(check(Some("application/problem+json"), r#"{"name": "ada"}"#).0, 200);
    let at = |pointer: &str, detail: &str| serde_json::json!([{ "pointer": pointer, "detail": detail }]);
    assert_eq!(check(json, r#"{"name": 7}"#), (400, at("#/name", "is not of the type string")));
    assert_eq!(check(json, "{}"), (400, at("#", "`name` is missing")));
    assert_eq!(check(json, "{"), (400, at("#", "not JSON: it ends too early, at byte 1")));
    assert_eq!(check(None, ""), (400, at("#", "is missing")));
    for kind in [None, Some("text/plain"), Some(""), Some("application/jsonx")] {
        assert_eq!(check(kind, "{}").0, 415, "{kind:?}");
    }
}
