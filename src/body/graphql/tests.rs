use std::collections::HashMap;

use super::*;

fn limits() -> Limits {
    Limits {
        multipliers: ["first", "last"].map(Box::from).into(),
        max_aliases: 3,
        max_directives: 3,
        ..Limits::default()
    }
}

fn weigh(text: &str, limits: &Limits) -> Result<Weight, Wrong> {
    let document = Document::read(text)?;
    let operation = document.operations.last().unwrap();
    document.weigh(operation, limits, &HashMap::from([(Box::from("n"), 7)]))
}

#[test]
fn a_document_is_weighed() {
    let weight = |text: &str| weigh(text, &limits()).map(|weight| (weight.depth, weight.cost)).unwrap();
    assert_eq!(weight("{ a }"), (1, 1));
    assert_eq!(weight("{ a { b c { d __typename } } }"), (3, 4));
    assert_eq!(weight("{ a(first: 10) { b(last: 3) c } }"), (2, 50));
    assert_eq!(weight("query ($n: Int) { a(first: $n) { b } }"), (2, 14));
    assert_eq!(weight("query ($m: Int = 5) { a(first: $m) }"), (1, 5));
    assert_eq!(weight("query ($m: Int) { a(first: $m) }"), (1, 1));
    assert_eq!(weight("{ a(first: \"9\", last: 1e1) }"), (1, 10));
    assert_eq!(weight("{ a(first: -5) b(first: 0) }"), (1, 2));
    assert_eq!(weight("{ ...F ...F ... on T { x } } fragment F on Q { a { b } }"), (2, 5));
    assert_eq!(weight("query A { a } query B { a b }"), (1, 2));
    let priced = Limits { costs: HashMap::from([(Box::from("a"), 10)]), ..limits() };
    assert_eq!(weigh("{ a(first: 2) { b } }", &priced).unwrap().cost, 22);
    assert_eq!(weigh("{ a(first: 9999999999999999999999) { b } c }", &limits()).unwrap().cost, u64::MAX);
}

#[test]
fn what_goes_too_far_is_refused_in_bounded_time() {
    let refused =
        |text: &str| weigh(text, &Limits { max_depth: Some(3), max_cost: Some(100), ..limits() }).unwrap_err();
    assert_eq!(refused("{ a { b { c { d } } } }").what, "the document is 4 fields deep, 3 are allowed");
    assert_eq!(refused("{ a(first: 51) { b } }").what, "the document costs 102, 100 is allowed");
    assert_eq!(refused("{ a: x b: x c: x d: x }").what, "the document has 4 aliases, 3 are allowed");
    assert_eq!(refused("{ a @a @a @a @a }").what, "the document has 4 directives, 3 are allowed");
    assert_eq!(refused("{ ...A } fragment A on Q { ...B } fragment B on Q { ...A }").what, "a fragment holds itself");
    assert_eq!(refused("{ a } fragment A on Q { ...A }").what, "a fragment holds itself");
    assert_eq!(refused("{ ...A }").what, "there is no such fragment");
    assert!(refused("{ a { __schema { b } } }").what.contains("schema"));
    assert!(refused("{ ... on Q { __type(name: \"a\") { b } } }").what.contains("schema"));
    // Each fragment spreads the next twice.
    let doubling: String = (0..60).map(|i| format!("fragment F{i} on Q {{ ...F{} ...F{} }}", i + 1, i + 1)).collect();
    assert!(refused(&format!("{{ ...F0 }} {doubling} fragment F60 on Q {{ a }}")).what.contains("costs"));
    let chain: String = (0..900).map(|i| format!("fragment F{i} on Q {{...F{}}}", i + 1)).collect();
    assert!(refused(&format!("{{ a }} {chain} fragment F900 on Q {{ a }}")).what.contains("deep in each other"));
    for (open, close) in [("{a", "}"), ("{a(b:[", "])}"), ("{a(b:{c:", "})}"), ("query($a:[", "]){a}"), ("{...{", "}}")]
    {
        for text in [open.repeat(50_000), format!("{}{}", open.repeat(5000), close.repeat(5000))] {
            assert!(Document::read(&text).is_err(), "{open}");
        }
    }
    assert!(refused(&format!("{{ {} }}", "a ".repeat(50_000))).what.contains("tokens"));
}

