//! Transcoding as a whole, with descriptor sets that are compiled here.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::wire::{put_bytes, put_tag, put_varint};
use super::*;
use crate::body::Filter;

const ANNOTATIONS: &str = include_str!("tests/annotations.proto");

const SHOP: &str = include_str!("tests/shop.proto");

/// Files that are compiled together with the well-known ones.
struct Files(Vec<(&'static str, String)>);

impl protox::file::FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match self.0.iter().find(|(own, _)| *own == name) {
            Some((_, text)) => protox::file::File::from_source(name, text),
            None => protox::file::GoogleFileResolver::new().open_file(name),
        }
    }
}

fn compile(proto: &str) -> Vec<u8> {
    let files = Files(vec![("test.proto", proto.to_owned()), ("google/api/annotations.proto", ANNOTATIONS.to_owned())]);
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true).open_file("test.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn config(text: &str) -> GrpcConfig {
    toml::from_str(&format!("descriptors = 'x'\n{text}")).unwrap()
}

fn shop(text: &str) -> Transcoder {
    Transcoder::new(&config(&format!("max_message = '1MiB'\n{text}")), &compile(SHOP)).unwrap()
}

fn mistakes(rpcs: &str) -> Vec<String> {
    let proto = format!(
        "syntax = 'proto3'; package p; import 'google/api/annotations.proto';
         message M {{ string a = 1; repeated string r = 2; map<string, string> m = 3; M n = 4; }}
         service S {{ {rpcs} }}"
    );
    Transcoder::new(&config(""), &compile(&proto)).map(|_| ()).unwrap_err()
}

/// The message of the frame that a request becomes.
fn message(call: &Call, query: Option<&str>, body: &str) -> Result<Vec<u8>, String> {
    let frame =
        call.request(query, Some("application/json"), body.as_bytes()).map_err(|refused| refused.to_string())?;
    assert_eq!((frame[0], &frame[1..5]), (0, &u32::try_from(frame.len() - 5).unwrap().to_be_bytes()[..]));
    Ok(frame[5..].to_vec())
}

/// What a whole answer becomes.
fn answer(call: &Call, messages: &[Vec<u8>]) -> Result<String, Malformed> {
    let mut frames = Vec::new();
    messages.iter().for_each(|message| frame::put_frame(0, message, &mut frames).unwrap());
    run(&mut call.answer(None, None).unwrap(), &frames, usize::MAX)
}

