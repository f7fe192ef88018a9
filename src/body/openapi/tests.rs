use http::{HeaderMap, HeaderValue};

use super::super::parameter::Given;
use super::*;

const USERS: &str = r##"
openapi: 3.0.3
info: { title: Users, version: "1" }
servers: [{ url: "https://api.example.com/v1/" }]
paths:
  /users/{id}:
    parameters:
      - { name: id, in: path, required: true, schema: { type: integer, minimum: 0, exclusiveMinimum: true } }
    get:
      operationId: getUser
      parameters:
        - { name: fields, in: query, explode: false, schema: { type: array, items: { enum: [name, mail] } } }
        - { name: X-Trace, in: header, schema: { type: string, maxLength: 3 } }
        - { name: Accept, in: header, required: true, schema: { type: string } }
        - { $ref: "#/components/parameters/session" }
      responses: { 200: { description: yes } }
    put:
      requestBody: { $ref: "bodies.yaml#/user" }
      responses: { 200: { description: yes } }
components:
  parameters:
    session: { name: sid, in: cookie, required: true, schema: { type: string, pattern: "^[a-f0-9]+$" } }
  schemas:
    User:
      type: object
      required: [id, name]
      properties:
        id: { type: integer, readOnly: true }
        name: { type: string, nullable: true, example: { nullable: true } }
        friend: { $ref: "#/components/schemas/User", description: ignored }
"##;

const BODIES: &str = "user: { required: true, content: { application/json: { schema: { $ref: \
    \"users.yaml#/components/schemas/User\" } }, text/csv: {} } }";

fn load(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Document, Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let document = Document::load(&folder.path().join(files[0].0));
    (folder, document)
}

#[test]
fn requests_are_what_the_document_says() {
    let (_folder, document) = load(&[("users.yaml", USERS), ("bodies.yaml", BODIES)]);
    let document = document.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    assert_eq!(document.bases, ["/v1"]);
    assert_eq!(document.files().len(), 2);
    let [get, put] = &document.operations[..] else { panic!("two operations") };
    assert_eq!((get.id.as_deref(), &get.method), (Some("getUser"), &Method::GET));
    assert!(get.is_at("/v1/users/{user}", &document.bases) && !get.is_at("/users/{id}", &document.bases));
    assert!(!get.is_at("/v1/users/me", &document.bases));
    let rules = &get.rules;
    let wrong = |id: &'static str, query: &str, trace: &'static str, cookie: &'static str| -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-trace", HeaderValue::from_static(trace));
        headers.insert("cookie", HeaderValue::from_static(cookie));
        let given = Given { query: Some(query), headers: &headers, capture: &|_| id };
        let wrong =
            rules.parameters.iter().filter_map(|parameter| Some((parameter, parameter.check(&given, 9).err()?)));
        wrong.map(|(parameter, what)| format!("{} {}", parameter.name(), what.join(", "))).collect()
    };
    assert_eq!(wrong("7", "fields=name,mail", "abc", "sid=1f"), [""; 0]);
    assert_eq!(
        wrong("0", "fields=name,age", "abcd", "x=1"),
        [
            "fields #/1 is not one of the values that are allowed",
            "X-Trace has more than 3 characters",
            "sid is missing",
            "id is not more than 0"
        ]
    );
    let body = put.rules.body.as_ref().unwrap();
    assert!(body.required && body.contents[1].0.as_str() == "text/csv" && body.contents[1].1.is_none());
    let schema = body.contents[0].1.as_ref().unwrap();
    assert!(schema.check(br#"{"name": null, "friend": {"name": "x"}}"#, 1).is_ok());
    let wrong = schema.check(br#"{"name": "a", "friend": {"name": 1}}"#, 1).unwrap_err();
    assert_eq!(
        (wrong[0].pointer.as_str(), wrong[0].message.as_str()),
        ("#/friend/name", "is of none of the types null, string")
    );
}

#[test]
fn mistakes_are_said_with_their_place() {
    let paths = |paths: &str| format!("openapi: 3.1.0\npaths:\n  {paths}");
    for (text, what) in [
        ("swagger: '2.0'".to_owned(), "no OpenAPI document"),
        ("openapi: 2.0.0".to_owned(), "OpenAPI 2.0.0 is not known"),
        ("openapi: [".to_owned(), "line"),
        (paths("users: {}"), "a.yaml, at /paths/users: a path begins with `/`"),
        (
            paths("/a: { get: { parameters: [{ in: query, schema: {} }] } }"),
            "at /paths/~1a/get/parameters/0: a parameter has a `name`",
        ),
        (paths("/a: { get: { parameters: [{ name: x, in: path, schema: {} }] } }"), "the path /a has no `{x}`"),
        (
            paths("/a: { get: { parameters: [{ name: x, in: query, schema: { type: nteger } }] } }"),
            "at /paths/~1a/get/parameters/0/schema/type: ",
        ),
        (
            paths("/{x}: { get: { parameters: [{ name: x, in: path, style: matrix, schema: {} }] } }"),
            "the style `matrix` is not supported",
        ),
        (
            paths("/a: { get: { parameters: [{ $ref: '#/components/parameters/x' }] } }"),
            "there is nothing at `#/components/parameters/x`",
        ),
        (paths("/a: { get: { parameters: [{ $ref: 'https://x.test/a.yaml' }] } }"), "nothing is fetched"),
        (paths("/a: { get: { parameters: [{ $ref: '../a.yaml' }] } }"), "not in the folder"),
        (paths("/a: { $ref: '#/paths/~1a' }"), "round in a circle"),
        (paths("/a: { get: { operationId: x }, put: { operationId: x } }"), "two operations have this `operationId`"),
        (paths("/a: { put: { requestBody: { content: { application/json: { schema: { $ref: '#/x' } } } } } }"), "/x"),
        (
            "openapi: 3.1.0\ncomponents: { schemas: { a: { minimum: x } } }".to_owned(),
            "a.yaml, at /components/schemas/a/minimum: ",
        ),
    ] {
        let (_folder, document) = load(&[("a.yaml", &text)]);
        let mistakes = document.err().unwrap_or_else(|| panic!("{text} is fine"));
        assert!(mistakes.iter().any(|mistake| mistake.contains(what)), "{text}: {mistakes:?}");
    }
}
