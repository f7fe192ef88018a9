//! What other gateways' documentation shows, done by the examples for it: with the answers that they promise.

use crate::harness::{Origin, answer, gateway};

/// An example with its servers replaced by one origin.
fn example(name: &str, origin: &Origin) -> crate::harness::Gateway {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(name);
    let text = std::fs::read_to_string(path).unwrap().replace("0.0.0.0:8080", "127.0.0.1:0");
    let text = ["8081", "8082", "8083"]
        .iter()
        .fold(text, |text, port| text.replace(&format!("127.0.0.1:{port}"), &origin.address()));
    gateway().config(&text).start()
}

#[test]
fn krakends_examples_give_what_they_promise() {
    let origin = Origin::answering(|seen| {
        let text = match seen.target.as_str() {
            "/posts?userId=1" => {
                r#"[{"userId": 1, "id": 1, "title": "a", "body": "x"}, {"userId": 1, "id": 2, "title": "b", "body": "y"}]"#
            }
            "/users/1" | "/users/2" => {
                r#"{"id": 1, "name": "Leanne Graham", "username": "Bret", "email": "Sincere@april.biz"}"#
            }
            "/hotels/25" => r#"{"hotel_id": 25, "name": "Hotel California", "destination_id": 1034}"#,
            "/destinations/1034" => r#"{"destination_id": 1034, "destinations": ["LAX", "SFO", "OAK"]}"#,
            _ => return answer(500),
        };
        answer(200).header("Content-Type", "application/json").body(text)
    });
    let gw = example("krakend.toml", &origin);
    let got = |target: &str| gw.get(target).send().expect(200);
    assert_eq!(got("/user-posts/1").text(), r#"[{ "id": 1, "title": "a"}, { "id": 2, "title": "b"}]"#);
    assert_eq!(
        got("/profile/1").json(),
        serde_json::json!({ "account": { "name": "Leanne Graham", "personal_email": "Sincere@april.biz" } })
    );
    assert_eq!(
        got("/hotels/25").text(),
        r#"{"hotel_id":25,"name":"Hotel California","destination_id":1034,"destinations":["LAX", "SFO", "OAK"]}"#
    );
    assert_eq!(got("/overview/1").maybe("portcullis-missing"), "");
    let partial = got("/overview/2");
    assert_eq!((partial.header("portcullis-missing"), &partial.json()["posts"]), ("posts", &serde_json::json!([])));
}

#[test]
fn kongs_plugins_have_their_like() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/summary" => answer(200)
            .header("Content-Type", "application/json")
            .body(r#"{"user": {"name": "Ada", "id": 1}, "orders": [1, 2, 3]}"#),
        _ => answer(200)
            .header("Content-Type", "application/json")
            .header("X-ToRemove", "1")
            .body(r#"{"json-key-toremove": 1, "keep": [1.0], "another-json-key": {}}"#),
    });
    let gw = example("kong.toml", &origin);
    let post = gw.post("/transformed/a?qs-old-name=1").header("Content-Type", "application/json");
    let got = post.header("X-Existing", "x").body(r#"{"formparam-toremove": 1, "param-old": 2}"#).send().expect(200);
    assert_eq!(got.json(), serde_json::json!({ "keep": [1.0], "new-json-key": "some_value" }));
    assert_eq!((got.maybe("x-toremove"), got.header("x-new-header")), ("", "value"));
    let seen = origin.only_request();
    assert_eq!((seen.target.as_str(), seen.header("x-existing")), ("/a?new-param=some_value", "replaced"));
    let sent: serde_json::Value = serde_json::from_str(&seen.text()).unwrap();
    assert_eq!(sent, serde_json::json!({ "param-new": 2, "body-param1": "some_value" }));
    assert_eq!(gw.get("/summary").send().expect(200).text(), r#"{"name":"Ada","orders":3}"#);
    gw.post("/sized")
        .header("Content-Type", "text/plain")
        .body("x".repeat(9000))
        .send()
        .expect(413)
        .problem("body-too-large");
    let limited = (0..6).map(|_| gw.post("/sized").body("x").send().status).filter(|status| *status == 429).count();
    assert!(limited >= 1);
    gw.post("/validated?page=1").header("Content-Type", "application/json").body("{}").send().expect(400);
}