fn run(answer: &mut Answer, bytes: &[u8], size: usize) -> Result<String, Malformed> {
    let mut out = Vec::new();
    for part in bytes.chunks(size) {
        answer.push(part, &mut out)?;
    }
    answer.end(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// To protobuf and back.
fn echo(transcoder: &Transcoder, json: &str) -> Result<String, String> {
    let call = transcoder.find("POST", "/echo").unwrap();
    let message = message(&call, None, json)?;
    answer(&call, &[message]).map_err(|wrong| wrong.to_string())
}

/// What a request to the method `Get` has, as JSON of the message.
fn got(transcoder: &Transcoder, method: &str, path: &str, query: &str, body: &str) -> Result<Value, String> {
    let call = transcoder.find(method, path).map_err(|refused| refused.to_string())?;
    let message = message(&call, Some(query), body)?;
    let printer = print::Printer { schema: &call.common.schema, style: Style::default(), limit: 1 << 16 };
    let mut out = Vec::new();
    printer.message(call.route.input, &message, &mut out).unwrap();
    Ok(serde_json::from_slice(&out).unwrap())
}

/// What goes in, and what comes out again.
const SAME: &[(&str, &str)] = &[
    ("{}", "{}"),
    // Numbers.
    (r#"{"d":1.5,"f":-0.1}"#, r#"{"d":1.5,"f":-0.1}"#),
    (r#"{"d":"1.5","f":"1e2"}"#, r#"{"d":1.5,"f":100}"#),
    (r#"{"d":"NaN","f":"-Infinity"}"#, r#"{"d":"NaN","f":"-Infinity"}"#),
    (r#"{"d":"Infinity","doubles":["NaN",1]}"#, r#"{"d":"Infinity","doubles":["NaN",1]}"#),
    (r#"{"d":-0.0}"#, r#"{"d":-0}"#),
    (r#"{"d":1.7976931348623157e+308,"f":3.4028235e38}"#, r#"{"d":1.7976931348623157e+308,"f":3.4028235e+38}"#),
    (r#"{"i32":2147483647,"u32":4294967295}"#, r#"{"i32":2147483647,"u32":4294967295}"#),
    (
        r#"{"i32":-2147483648,"s32":-2147483648,"sf32":-1,"f32":1}"#,
        r#"{"i32":-2147483648,"s32":-2147483648,"f32":1,"sf32":-1}"#,
    ),
    (
        r#"{"i64":9223372036854775807,"u64":18446744073709551615}"#,
        r#"{"i64":"9223372036854775807","u64":"18446744073709551615"}"#,
    ),
    (
        r#"{"i64":"-9223372036854775808","s64":"-9223372036854775808"}"#,
        r#"{"i64":"-9223372036854775808","s64":"-9223372036854775808"}"#,
    ),
    (r#"{"f64":"1","sf64":-2}"#, r#"{"f64":"1","sf64":"-2"}"#),
    (r#"{"i32":1e3,"u32":1.5e1,"i64":100000.000,"u64":"1e2"}"#, r#"{"i32":1000,"i64":"100000","u32":15,"u64":"100"}"#),
    (
        r#"{"i64":9007199254740993.0,"i32":1200e-2,"s32":-0,"u32":0e99999999999}"#,
        r#"{"i32":12,"i64":"9007199254740993"}"#,
    ),
    // Texts.
    (r#"{"b":true,"s":"\u00e9\n\u0000\ud83d\ude00"}"#, "{\"b\":true,\"s\":\"é\\n\\u0000😀\"}"),
    (r#"{"by":"AQID/w=="}"#, r#"{"by":"AQID/w=="}"#),
    (r#"{"by":"AQID_w"}"#, r#"{"by":"AQID/w=="}"#),
    (r#"{"by":"-_8"}"#, r#"{"by":"+/8="}"#),
    // Enums.
    (
        r#"{"colour":"RED","colours":["BLUE",1,0,-1,77]}"#,
        r#"{"colour":"RED","colours":["BLUE","RED","NONE","MINUS",77]}"#,
    ),
    (r#"{"colour":2.0}"#, r#"{"colour":"BLUE"}"#),
    // Defaults are not told; of what has presence they are.
    (r#"{"i32":0,"s":"","b":false,"ints":[],"counts":{},"colour":"NONE","d":0}"#, "{}"),
    (r#"{"maybe":0,"inner":{},"one":""}"#, r#"{"inner":{},"one":"","maybe":0}"#),
    // Null is the lack of a value.
    (
        r#"{"i32":null,"inner":null,"ints":null,"counts":null,"time":null,"wI64":null,"any":null,"one":null,"other":{}}"#,
        r#"{"other":{}}"#,
    ),
    (r#"{"value":null}"#, r#"{"value":null}"#),
    (r#"{"none":null}"#, r#"{"none":null}"#),
    (r#"{"none":"NULL_VALUE","nothing":null}"#, r#"{"none":null}"#),
    // Lists and maps.
    (
        r#"{"ints":[1,"2",3e0],"strings":["a",""],"inners":[{},{"number":1}],"unpacked":[4,0]}"#,
        r#"{"ints":[1,2,3],"strings":["a",""],"inners":[{},{"number":1}],"unpacked":[4,0]}"#,
    ),
    (
        r#"{"counts":{"b":2,"a":0},"byNumber":{"-5":{"text":"x"},"10":{}},"byBool":{"true":"t","false":"f"}}"#,
        r#"{"counts":{"a":0,"b":2},"byNumber":{"-5":{"text":"x"},"10":{}},"byBool":{"false":"f","true":"t"}}"#,
    ),
    // Names: in JSON, and of the proto file.
    (r#"{"snake_case_name":1}"#, r#"{"snakeCaseName":1}"#),
    (r#"{"snakeCaseName":1,"named":"x"}"#, r#"{"odd-Name":"x","snakeCaseName":1}"#),
    // Known types.
    (
        r#"{"time":"2024-02-29T12:00:00.5+01:00","times":["1970-01-01T00:00:00Z"]}"#,
        r#"{"time":"2024-02-29T11:00:00.500Z","times":["1970-01-01T00:00:00Z"]}"#,
    ),
    (r#"{"span":"-1.5s"}"#, r#"{"span":"-1.500s"}"#),
    (r#"{"mask":"a,fooBar.b"}"#, r#"{"mask":"a,fooBar.b"}"#),
    (r#"{"mask":""}"#, r#"{"mask":""}"#),
    (
        r#"{"structure":{"b":[1,"x",null,true,{"a":{}}],"a":-2.5}}"#,
        r#"{"structure":{"a":-2.5,"b":[1,"x",null,true,{"a":{}}]}}"#,
    ),
    (r#"{"value":[[]],"list":[1,[2]]}"#, r#"{"value":[[]],"list":[1,[2]]}"#),
    (r#"{"value":"x"}"#, r#"{"value":"x"}"#),
    (r#"{"value":false}"#, r#"{"value":false}"#),
    (r#"{"empty":{}}"#, r#"{"empty":{}}"#),
    (
        r#"{"wI64":"0","wS":"","wB":false,"wBy":"","wD":"NaN","wF":"Infinity","wU32":1,"wI32s":[0,1]}"#,
        r#"{"wI64":"0","wS":"","wB":false,"wBy":"","wD":"NaN","wF":"Infinity","wU32":1,"wI32s":[0,1]}"#,
    ),
    // Any.
    (r#"{"any":{}}"#, r#"{"any":{}}"#),
    (
        r#"{"any":{"number":1,"@type":"x/shop.Inner","text":"t"}}"#,
        r#"{"any":{"@type":"x/shop.Inner","text":"t","number":1}}"#,
    ),
    (
        r#"{"any":{"value":"1s","@type":"x/google.protobuf.Duration"}}"#,
        r#"{"any":{"@type":"x/google.protobuf.Duration","value":"1s"}}"#,
    ),
    (
        r#"{"any":{"@type":"x/google.protobuf.Value","value":null}}"#,
        r#"{"any":{"@type":"x/google.protobuf.Value","value":null}}"#,
    ),
    (
        r#"{"any":{"@type":"x/google.protobuf.Int32Value","value":5}}"#,
        r#"{"any":{"@type":"x/google.protobuf.Int32Value","value":5}}"#,
    ),
    (r#"{"any":{"@type":"x/google.protobuf.Empty","value":{}}}"#, r#"{"any":{"@type":"x/google.protobuf.Empty"}}"#),
    (
        r#"{"any":{"@type":"x/google.protobuf.Any","value":{"@type":"x/shop.Inner","inner":{"number":2}}}}"#,
        r#"{"any":{"@type":"x/google.protobuf.Any","value":{"@type":"x/shop.Inner","inner":{"number":2}}}}"#,
    ),
];

const REFUSED: &[&str] = &[
    "",
    "[]",
    "null",
    "1",
    "\"x\"",
    "{",
    "{}{}",
    "{} x",
    r#"{"unknown":1}"#,
    r#"{"i32":1,"i32":2}"#,
    r#"{"snakeCaseName":1,"snake_case_name":2}"#,
    r#"{"one":"a","other":{}}"#,
    r#"{"one":"a","none":null}"#,
    r#"{"i32":2147483648}"#,
    r#"{"i32":-2147483649}"#,
    r#"{"u32":-1}"#,
    r#"{"u32":4294967296}"#,
    r#"{"i64":"9223372036854775808"}"#,
    r#"{"u64":18446744073709551616}"#,
    r#"{"i32":1.5}"#,
    r#"{"i32":"1.5"}"#,
    r#"{"i32":" 1"}"#,
    r#"{"i32":""}"#,
    r#"{"i32":"1x"}"#,
    r#"{"i32":true}"#,
    r#"{"i32":1e99}"#,
    r#"{"i32":1e-1}"#,
    r#"{"i32":1e99999999999999999999}"#,
    r#"{"i32":01}"#,
    r#"{"i32":"0x1"}"#,
    r#"{"i32":[1]}"#,
    r#"{"d":1e999}"#,
    r#"{"d":"inf"}"#,
    r#"{"d":"nan"}"#,
    r#"{"d":"1e999"}"#,
    r#"{"d":NaN}"#,
    r#"{"f":3.502823e+38}"#,
    r#"{"d":""}"#,
    r#"{"b":"true"}"#,
    r#"{"b":1}"#,
    r#"{"s":1}"#,
    r#"{"by":"%"}"#,
    r#"{"by":"A"}"#,
    r#"{"by":1}"#,
    r#"{"colour":"GREEN"}"#,
    r#"{"colour":"red"}"#,
    r#"{"colour":1.5}"#,
    r#"{"colour":2147483648}"#,
    r#"{"colour":true}"#,
    r#"{"ints":1}"#,
    r#"{"ints":[null]}"#,
    r#"{"ints":[[1]]}"#,
    r#"{"ints":{"0":1}}"#,
    r#"{"inners":[null]}"#,
    r#"{"counts":[]}"#,
    r#"{"counts":{"a":null}}"#,
    r#"{"counts":{"a":1,"a":2}}"#,
    r#"{"byNumber":{"x":{}}}"#,
    r#"{"byNumber":{"1":{},"1.0":{}}}"#,
    r#"{"byBool":{"1":""}}"#,
    r#"{"inner":[]}"#,
    r#"{"inner":"x"}"#,
    r#"{"time":0}"#,
    r#"{"time":"yesterday"}"#,
    r#"{"span":"1"}"#,
    r#"{"mask":"a_b"}"#,
    r#"{"mask":["a"]}"#,
    r#"{"mask":"a,,b"}"#,
    r#"{"structure":[]}"#,
    r#"{"structure":{"a":1,"a":2}}"#,
    r#"{"list":{}}"#,
    r#"{"value":1e999}"#,
    r#"{"wI64":{"value":1}}"#,
    r#"{"wB":"true"}"#,
    r#"{"empty":{"a":1}}"#,
    r#"{"any":{"text":"x"}}"#,
    r#"{"any":{"@type":"x/no.Such"}}"#,
    r#"{"any":{"@type":"shop.Inner"}}"#,
    r#"{"any":{"@type":""}}"#,
    r#"{"any":{"@type":1}}"#,
    r#"{"any":{"@type":"x/shop.Inner","@type":"x/shop.Inner"}}"#,
    r#"{"any":{"@type":"x/shop.Inner","odd":1}}"#,
    r#"{"any":{"@type":"x/google.protobuf.Duration"}}"#,
    r#"{"any":{"@type":"x/google.protobuf.Duration","value":"1s","a":1}}"#,
    r#"{"any":{"@type":"x/google.protobuf.Duration","value":"1s","value":"1s"}}"#,
    r#"{"s":"\ud800"}"#,
    r#"{"s":"\x"}"#,
    "{\"s\":\"\n\"}",
    r#"{"s":'x'}"#,
    r#"{s:"x"}"#,
    r#"{"ints":[1,]}"#,
    r#"{"i32":1,}"#,
    r#"{"nothing":false}"#,
];

#[test]
fn json_is_mapped() {
    let transcoder = shop("");
    for (json, expected) in SAME {
        assert_eq!(echo(&transcoder, json).as_deref(), Ok(*expected), "{json}");
        // What comes out goes in again.
        assert_eq!(echo(&transcoder, expected).as_deref(), Ok(*expected), "{json}");
    }
    for json in REFUSED.iter().filter(|json| !json.is_empty()) {
        assert!(echo(&transcoder, json).is_err(), "{json}");
    }
    let call = transcoder.find("POST", "/echo").unwrap();
    let not_utf8 = call.request(None, None, b"{\"s\":\"\xff\"}");
    assert_eq!(not_utf8, Err(Refused::Body(Malformed::new(6, "the text is not UTF-8"))));
}

#[test]
fn mistakes_say_where_they_are() {
    let transcoder = shop("");
    let wrong = |json| echo(&transcoder, json).unwrap_err();
    assert_eq!(wrong(r#"{"odd":1}"#), "in the body, shop.All has no field `odd`, at byte 7");
    let nested = "in the body, inners: inner: number: an integer that the field can hold was expected, at byte 35";
    assert_eq!(wrong(r#"{"inners":[{"inner":{"number":"x"}}]}"#).split(", at").next(), nested.split(", at").next());
    assert!(wrong(r#"{"time":"x"}"#).contains("time: a time, as"), "{}", wrong(r#"{"time":"x"}"#));
}

#[test]
fn unknown_fields_are_passed_over_where_that_is_wanted() {
    let transcoder = shop("ignore_unknown_fields = true");
    let json = r#"{"x":[{"y":{}}],"i32":1,"inner":{"z":null},"any":{"@type":"x/shop.Inner","odd":[]}}"#;
    assert_eq!(echo(&transcoder, json).unwrap(), r#"{"i32":1,"inner":{},"any":{"@type":"x/shop.Inner"}}"#);
    assert!(got(&transcoder, "GET", "/v1/shelves/a", "", "{}").is_ok());
}

#[test]
fn the_style_is_an_option() {
    let transcoder = shop("print_original_names = true\nprint_enum_numbers = true");
    let json = r#"{"snakeCaseName":1,"colour":"RED","counts":{"a_b":1}}"#;
    assert_eq!(echo(&transcoder, json).unwrap(), r#"{"colour":1,"counts":{"a_b":1},"snake_case_name":1}"#);
    let all: Value =
        serde_json::from_str(&echo(&shop("print_defaults = true"), r#"{"u32":7,"inner":{}}"#).unwrap()).unwrap();
    let has = |name: &str, value: Value| assert_eq!(all[name], value, "{name}");
    has("u32", json!(7));
    has("i64", json!("0"));
    has("d", json!(0));
    has("s", json!(""));
    has("by", json!(""));
    has("b", json!(false));
    has("colour", json!("NONE"));
    has("ints", json!([]));
    has("counts", json!({}));
    has("nothing", Value::Null);
    has("inner", json!({ "text": "", "number": 0, "tags": [] }));
    for absent in ["maybe", "one", "other", "time", "wI64", "any", "value"] {
        assert!(all.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn paths_and_queries_give_fields() {
    let transcoder = shop("");
    let get = |path: &str, query: &str| got(&transcoder, "GET", path, query, "");
    assert_eq!(get("/v1/shelves/a%2Fb%20c", "").unwrap(), json!({ "name": "shelves/a%2Fb c" }));
    assert_eq!(get("/v1/deep/a%2Fb/7", "").unwrap(), json!({ "inner": { "text": "a/b" }, "depth": 7 }));
    assert_eq!(
        get("/v1/deep/x/7", "inner.number=2&inner.inner.text=a+b%26&tags=x&tags=y&inner.tags=z").unwrap(),
        json!({ "depth": 7, "tags": ["x", "y"],
                "inner": { "text": "x", "number": 2, "tags": ["z"], "inner": { "text": "a b&" } } })
    );
    assert_eq!(
        get("/v1/shelves/a", "colour=RED&deep=true&mask=a,b.cD&since=2024-01-01T00:00:00Z&limit=5&number=-3&numbers=1&numbers=2&span=1.5s&maybe=true")
            .unwrap(),
        json!({ "name": "shelves/a", "colour": "RED", "deep": true, "mask": "a,b.cD", "since": "2024-01-01T00:00:00Z",
                "limit": "5", "number": "-3", "numbers": [1, 2], "span": "1.500s", "maybe": true })
    );
    assert_eq!(get("/v1/shelves/a", "colour=2&&").unwrap(), json!({ "name": "shelves/a", "colour": "BLUE" }));
    for wrong in [
        "odd=1",
        "depth=x",
        "depth=",
        "deep=1",
        "deep",
        "colour=GREEN",
        "depth=1&depth=2",
        "inner=x",
        "inner.odd=1",
        "labels=x",
        "labels.a=b",
        "structure=x",
        "structure.a=1",
        "author=a&number=1",
        "name=x",
        "tags.x=1",
        "since=x",
        "since.seconds=1",
        &("inner.".repeat(200) + "text=x"),
        "mask=a_b",
        "tags=%ff",
        "%ff=1",
        "=1",
        ".=1",
        "maybe=1",
        "limit=x",
    ] {
        assert!(get("/v1/shelves/a", wrong).is_err(), "{wrong}");
    }
    assert!(get("/v1/deep/x/seven", "").is_err());
    assert!(get("/v1/deep/%ff/7", "").is_err());
    assert!(got(&transcoder, "GET", "/v1/shelves/a", "", "{}").is_err(), "a GET has no body");
    let lenient = shop("ignore_unknown_query = true\nignore_query = ['key', 'depth']");
    let get = |query: &str| got(&lenient, "GET", "/v1/shelves/a", query, "");
    assert_eq!(get("odd=1&inner.odd=2&depth=x&key=y&deep=true").unwrap(), json!({ "name": "shelves/a", "deep": true }));
    assert!(get("numbers=x").is_err(), "a field that is known has to be right");
}

#[test]
fn bodies_give_the_rest() {
    let transcoder = shop("");
    let of = |method: &str, path: &str, query: &str, body: &str| got(&transcoder, method, path, query, body);
    let body = r#"{"shelf":{"name":"other","theme":"t"},"mask":"theme"}"#;
    let whole = json!({ "shelf": { "name": "shelves/a", "theme": "t" }, "mask": "theme" });
    assert_eq!(of("PATCH", "/v1/shelves/a", "", body).unwrap(), whole, "the path overrides the body");
    assert!(of("PATCH", "/v1/shelves/a", "mask=x", body).is_err(), "all fields are in the body");
    assert_eq!(of("PATCH", "/v1/shelves/a", "", "").unwrap(), json!({ "shelf": { "name": "shelves/a" } }));
    let put = of("PUT", "/v1/shelf", "mask=theme", r#"{"theme":"t"}"#).unwrap();
    assert_eq!(put, json!({ "shelf": { "theme": "t" }, "mask": "theme" }));
    let named = of("PUT", "/v1/shelf/a", "mask=theme", r#"{"name":"b","theme":"t"}"#).unwrap();
    assert_eq!(
        named,
        json!({ "shelf": { "name": "a", "theme": "t" }, "mask": "theme" }),
        "the path overrides the body"
    );
    assert!(of("PUT", "/v1/shelf", "shelf.name=x", "{}").is_err(), "the field is the body");
    let many = of("PUT", "/v1/inners", "shelf.name=x", r#"[{"number":1},{}]"#).unwrap();
    assert_eq!(many, json!({ "shelf": { "name": "x" }, "inners": [{ "number": 1 }, {}] }));
    let peek = of("QUERY", "/v1/shelves/a:peek", "depth=1", r#"{"text":"t"}"#).unwrap();
    assert_eq!(peek, json!({ "name": "shelves/a", "depth": 1, "inner": { "text": "t" } }));
    let call = transcoder.find("PUT", "/v1/shelf").unwrap();
    assert_eq!(call.request(None, Some("text/plain"), b"{}"), Err(Refused::MediaType));
    assert!(call.request(None, Some("application/merge-patch+json; charset=utf-8"), b"{}").is_ok());
    assert_eq!(call.path(), "/shop.Shop/Put");
}

#[test]
fn a_stream_of_a_client_is_several_frames() {
    let call = shop("").find("POST", "/v1/fill/t").unwrap();
    let frames = call.request(None, None, b"{\"name\":\"a\"}\n{\"name\":\"b\"}\n").unwrap();
    assert_eq!(frames, b"\0\0\0\0\x06\x0a\x01a\x12\x01t\0\0\0\0\x03\x0a\x01b");
}

#[test]
fn methods_are_found() {
    let transcoder = shop("");
    assert_eq!(transcoder.find("GET", "/v2").unwrap_err(), Refused::Path);
    let Refused::Method(allowed) = transcoder.find("DELETE", "/v1/shelves/a").unwrap_err() else { panic!() };
    assert_eq!(allowed, ["GET", "PATCH"]);
    assert_eq!(transcoder.find("POST", "/shop.Shop/Hidden").unwrap_err(), Refused::Path);
    let hidden = shop("unannotated = true").find("POST", "/shop.Shop/Hidden").unwrap();
    assert_eq!(hidden.path(), "/shop.Shop/Hidden");
    assert_eq!(hidden.request(None, None, br#"{"name":"x"}"#).unwrap(), b"\0\0\0\0\x03\x0a\x01x");
    assert!(transcoder.methods().any(|method| method == "shop.Shop/Get: QUERY /v1/{name=shelves/*}:peek"));
}

#[test]
fn mistakes_of_a_set_are_told() {
    let http = |rule: &str| format!("rpc G(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}");
    for (rule, words) in [
        ("get: '/{b}'", "p.S/G: GET /{b}: p.M has no field `b`"),
        ("get: '/{r}'", "p.S/G: GET /{r}: `r` is repeated, and a path has one"),
        ("get: '/{m}'", "p.S/G: GET /{m}: `m` is a message or map, which a text cannot give"),
        ("get: '/{n}'", "p.S/G: GET /{n}: `n` is a message or map, which a text cannot give"),
        ("get: '/{a.b}'", "p.S/G: GET /{a.b}: `a` has no fields that could be given one by one"),
        ("get: '/{a'", "p.S/G: GET /{a: a `{` has no `}`"),
        ("post: '/a' body: 'x'", "p.S/G: POST /a: body: p.M has no field `x`"),
        ("get: '/a' response_body: 'x'", "p.S/G: GET /a: response_body: p.M has no field `x`"),
        (
            "get: '/{a}' additional_bindings { get: '/{n.a}' }",
            "p.S/G: GET /{n.a}: the same paths are those of p.S/G: GET /{a}",
        ),
        ("body: '*'", "p.S/G:  : the rule has no method or no path"),
        (
            "get: '/a' additional_bindings { get: '/b' additional_bindings { get: '/c' } }",
            "p.S/G: its google.api.http cannot be read: additional_bindings lie in each other",
        ),
    ] {
        assert_eq!(mistakes(&http(rule)), [words], "{rule}");
    }
    assert_eq!(mistakes("rpc G(M) returns (M);"), ["no method of these services has a google.api.http annotation"]);
    let all = mistakes(
        "rpc G(M) returns (M) { option (google.api.http) = { get: '/{x}' }; }
                        rpc H(M) returns (M) { option (google.api.http) = { get: '/{y}' }; }",
    );
    assert_eq!(all.len(), 2, "{all:?}");
    let wrong = Transcoder::new(&config("services = ['shop.Shoe']"), &compile(SHOP)).unwrap_err();
    assert_eq!(wrong, ["the set has no service `shop.Shoe`; it has `shop.Shop`"]);
    assert!(Transcoder::new(&config(""), b"\xff\xff").is_err());
    assert!(toml::from_str::<GrpcConfig>("descriptors = 'x'\nodd = 1").is_err());
}

#[test]
fn a_set_without_its_imports_or_annotations() {
    // What is imported is missing.
    let files = Files(vec![("test.proto", SHOP.to_owned()), ("google/api/annotations.proto", ANNOTATIONS.to_owned())]);
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(false).open_file("test.proto").unwrap();
    let wrong = Transcoder::new(&config(""), &compiler.encode_file_descriptor_set()).unwrap_err();
    assert!(wrong[0].contains("--include_imports"), "{wrong:?}");
    // The annotation's own file is missing, and nothing imports it: the option is an unknown field.
    use prost_reflect::prost::Message as _;
    use prost_reflect::prost_types::FileDescriptorSet;
    let mut bytes = Vec::new();
    let set = compile("syntax = 'proto3'; package p; message M { string a = 1; } service S { rpc G(M) returns (M); }");
    let set = FileDescriptorSet::decode(&set[..]).unwrap();
    let file = set.file[0].encode_to_vec();
    // A second service, written by hand, whose method has the option.
    let mut rule = Vec::new();
    put_bytes(2, b"/x/{a}", &mut rule);
    let mut options = Vec::new();
    put_bytes(72_295_728, &rule, &mut options);
    let mut method = Vec::new();
    [(1, &b"H"[..]), (2, b".p.M"), (3, b".p.M"), (4, &options)].iter().for_each(|(n, b)| put_bytes(*n, b, &mut method));
    let mut service = Vec::new();
    [(1, &b"T"[..]), (2, &method)].iter().for_each(|(n, b)| put_bytes(*n, b, &mut service));
    let mut file = file;
    put_bytes(6, &service, &mut file);
    put_bytes(1, &file, &mut bytes);
    let transcoder = Transcoder::new(&config(""), &bytes).unwrap();
    assert_eq!(transcoder.find("GET", "/x/y").unwrap().request(None, None, b"").unwrap(), b"\0\0\0\0\x03\x0a\x01y");
}

#[test]
fn answers_are_json() {
    let transcoder = shop("");
    let get = transcoder.find("GET", "/v1/shelves/a").unwrap();
    assert_eq!(answer(&get, &[b"\x0a\x01n\x12\x01t".to_vec()]).unwrap(), r#"{"name":"n","theme":"t"}"#);
    assert_eq!(answer(&get, &[vec![]]).unwrap(), "{}");
    assert!(answer(&get, &[]).is_err(), "no message");
    assert!(answer(&get, &[vec![], vec![]]).is_err(), "two messages");
    let list = transcoder.find("GET", "/v1/shelves").unwrap();
    assert_eq!(answer(&list, &[b"\x0a\x03\x0a\x01n\x0a\0\x12\x01x".to_vec()]).unwrap(), r#"[{"name":"n"},{}]"#);
    assert_eq!(answer(&list, &[vec![]]).unwrap(), "[]");
    assert!(get.answer(None, Some("br")).is_err());
    let mut unary = get.answer(None, None).unwrap();
    let mut out = Vec::new();
    unary.push(b"\0\0\0\0\0", &mut out).unwrap();
    assert!(out.is_empty(), "it may still become an error");
}

#[test]
fn what_is_read_merges_as_protobuf_says() {
    let transcoder = shop("");
    let call = transcoder.find("POST", "/echo").unwrap();
    let read = |bytes: &[u8]| answer(&call, &[bytes.to_vec()]).map_err(|wrong| wrong.to_string());
    let inner = |bytes: &[u8], number| {
        let mut out = Vec::new();
        put_bytes(number, bytes, &mut out);
        out
    };
    // The last scalar counts, messages merge, and lists go on, packed or not.
    assert_eq!(read(&[0x18, 1, 0x18, 2]).unwrap(), r#"{"i32":2}"#);
    assert_eq!(read(&[0x18, 1, 0x18, 0]).unwrap(), "{}");
    let merged = [inner(&[0x0a, 1, b'a'], 17), inner(&[0x10, 5], 17)].concat();
    assert_eq!(read(&merged).unwrap(), r#"{"inner":{"text":"a","number":5}}"#);
    let ints = [inner(&[1, 2], 18), vec![0x90, 1, 3], inner(&[], 18), inner(&[4], 18)].concat();
    assert_eq!(read(&ints).unwrap(), r#"{"ints":[1,2,3,4]}"#);
    assert_eq!(read(&inner(&[1, 2], 50)).unwrap(), r#"{"unpacked":[1,2]}"#);
    // The last member of a oneof counts, and forgets what it was before another was set.
    let choice = [inner(&[0x10, 5], 26), inner(b"x", 25), inner(&[0x0a, 1, b'a'], 26)].concat();
    assert_eq!(read(&choice).unwrap(), r#"{"other":{"text":"a"}}"#);
    // Entries of maps may lack a key or value; the last of a key counts.
    let entries = [inner(&[0x10, 1], 22), inner(&[0x0a, 1, b'k'], 22), inner(&[0x0a, 1, b'k', 0x10, 2], 22)].concat();
    assert_eq!(read(&entries).unwrap(), r#"{"counts":{"":1,"k":2}}"#);
    assert_eq!(read(&inner(&[], 23)).unwrap(), r#"{"byNumber":{"0":{}}}"#);
    // What the message does not have is passed over, and what has another type.
    assert_eq!(read(&[0xf8, 0x7f, 1, 0x1d, 1, 2, 3, 4, 0x18, 7]).unwrap(), r#"{"i32":7}"#);
    // Numbers of 32 bits are cut, as everywhere.
    assert_eq!(read(&[0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).unwrap(), r#"{"i32":-1}"#);
    assert_eq!(read(&[0x18, 255, 255, 255, 255, 31]).unwrap(), r#"{"i32":-1}"#);
}

#[test]
fn hostile_answers_are_refused() {
    let transcoder = shop("");
    let call = transcoder.find("POST", "/echo").unwrap();
    let field = |number, bytes: &[u8]| {
        let mut out = Vec::new();
        put_bytes(number, bytes, &mut out);
        out
    };
    let refused = |bytes: Vec<u8>| assert!(answer(&call, std::slice::from_ref(&bytes)).is_err(), "{bytes:?}");
    refused(vec![0xff]);
    refused(vec![0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]);
    refused(vec![0x72, 5, b'x']);
    refused(vec![0x72, 255, 255, 255, 255, 255, 255, 255, 255, 127]);
    refused(vec![0x72, 1, 0xff]);
    refused(field(18, &[0x80]));
    refused(field(47, &[0; 7]));
    refused(field(22, &[0x0a, 1, 0xff]));
    refused(field(28, &field(1, b"x/no.Such")));
    refused(field(28, &field(2, b"value alone")));
    refused(field(29, &[8, 255, 255, 255, 255, 255, 255, 255, 255, 127]));
    refused(field(31, &field(1, b"a__b")));
    refused(field(33, &[0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f]));
    // Messages in messages, also through Any and Value, whose depths count together.
    let nest = |levels: usize, inner: &dyn Fn(&[u8]) -> Vec<u8>| (0..levels).fold(Vec::new(), |bytes, _| inner(&bytes));
    let deep = |levels| field(17, &nest(levels, &|bytes| field(3, bytes)));
    assert!(answer(&call, &[deep(100)]).is_ok());
    refused(deep(10_000));
    refused(field(33, &nest(10_000, &|bytes| field(6, &field(1, bytes)))));
    refused(field(33, &nest(10_000, &|bytes| field(5, &field(1, &[field(1, b"k"), field(2, bytes)].concat())))));
    let any = |bytes: &[u8]| [field(1, b"x/google.protobuf.Any"), field(2, bytes)].concat();
    assert!(answer(&call, &[field(28, &nest(50, &any))]).is_ok());
    refused(field(28, &nest(10_000, &any)));
    // What claims 4 GiB is refused at its head.
    let mut unary = call.answer(None, None).unwrap();
    assert_eq!(unary.push(&[0, 255, 255, 255, 255], &mut Vec::new()).unwrap_err().at, 0);
}

#[test]
fn what_grows_is_bounded() {
    // Each element is two bytes, and all fields with their defaults in JSON.
    let config = config("print_defaults = true\nmax_message = '1000B'");
    let call = Transcoder::new(&config, &compile(SHOP)).unwrap().find("GET", "/v1/shelves").unwrap();
    assert!(answer(&call, &[[0x0a, 0].repeat(100)]).is_ok());
    assert_eq!(answer(&call, &[[0x0a, 0].repeat(500)]).unwrap_err().what, "a message is too long as JSON");
}

#[test]
fn deep_json_is_refused() {
    let transcoder = shop("");
    let deep = |levels: usize| "{\"inner\":".repeat(levels) + "{}" + &"}".repeat(levels);
    assert!(echo(&transcoder, &deep(100)).is_ok());
    assert!(echo(&transcoder, &deep(DEPTH)).is_err());
    assert!(echo(&transcoder, &deep(100_000)).is_err());
    assert!(echo(&transcoder, &format!("{{\"value\":{}", "[".repeat(100_000))).is_err());
    let any = |levels: usize| {
        let open = "{\"@type\":\"x/google.protobuf.Any\",\"value\":".repeat(levels);
        format!("{{\"any\":{open}{{}}{}", "}".repeat(levels + 1))
    };
    assert!(echo(&transcoder, &any(50)).is_ok());
    assert!(echo(&transcoder, &any(100_000)).is_err());
}

#[test]
fn streams_have_three_forms() {
    let call = shop("stream = 'sse'").find("GET", "/v1/watch").unwrap();
    let messages = b"\0\0\0\0\x03\x0a\x01a\0\0\0\0\0";
    let of = |accept: Option<&str>, fail: bool| {
        let mut answer = call.answer(accept, None).unwrap();
        let mut out = Vec::new();
        answer.push(messages, &mut out).unwrap();
        if fail {
            answer.fail(&Status::new(5, "gone\n"), &mut out);
        }
        answer.end(&mut out).unwrap();
        (answer.content_type(), String::from_utf8(out).unwrap())
    };
    let error = r#"{"error":{"status":404,"code":"NOT_FOUND","detail":"gone\n"}}"#;
    let sse = "data: {\"name\":\"a\"}\n\ndata: {}\n\n";
    assert_eq!(of(None, false), ("text/event-stream", sse.to_owned()));
    assert_eq!(of(Some("*/*"), true), ("text/event-stream", format!("{sse}event: error\ndata: {error}\n\n")));
    let ndjson = "{\"name\":\"a\"}\n{}\n";
    assert_eq!(
        of(Some("text/event-stream;q=0.5, application/x-ndjson"), false),
        ("application/x-ndjson", ndjson.to_owned())
    );
    assert_eq!(of(Some("application/x-ndjson"), true).1, format!("{ndjson}{error}\n"));
    assert_eq!(of(Some("application/json"), false), ("application/json", r#"[{"name":"a"},{}]"#.to_owned()));
    assert_eq!(of(Some("application/json"), true).1, format!(r#"[{{"name":"a"}},{{}},{error}]"#));
    let mut empty = call.answer(Some("application/json"), None).unwrap();
    assert_eq!(run(&mut empty, b"", 1).unwrap(), "[]");
    let mut broken = call.answer(Some("application/json"), None).unwrap();
    let mut out = Vec::new();
    assert!(broken.push(b"\0\0\0\0\x01\xff", &mut out).is_err());
    broken.fail(&Status::new(13, ""), &mut out);
    broken.end(&mut out).unwrap();
    assert_eq!(out, br#"[{"error":{"status":500,"code":"INTERNAL"}}]"#);
}

#[test]
fn timeouts_are_written() {
    for (time, text) in [
        (Duration::ZERO, "0n"),
        (Duration::from_nanos(99_999_999), "99999999n"),
        (Duration::from_millis(100), "100000u"),
        (Duration::from_secs(10), "10000000u"),
        (Duration::from_secs(100_000_000), "1666666M"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(timeout(time), text);
    }
}

fn number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?(e-?[0-9]{1,2})?"
}

proptest! {
    #[test]
    fn what_comes_out_does_not_depend_on_the_cut(
        names in proptest::collection::vec("[a-z]{0,9}", 0..6), size in 1..9usize, cut in 0..40usize, form in 0..3usize
    ) {
        thread_local!(static CALL: Call = shop("").find("GET", "/v1/watch").unwrap());
        let mut frames = Vec::new();
        for name in &names {
            let mut message = Vec::new();
            put_bytes(1, name.as_bytes(), &mut message);
            frame::put_frame(0, &message, &mut frames).unwrap();
        }
        frames.truncate(frames.len().saturating_sub(cut / 10));
        let accept = ["application/json", "text/event-stream", "application/x-ndjson"][form];
        let (whole, cut) = CALL.with(|call| {
            let of = |size| run(&mut call.answer(Some(accept), None).unwrap(), &frames, size);
            (of(usize::MAX), of(size))
        });
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn integers_are_exact(digits in number()) {
        thread_local!(static SHOP: Transcoder = shop(""));
        let read = SHOP.with(|shop| echo(shop, &format!("{{\"wI64\":{digits}}}")));
        // By hand: the digits without their point, moved by the exponent.
        let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut value = format!("{whole}{fraction}").replace('-', "");
        let mut shift = exponent.parse::<i32>().unwrap() - fraction.len() as i32;
        while shift > 0 && !value.trim_start_matches('0').is_empty() { value.push('0'); shift -= 1; }
        while shift < 0 && value.ends_with('0') { value.pop(); shift += 1; }
        let zero = value.trim_start_matches('0').is_empty();
        let sign = if digits.starts_with('-') { "-" } else { "" };
        let number = format!("{sign}{}", value.trim_start_matches('0')).parse::<i64>().ok();
        let expected = if zero { Some(0) } else { number.filter(|_| shift >= 0) };
        prop_assert_eq!(read.ok(), expected.map(|n| format!("{{\"wI64\":\"{n}\"}}")));
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes: Vec<u8>) {
        thread_local!(static SHOP: Transcoder = shop(""));
        SHOP.with(|shop| {
            let call = shop.find("POST", "/echo").unwrap();
            if let Ok(json) = answer(&call, &[bytes]) {
                // What was written is JSON, and goes in and out again.
                assert_eq!(echo(shop, &json).unwrap(), json);
            }
        });
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        of in 0..SAME.len(), with in 0..SAME.len(), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4)
    ) {
        thread_local!(static SHOP: Transcoder = shop(""));
        SHOP.with(|shop| {
            let call = shop.find("POST", "/echo").unwrap();
            let mut bytes = message(&call, None, SAME[of].0).unwrap();
            bytes.extend(message(&call, None, SAME[with].0).unwrap());
            for (at, byte) in damage {
                let length = bytes.len().max(1);
                if let Some(place) = bytes.get_mut(usize::from(at) % length) {
                    *place = byte;
                }
            }
            if let Ok(json) = answer(&call, &[bytes]) {
                assert_eq!(echo(shop, &json).unwrap(), json);
            }
        });
    }

    #[test]
    fn damaged_json_is_read_or_refused(of in 0..SAME.len(), damage in proptest::collection::vec((any::<u16>(), "[\\[\\]{},:\"0-9a-z\\\\-]"), 1..4)) {
        thread_local!(static SHOP: Transcoder = shop(""));
        let mut json = SAME[of].0.to_owned();
        for (at, text) in damage {
            let at = (usize::from(at) % json.len()..).find(|at| json.is_char_boundary(*at)).unwrap();
            let to = (at + 1..).find(|at| *at >= json.len() || json.is_char_boundary(*at)).unwrap().min(json.len());
            json.replace_range(at..to, &text);
        }
        SHOP.with(|shop| {
            if let Ok(read) = echo(shop, &json) {
                assert_eq!(echo(shop, &read).unwrap(), read);
            }
        });
    }
}

/// Values whose tags are long are written as they have to be.
#[test]
fn large_numbers_of_fields() {
    let mut out = Vec::new();
    put_tag(72_295_728, wire::BYTES, &mut out);
    put_varint(0, &mut out);
    assert_eq!(out, [130, 211, 228, 147, 2, 0]);
}