#[test]
fn what_is_malformed_is_told_with_its_place() {
    let place = |text: &str| {
        let wrong = Document::read(text).unwrap_err();
        (wrong.what.clone(), wrong.location(text))
    };
    assert_eq!(place("{\n  a(b: )\n}").1, Some((2, 8)));
    assert_eq!(place("").1, Some((1, 1)));
    for text in ["{", "{ }", "type A { b: C }", "{ a } { b }", "query A { a } query A { b }", "fragment A on B { c }"] {
        Document::read(text).unwrap_err();
    }
    let wrong = Wrong::new(4, "x");
    assert_eq!((wrong.location("ä\näb"), wrong.location("")), (Some((2, 1)), Some((1, 1))));
}

#[test]
fn operations_and_their_variables_are_known() {
    let document = Document::read("query A($a: Int!, $b: [ID!]!, $c: String = \"x\") { f } mutation B { g }").unwrap();
    assert!(document.operation(None).is_err() && document.operation(Some("C")).is_err());
    assert_eq!(document.operation(Some("B")).unwrap().kind, Kind::Mutation);
    let variables = &document.operation(Some("A")).unwrap().variables;
    let known: Vec<_> = variables.iter().map(|v| (&*v.name, v.scalar.as_deref(), v.required)).collect();
    assert_eq!(known, [("a", Some("Int"), true), ("b", None, true), ("c", Some("String"), false)]);
}

#[test]
fn requests_can_be_understood_in_one_way_only() {
    let asks = |body: &str| {
        let batch = Batch::read(body.as_bytes()).map_err(|error| error.to_string())?;
        let (asks, batched) = batch.asks().map_err(|wrong| wrong.to_string())?;
        Ok::<_, String>((asks.len(), batched, asks[0].query.as_deref().map(str::to_owned), asks[0].hash()))
    };
    assert_eq!(
        asks(r#"{"query": "{a\n}", "variables": null, "id": 7}"#).unwrap(),
        (1, false, Some("{a\n}".into()), None)
    );
    assert_eq!(asks(r#"[{"query": "{a}"}, {"query": "{b}"}]"#).unwrap().0, 2);
    let hash = asks(r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "abc"}}}"#).unwrap();
    assert_eq!(hash.3.as_deref(), Some("abc"));
    for body in [
        r#"{"query": "{a}", "query": "{b}"}"#,
        r#"{"query": "{a}", "qu\u0065ry": "{b}"}"#,
        r#"{"query": "{a}", "QUERY": "{b}"}"#,
        r#"{"query": "{a}", "variableſ": {}}"#,
        r#"{"query": 7}"#,
        r#"{"query": "{a}", "variables": "{}"}"#,
        r#"{"query": "{a}", "variables": {"n": 1, "n": 2}}"#,
        "7",
        "[7]",
        "{",
    ] {
        assert!(asks(body).is_err(), "{body}");
    }
    let of_query = |query: &'static str| Ask::of_query(query).map(|ask| ask.map(|ask| ask.query));
    assert_eq!(of_query("a=b").unwrap(), None);
    assert_eq!(of_query("query=%7Ba%7D&x=y").unwrap(), Some(Some("{a}".into())));
    assert!(of_query("query=a&query=b").is_err() && of_query("query=a&variables=7").is_err());
    let ask = Ask { variables: Some(r#"{"a": 7, "b": "8", "c": null, "d": [1], "e": -1}"#.into()), ..Ask::default() };
    let amounts = ask.amounts();
    assert_eq!((amounts.len(), amounts["a"], amounts["b"]), (2, 7, 8));
}
