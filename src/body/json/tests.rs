use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::path::{Path, Step};
use super::*;
use crate::body::DEPTH;

fn config(config: Value) -> EditsConfig {
    serde_json::from_value(config).unwrap()
}

fn edits(written: Value) -> Arc<Edits> {
    Arc::new(Edits::compile(&config(written)).unwrap().unwrap())
}

fn edited(written: Value, document: &str) -> String {
    String::from_utf8(edits(written).apply(document.as_bytes()).unwrap()).unwrap()
}

fn nothing() -> Arc<Edits> {
    Arc::new(Edits::of(&check::Plan::default(), &EditsConfig::default()).unwrap())
}

fn in_parts(edits: &Arc<Edits>, document: &[u8], cuts: &[usize]) -> Result<Vec<u8>, Malformed> {
    let (mut editor, mut out) = (edits.filter(), Vec::new());
    let mut rest = document;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        editor.push(part, &mut out)?;
        rest = after;
    }
    editor.end(&mut out)?;
    Ok(out)
}

#[test]
fn what_is_removed_takes_its_comma_along() {
    let remove = || json!({ "remove": ["a", "c"] });
    for (before, after) in [
        (r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
        (r#"{"a":1}"#, "{}"),
        (r#"{ "a" : 1 }"#, "{ }"),
        (r#"{"a":[{"x":"\"]}"}],"c":{}}"#, "{}"),
        ("{\n  \"b\": 1.0,\n  \"c\": 2\n}", "{\n  \"b\": 1.0\n}"),
        ("{\n  \"a\": 1,\n  \"b\": 2 , \"d\": [ ]\n}\n", "{\n  \"b\": 2 , \"d\": [ ]\n}\n"),
        (r#"{"a":1,"b":{"a":1},"a":2}"#, r#"{"b":{"a":1}}"#),
        (r#"{"\u0061":1,"aa":2,"\u0063":3}"#, r#"{"aa":2}"#),
        (r#"[{"a":1}]"#, r#"[{"a":1}]"#),
        ("7", "7"),
    ] {
        assert_eq!(edited(remove(), before), after);
    }
}

#[test]
fn stars_and_numbers_lead_into_arrays() {
    let document = r#"{"items":[{"id":1,"cost":2},[],null,{"cost":[3]}],"cost":4}"#;
    let remove = |path: &str| edited(json!({ "remove": [path] }), document);
    assert_eq!(remove("items.*.cost"), r#"{"items":[{"id":1},[],null,{}],"cost":4}"#);
    assert_eq!(remove("items.cost"), document);
    assert_eq!(remove("items.3.cost"), r#"{"items":[{"id":1,"cost":2},[],null,{}],"cost":4}"#);
    assert_eq!(remove("items.*"), r#"{"items":[],"cost":4}"#);
    assert_eq!(remove("items.1"), r#"{"items":[{"id":1,"cost":2},null,{"cost":[3]}],"cost":4}"#);
    assert_eq!(remove(r#"items."1""#), document);
    assert_eq!(remove("*"), "{}");
    assert_eq!(edited(json!({ "remove": ["0", "a.\"0\""] }), r#"{"0":1,"a":{"0":[2],"1":[2]}}"#), r#"{"a":{"1":[2]}}"#);
    assert_eq!(edited(json!({ "remove": ["*.0"] }), "[[1,2],[3],{\"0\":4}]"), "[[2],[],{}]");
}

#[test]
fn what_is_picked_keeps_what_it_lies_in() {
    let document =
        r#"{"id": 1.50, "user": {"name": "a", "mail": "b"}, "items": [{"id": [1, {}], "cost": 2}, 3, []], "x": 1}"#;
    let pick = |paths: &[&str]| edited(json!({ "pick": paths }), document);
    assert_eq!(pick(&["id", "nothing"]), r#"{"id": 1.50}"#);
    assert_eq!(pick(&["user.name", "items.*.id"]), r#"{ "user": {"name": "a"}, "items": [{"id": [1, {}]}, null, []]}"#);
    assert_eq!(pick(&["items.id"]), r#"{ "items": []}"#);
    assert_eq!(pick(&["items.1"]), r#"{ "items": [ 3]}"#);
    assert_eq!(pick(&["id.deeper", "user"]), r#"{"id": null, "user": {"name": "a", "mail": "b"}}"#);
    assert_eq!(pick(&["nothing"]), "{}");
    assert_eq!(edited(json!({ "pick": ["a"] }), " \"secret\" "), " null ");
    assert_eq!(edited(json!({ "pick": ["a.b"] }), r#"{"a":"secret"}"#), r#"{"a":null}"#);
    assert_eq!(edited(json!({ "pick": ["*.a"] }), r#"[{"a":1,"b":2},{"b":2}]"#), r#"[{"a":1},{}]"#);
}

#[test]
fn what_is_renamed_stays_where_it_is() {
    let rename = || json!({ "rename": { "user.mail": "email", "a": "b", "b": "a", "c": "\"x.y\"" } });
    for (before, after) in [
        (r#"{"user":{"id":1, "mail" : "x"}}"#, r#"{"user":{"id":1, "email" : "x"}}"#),
        (r#"{"user":{"email":1,"mail":2,"id":3}}"#, r#"{"user":{"email":1,"id":3}}"#),
        (r#"{"user":{"mail":1,"email":2,"mail":3}}"#, r#"{"user":{"email":1,"email":3}}"#),
        (r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#),
        (r#"{"\u0063":"\u0063"}"#, r#"{"x.y":"\u0063"}"#),
    ] {
        assert_eq!(edited(rename(), before), after);
    }
    let both = json!({ "remove": ["b"], "rename": { "a": "b", "b.c": "d" } });
    assert!(Edits::compile(&config(both)).is_err());
    assert_eq!(edited(json!({ "remove": ["b"], "rename": { "a": "b" } }), r#"{"b":1,"a":2}"#), r#"{"b":2}"#);
}

#[test]
fn what_is_set_is_there() {
    let set = || json!({ "set": { "meta.source": "gateway", "flags.beta": false, "id": null, "items.*.meta.n": 1 } });
    for (before, after) in [
        (
            r#"{"id":[1],"meta":{"source":{}},"flags":{}}"#,
            r#"{"id":null,"meta":{"source":"gateway"},"flags":{"beta":false}}"#,
        ),
        ("{}", r#"{"meta":{"source":"gateway"},"flags":{"beta":false},"id":null}"#),
        ("{\n}", "{\"meta\":{\"source\":\"gateway\"},\"flags\":{\"beta\":false},\"id\":null\n}"),
        (
            r#"{"meta":7,"flags":null,"id" : 5 }"#,
            r#"{"meta":{"source":"gateway"},"flags":{"beta":false},"id" : null }"#,
        ),
        (
            r#"{"meta":[{}],"flags":{"beta":1,"beta":2},"id":0,"items":[{},2,{"meta":{"n":0,"m":0}},{"meta":0}]}"#,
            r#"{"meta":[{}],"flags":{"beta":false,"beta":false},"id":null,"items":[{"meta":{"n":1}},2,{"meta":{"n":1,"m":0}},{"meta":{"n":1}}]}"#,
        ),
        ("[1]", "[1]"),
        ("null", "null"),
    ] {
        assert_eq!(edited(set(), before), after);
    }
    let deep = json!({ "set": { "a.b.c": 1, "a.d": { "e": [2] }, "a.b.\"x.\\\"\"": 3 } });
    assert_eq!(edited(deep, "{}"), r#"{"a":{"b":{"c":1,"x.\"":3},"d":{"e":[2]}}}"#);
    assert_eq!(
        edited(json!({ "set": { "a.1": 0, "*.2": 0 } }), r#"{"a":[5,6,7],"b":{"2":1}}"#),
        r#"{"a":[5,0,0],"b":{"2":0}}"#
    );
}

#[test]
fn verbs_apply_in_their_order() {
    let all = json!({
        "pick": ["user", "old", "items"],
        "remove": ["user.password", "items.*.cost", "gone"],
        "rename": { "user.mail": "email", "old": "new" },
        "set": { "user.email": "x", "old": 1, "new.made": 2 },
    });
    let mistakes = Edits::compile(&config(all.clone())).unwrap_err();
    assert_eq!(
        mistakes.iter().map(|m| (m.verb, m.entry.as_deref())).collect::<Vec<_>>(),
        [("remove", Some("2")), ("rename", Some("user.mail")),]
    );
    let mut all = all;
    all["remove"].as_array_mut().unwrap().pop();
    all["set"].as_object_mut().unwrap().shift_remove("user.email");
    let before = r#"{"user":{"mail":"m","password":"p"},"other":1,"old":{"a":1},"items":[{"cost":1}]}"#;
    let after = r#"{"user":{"email":"m"},"new":{"a":1,"made":2},"items":[{}],"old":1}"#;
    assert_eq!(edited(all, before), after);
}

#[test]
fn other_values_can_be_set() {
    let edits = edits(json!({ "set": { "b": 1, "a.x": 2 } }));
    let mut out = Vec::new();
    let mut editor = edits.filter_with(vec![b"\"one\"".to_vec()]);
    editor.push(b"{}", &mut out).unwrap();
    editor.end(&mut out).unwrap();
    assert_eq!(out, br#"{"b":"one","a":{"x":2}}"#);
}

#[test]
fn keys_that_are_too_long_are_not_held() {
    let edits = edits(json!({ "remove": ["ab", "*.x"] }));
    let mut editor = edits.filter();
    let mut out = Vec::new();
    editor.push(br#"{"\u0061b":1, ""#, &mut out).unwrap();
    for _ in 0..10_000 {
        editor.push(&[b'k'; 100], &mut out).unwrap();
    }
    assert_eq!(out.len(), 3 + 1_000_000);
    assert!(!format!("{editor:?}").contains("107, 107"));
    editor.push(br#"":{"x":1}}"#, &mut out).unwrap();
    editor.end(&mut out).unwrap();
    assert!(out.ends_with(b"kkk\":{}}"));
}

#[test]
fn white_space_is_held_up_to_a_bound() {
    let edits = edits(json!({ "remove": ["a"] }));
    let space = " ".repeat(100_000);
    let document = format!("{space}{{{space}\"b\"{space}:{space}1{space},{space}\"c\":[{space}]{space}}}{space}");
    let short = " ".repeat(256);
    let expected = format!("{space}{{{short}\"b\"{space}:{space}1{short},\"c\":[{space}]{short}}}{space}");
    assert_eq!(edits.apply(document.as_bytes()).unwrap(), expected.as_bytes());
    assert_eq!(in_parts(&edits, document.as_bytes(), &[1]).unwrap(), expected.as_bytes());
}

#[test]
fn a_key_of_a_path_is_found_however_it_is_cut_and_escaped() {
    let edits = edits(json!({ "remove": [r#""ä😀\"/\n""#] }));
    let document =
        r#"{"\u00e4\ud83d\uDE00\"\/\n":1,"ä😀\u0022/\u000a":2,"ä😀\"/\t":3,"\ud83d":4,"\ud83d\ud83d\ude00":5}"#;
    let expected = r#"{"ä😀\"/\t":3,"\ud83d":4,"\ud83d\ud83d\ude00":5}"#;
    for cut in 1..document.len() {
        assert_eq!(in_parts(&edits, document.as_bytes(), &[cut]).unwrap(), expected.as_bytes());
    }
}

#[test]
fn what_is_not_json_is_refused_where_it_is_wrong() {
    let deep = "[".repeat(DEPTH + 1);
    let cases: [(&[u8], u64); 44] = [
        (b"", 0),
        (b" ", 1),
        (b"\xef\xbb\xbf{}", 0),
        (b"{} x", 3),
        (b"{}{}", 2),
        (b"{\"x\":1,}", 7),
        (b"{,}", 1),
        (b"{\"x\"}", 4),
        (b"{\"x\":}", 5),
        (b"{\"x\":1 \"y\":2}", 7),
        (b"{x:1}", 1),
        (b"{\"x\":1", 6),
        (b"{\"x\":1]", 6),
        (b"[1}", 2),
        (b"[1,]", 3),
        (b"[,1]", 1),
        (b"]", 0),
        (b"[1 2]", 3),
        (b"01", 1),
        (b"-", 1),
        (b"-a", 1),
        (b"+1", 0),
        (b".5", 0),
        (b"1.", 2),
        (b"1.e1", 2),
        (b"1e", 2),
        (b"1e+", 3),
        (b"1e+x", 3),
        (b"1x", 1),
        (b"tru", 3),
        (b"trux", 3),
        (b"True", 0),
        (b"NaN", 0),
        (b"nulll", 4),
        (b"\"a", 2),
        (b"\"\n\"", 1),
        (b"\"12345678\x1f\"", 9),
        (b"\"\\x\"", 2),
        (b"\"\\u12g4\"", 5),
        (b"\"\x80\"", 1),
        (b"\"\xc3\"", 2),
        (b"\"ab\xed\xa0\x80\"", 4),
        (b"{\"a\":{\"\xf4\x90\x80\x80\":1}}", 8),
        (deep.as_bytes(), DEPTH as u64),
    ];
    for (document, at) in cases {
        for edits in
            [nothing(), edits(json!({ "remove": ["a.b"] })), edits(json!({ "pick": ["b"], "set": { "x.y": 1 } }))]
        {
            let error = edits.apply(document).unwrap_err();
            assert_eq!(error.at, at, "{}: {error}", String::from_utf8_lossy(document));
            assert_eq!(in_parts(&edits, document, &[1]).unwrap_err(), error);
        }
    }
    let mut broken = nothing().filter();
    let error = broken.push(b"]", &mut Vec::new()).unwrap_err();
    assert_eq!(broken.push(b"[]", &mut Vec::new()), Err(error.clone()));
    assert_eq!(broken.end(&mut Vec::new()), Err(error));
}

#[test]
fn what_is_json_stays() {
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let digits = "9".repeat(1000);
    for document in [
        "1.0",
        "-0",
        "1e400",
        "0.0E-7",
        &digits,
        " [ ] ",
        r#"{"":{}, "a":[],"a":null}"#,
        r#""\ud800\u0000\/""#,
        "\"\u{7f}ä€😀\"",
        &deep,
        "[true,false,null]\r\n\t ",
    ] {
        assert_eq!(nothing().apply(document.as_bytes()).unwrap(), document.as_bytes());
        assert_eq!(edited(json!({ "remove": ["nothing", "*.*.nothing"] }), document), document);
    }
}

#[test]
fn mistakes_are_found() {
    for (written, verb, entry, message) in [
        (json!({ "pick": [] }), "pick", None, "nothing is picked"),
        (json!({ "remove": ["a", ""] }), "remove", Some("1"), "the path is empty"),
        (json!({ "remove": ["a", "a"] }), "remove", Some("1"), "`a` is removed with `a` already"),
        (json!({ "remove": ["a.b", "a.*"] }), "remove", Some("0"), "`a.b` is removed with `a.*` already"),
        (json!({ "pick": ["a", "a.b"] }), "pick", Some("1"), "`a.b` is picked with `a` already"),
        (json!({ "pick": ["a.b"], "remove": ["a"] }), "remove", Some("0"), "`a.b` is picked, and removed again"),
        (json!({ "pick": ["a"], "remove": ["b"] }), "remove", Some("0"), "`b` is not picked, so it is removed already"),
        (json!({ "pick": ["a"], "rename": { "b": "c" } }), "rename", Some("b"), "`b` is not picked"),
        (
            json!({ "remove": ["a"], "rename": { "a.b": "c" } }),
            "rename",
            Some("a.b"),
            "`a.b` cannot get a key, as `a` is removed",
        ),
        (json!({ "rename": { "a": "a" } }), "rename", Some("a"), "`a` has the key `a` already"),
        (json!({ "rename": { "a.*": "b" } }), "rename", Some("a.*"), "`*` cannot get one key"),
        (json!({ "rename": { "a": "b.c" } }), "rename", Some("a"), "`b.c` is not a key"),
        (json!({ "rename": { "a": "" } }), "rename", Some("a"), "the path is empty"),
        (
            json!({ "rename": { "a": "c", "b": "c" } }),
            "rename",
            Some("b"),
            "`a` and `b` may get the same key in one object",
        ),
        (
            json!({ "rename": { "*.b": "c", "a.b": "d" } }),
            "rename",
            Some("a.b"),
            "`*.b` and `a.b` may be the same place",
        ),
        (
            json!({ "pick": ["x.a", "x.b.c"], "rename": { "x.a": "b" } }),
            "rename",
            Some("x.a"),
            "`x.a` becomes `x.b`, which is there already: `x.b.c` names it",
        ),
        (
            json!({ "rename": { "a": "b" }, "set": { "b": 1 } }),
            "rename",
            Some("a"),
            "`a` becomes `b`, which is set to something else",
        ),
        (json!({ "set": { "a": 1, "a.b": 1 } }), "set", Some("a.b"), "`a` and `a.b` may be the same place"),
        (json!({ "set": { "*.b": 1, "a.*": 1 } }), "set", Some("a.*"), "`*.b` and `a.*` may be the same place"),
        (json!({ "remove": ["a"], "set": { "a": 1 } }), "set", Some("a"), "`a` is removed and set"),
    ] {
        let mistakes = Edits::compile(&config(written.clone())).expect_err(&written.to_string());
        let found: Vec<_> = mistakes.iter().map(|m| (m.verb, m.entry.as_deref(), m.message.as_str())).collect();
        assert_eq!(found, [(verb, entry, message)], "{written}");
    }
    assert!(Edits::compile(&EditsConfig::default()).unwrap().is_none());
    assert!(serde_json::from_value::<EditsConfig>(json!({ "delete": [] })).is_err());
    // Each path is alive or not, whatever the others are.
    let explosive: Vec<String> =
        (0..16).map(|i| (0..17).map(|at| if at == i { "a" } else { "*" }).collect::<Vec<_>>().join(".")).collect();
    let mistakes = Edits::compile(&config(json!({ "remove": explosive }))).unwrap_err();
    assert_eq!((mistakes[0].verb, &mistakes[0].entry), ("remove", &None));
}

// The same, done slowly: verb after verb, on a document that is held.

/// Stands for an element that is left out, so that numbers stay those that came in.
const GONE: &str = "\u{0}gone";

fn is_gone(value: &Value) -> bool {
    value == GONE
}

type Rest<'p> = Vec<&'p [Step]>;

fn next<'p>(paths: &Rest<'p>, fits: impl Fn(&Step) -> bool) -> Rest<'p> {
    paths.iter().filter(|path| fits(&path[0])).map(|path| &path[1..]).collect()
}

fn of_key<'s>(key: &'s str) -> impl Fn(&Step) -> bool + 's {
    move |step| step.name().is_none_or(|name| name == key)
}

fn of_index(index: usize) -> impl Fn(&Step) -> bool {
    move |step| *step == Step::Any || step.index() == Some(index as u64)
}

fn pick(value: Value, paths: &Rest<'_>) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value);
    }
    if paths.is_empty() {
        return None;
    }
    Some(match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), pick(value, &next(paths, of_key(&key)))?)))
                .collect(),
        ),
        Value::Array(elements) => Value::Array(
            elements
                .into_iter()
                .enumerate()
                .map(|(i, value)| pick(value, &next(paths, of_index(i))).unwrap_or(GONE.into()))
                .collect(),
        ),
        _ => Value::Null,
    })
}

fn remove(value: Value, paths: &Rest<'_>) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return None;
    }
    Some(match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), remove(value, &next(paths, of_key(&key)))?)))
                .collect(),
        ),
        Value::Array(elements) => Value::Array(
            elements
                .into_iter()
                .enumerate()
                .map(|(i, value)| remove(value, &next(paths, of_index(i))).unwrap_or(GONE.into()))
                .collect(),
        ),
        other => other,
    })
}

fn rename(value: Value, paths: &[(&[Step], &str)]) -> Value {
    let next = |fits: &dyn Fn(&Step) -> bool| -> Vec<_> {
        paths.iter().filter(|(path, _)| path.len() > 1 && fits(&path[0])).map(|(path, to)| (&path[1..], *to)).collect()
    };
    match value {
        Value::Object(members) => {
            let mut renamed = Map::new();
            for (key, value) in members {
                let to = paths.iter().find(|(path, _)| path.len() == 1 && of_key(&key)(&path[0])).map(|(_, to)| *to);
                let value = rename(value, &next(&of_key(&key)));
                renamed.entry(to.unwrap_or(&key)).or_insert(value);
            }
            Value::Object(renamed)
        }
        Value::Array(elements) => Value::Array(
            elements.into_iter().enumerate().map(|(i, value)| rename(value, &next(&of_index(i)))).collect(),
        ),
        other => other,
    }
}

fn set(value: &mut Value, path: &[Step], new: &Value) {
    let makes = path.iter().all(|step| matches!(step, Step::Key(_)));
    let Some((first, rest)) = path.split_first() else {
        *value = new.clone();
        return;
    };
    match value {
        Value::Object(members) => {
            if let (Step::Key(key), true) = (first, makes) {
                let member = members.entry(key).or_insert(Value::Null);
                if !rest.is_empty() && !member.is_object() && !member.is_array() {
                    *member = json!({});
                }
            }
            for (key, value) in members {
                if of_key(key)(first) {
                    set(value, rest, new);
                }
            }
        }
        Value::Array(elements) => {
            for (i, value) in elements.iter_mut().enumerate() {
                if of_index(i)(first) && !is_gone(value) {
                    set(value, rest, new);
                }
            }
        }
        _ => {}
    }
}

/// The paths without `*` that a path stands for, as far as that is there.
fn places(value: &Value, way: &[Step], rest: &[Step]) -> Vec<Vec<Step>> {
    let Some((first, way)) = way.split_first() else {
        let leads = rest.is_empty() || value.is_object() || value.is_array();
        return if leads { vec![rest.to_vec()] } else { Vec::new() };
    };
    let inside: Vec<(Step, &Value)> = match value {
        Value::Object(members) => {
            let fitting = members.iter().filter(|(key, _)| of_key(key)(first));
            fitting.map(|(key, value)| (Step::Key(key.clone()), value)).collect()
        }
        Value::Array(elements) => {
            let fitting = elements.iter().enumerate().filter(|(i, value)| of_index(*i)(first) && !is_gone(value));
            fitting.map(|(i, value)| (Step::Number(i.to_string()), value)).collect()
        }
        _ => Vec::new(),
    };
    let deeper = |(step, value)| {
        places(value, way, rest).into_iter().map(move |mut place| {
            place.insert(0, Step::clone(&step));
            place
        })
    };
    inside.into_iter().flat_map(deeper).collect()
}

fn purge(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(purge),
        Value::Array(elements) => {
            elements.retain(|value| !is_gone(value));
            elements.iter_mut().for_each(purge);
        }
        _ => {}
    }
}

fn slowly(config: &EditsConfig, mut value: Value) -> Value {
    let plan = check::plan(config).unwrap();
    let rest = |paths: &'static [Path]| -> Rest<'static> { paths.iter().map(|path| path.0.as_slice()).collect() };
    let plan: &'static check::Plan = Box::leak(Box::new(plan));
    if let Some(paths) = &plan.pick {
        value = pick(value, &rest(paths)).unwrap();
    }
    value = remove(value, &rest(&plan.remove)).unwrap();
    let renames: Vec<_> = plan.rename.iter().map(|(path, to)| (path.0.as_slice(), to.as_str())).collect();
    value = rename(value, &renames);
    // What `*` and numbers stand for is what is there, not what is made.
    let makes = |path: &Path| path.0.iter().all(|step| matches!(step, Step::Key(_)));
    let (made, there): (Vec<_>, Vec<_>) = plan.set.iter().zip(config.set.values()).partition(|(path, _)| makes(path));
    let mut all: Vec<(Vec<Step>, &Value)> = Vec::new();
    for (path, new) in there {
        let last = path.0.iter().rposition(|step| !matches!(step, Step::Key(_))).unwrap();
        let (way, rest) = path.0.split_at(last + 1);
        all.extend(places(&value, way, rest).into_iter().map(|place| (place, new)));
    }
    all.extend(made.into_iter().map(|(path, new)| (path.0.clone(), new)));
    all.iter().for_each(|(path, new)| set(&mut value, path, new));
    purge(&mut value);
    value
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        "[a-z]{0,20}".prop_map(Value::from),
    ];
    let key = || prop_oneof![8 => "[a-d]", 1 => "[01]", 1 => Just("x.y".to_owned()), 1 => ".{0,3}"];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            2 => vec((key(), inner.clone()), 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
            1 => vec(inner, 0..4).prop_map(Value::Array),
        ]
    })
}

fn paths() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        6 => "[a-d]",
        2 => Just("*".to_owned()),
        1 => "[01]",
        1 => Just("\"x.y\"".to_owned()),
        1 => Just("\"0\"".to_owned()),
    ];
    vec(step, 1..5).prop_map(|steps| steps.join("."))
}

/// Sound configurations: what is wrong is taken out.
fn configs() -> impl Strategy<Value = EditsConfig> {
    let value = prop_oneof![Just(json!(1)), Just(json!({ "a": 1 })), Just(json!([{}])), Just(json!("x"))];
    let fields = (
        proptest::option::of(vec(paths(), 1..5)),
        vec(paths(), 0..4),
        proptest::collection::btree_map(paths(), "[a-f]", 0..4),
        vec((paths(), value), 0..4),
    );
    fields.prop_map(|(pick, remove, rename, set)| {
        let mut config = EditsConfig { pick, remove, rename, set: set.into_iter().collect() };
        while let Err(mistakes) = Edits::compile(&config) {
            let Mistake { verb, entry, .. } = mistakes.into_iter().next_back().unwrap();
            match (verb, entry) {
                ("pick", Some(i)) => drop(config.pick.as_mut().unwrap().remove(i.parse().unwrap())),
                ("remove", Some(i)) => drop(config.remove.remove(i.parse().unwrap())),
                ("rename", Some(key)) => drop(config.rename.remove(&key)),
                ("set", Some(key)) => drop(config.set.shift_remove(&key)),
                _ => config.pick = None,
            }
        }
        config
    })
}

fn compiled(config: &EditsConfig) -> Arc<Edits> {
    Edits::compile(config).unwrap().map_or_else(nothing, Arc::new)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn edits_are_those_of_the_slow_way(config in configs(), document in documents(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let text = compiled(&config).apply(text.as_bytes()).unwrap();
        let edited: Value = serde_json::from_slice(&text).unwrap();
        let expected = slowly(&config, document);
        prop_assert_eq!(&edited, &expected);
        if config.set.is_empty() {
            prop_assert_eq!(edited.to_string(), expected.to_string());
            if !pretty {
                prop_assert_eq!(String::from_utf8(text).unwrap(), expected.to_string());
            }
        }
    }

    #[test]
    fn parts_make_no_difference(
        config in configs(), document in documents(), cuts in vec(1..20usize, 1..8),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut text = serde_json::to_vec(&document).unwrap();
        if let Some((at, byte)) = damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let edits = compiled(&config);
        prop_assert_eq!(in_parts(&edits, &text, &cuts), edits.apply(&text));
    }

    #[test]
    fn without_edits_nothing_changes(document in documents(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        prop_assert_eq!(nothing().apply(text.as_bytes()).unwrap(), text.as_bytes());
        let other = edits(json!({ "remove": ["nothing.*.nothing", "*.*.nothing.0"] }));
        prop_assert_eq!(other.apply(text.as_bytes()).unwrap(), text.as_bytes());
    }

    #[test]
    fn what_is_json_is_what_others_say(text in vec(prop_oneof![
        4 => prop::sample::select(br#"{}[],:"\ tfnu0123456789-+.eE"#.to_vec()),
        1 => any::<u8>(),
    ], 0..24)) {
        let sound = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
        let utf8 = std::str::from_utf8(&text).is_ok();
        prop_assert_eq!(nothing().apply(&text).is_ok(), sound && utf8, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn bytes_of_any_kind_do_not_panic(config in configs(), text in vec(any::<u8>(), 0..200), cuts in vec(1..9usize, 1..4)) {
        let edits = compiled(&config);
        prop_assert_eq!(in_parts(&edits, &text, &cuts), edits.apply(&text));
    }
}
