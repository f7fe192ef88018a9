use proptest::prelude::*;

use super::read::{Document, Kind};
use super::*;
use crate::body::DEPTH;

fn config(toml: &str) -> Xml {
    toml::from_str::<XmlConfig>(toml).unwrap().compile().unwrap()
}

fn json(toml: &str, xml: &str) -> Result<String, Malformed> {
    config(toml).to_json(xml.as_bytes(), None).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn xml(toml: &str, json: &str) -> Result<String, Malformed> {
    let bytes = config(toml).from_json(json.as_bytes(), 1 << 20)?;
    let text = String::from_utf8(bytes).unwrap();
    Ok(text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap().to_owned())
}

/// One is the other's counterpart, both ways.
#[track_caller]
fn pair(toml: &str, document: &str, value: &str) {
    assert_eq!(json(toml, document).as_deref(), Ok(value));
    assert_eq!(xml(toml, value).as_deref(), Ok(document));
}

#[track_caller]
fn refused(document: &str, what: &str) {
    let wrong = json("", document).expect_err(document);
    assert!(wrong.what.contains(what), "{document}: {wrong}");
    assert!(wrong.at as usize <= document.len());
}

#[track_caller]
fn unwritable(toml: &str, value: &str, what: &str) {
    let wrong = xml(toml, value).expect_err(value);
    assert!(wrong.what.contains(what), "{value}: {wrong}");
}

#[test]
fn what_is_which() {
    for (document, value) in [
        ("<a/>", r#"{"a":null}"#),
        ("<a>x</a>", r#"{"a":"x"}"#),
        ("<a> </a>", r#"{"a":" "}"#),
        (r#"<a id="1"/>"#, r#"{"a":{"@id":"1"}}"#),
        (r#"<a id="1">x</a>"#, r##"{"a":{"@id":"1","#text":"x"}}"##),
        ("<a><b>1</b><c/></a>", r#"{"a":{"b":"1","c":null}}"#),
        ("<a><b>1</b><b>2</b></a>", r#"{"a":{"b":["1","2"]}}"#),
        ("<a>Dear <b>you</b>!</a>", r##"{"a":{"#content":["Dear ",{"b":"you"},"!"]}}"##),
        ("<a>&#32;<b/></a>", r##"{"a":{"#content":[" ",{"b":null}]}}"##),
        (
            r#"<s:a xmlns:s="urn:s" xmlns="urn:d" s:b="1"><c xml:lang="en"/></s:a>"#,
            r#"{"s:a":{"@xmlns:s":"urn:s","@xmlns":"urn:d","@s:b":"1","c":{"@xml:lang":"en"}}}"#,
        ),
        ("<é.1-ü/>", r#"{"é.1-ü":null}"#),
        (
            r#"<a b="&lt;&amp;&gt;&quot;'&#10;&#9;&#13; ">&lt;&amp;&gt;"'&#13;
	]]&gt;</a>"#,
            r##"{"a":{"@b":"<&>\"'\n\t\r ","#text":"<&>\"'\r\n\t]]>"}}"##,
        ),
    ] {
        pair("", document, value);
    }
}

#[test]
fn order_is_kept_where_it_is_asked_for() {
    let interleaved = "<a><b/><c/><b/></a>";
    assert_eq!(json("", interleaved).unwrap(), r#"{"a":{"b":[null,null],"c":null}}"#);
    pair("ordered = true", interleaved, r##"{"a":{"#content":[{"b":null},{"c":null},{"b":null}]}}"##);
    pair("ordered = true", "<a><b/><b/><c/></a>", r#"{"a":{"b":[null,null],"c":null}}"#);
    assert_eq!(
        json("ordered = true", "<a>\n <b/>\n <c/>\n <b/>\n</a>").unwrap(),
        r##"{"a":{"#content":[{"b":null},{"c":null},{"b":null}]}}"##
    );
}

#[test]
fn arrays_numbers_and_booleans_are_named_by_path() {
    pair(r#"arrays = ["a.b"]"#, "<a><b>1</b></a>", r#"{"a":{"b":["1"]}}"#);
    pair(r#"arrays = ["a.*.c"]"#, "<a><b><c/></b></a>", r#"{"a":{"b":{"c":[null]}}}"#);
    pair(r#"arrays = ["**.c"]"#, "<a><b><c/></b></a>", r#"{"a":{"b":{"c":[null]}}}"#);
    pair(r#"arrays = ["a.c"]"#, "<a><b><c/></b></a>", r#"{"a":{"b":{"c":null}}}"#);
    pair(r#"arrays = ["a.*"]"#, r#"<a x="1"><b/></a>"#, r#"{"a":{"@x":"1","b":[null]}}"#);
    pair(r#"numbers = ["a.b"]"#, "<a><b>1.0</b><b>1e400</b><b>01</b></a>", r#"{"a":{"b":[1.0,1e400,"01"]}}"#);
    pair(r#"numbers = ["a.@b"]"#, r#"<a b="-0">1</a>"#, r##"{"a":{"@b":-0,"#text":"1"}}"##);
    pair(r#"numbers = ["a"]"#, r#"<a b="1">2</a>"#, r##"{"a":{"@b":"1","#text":2}}"##);
    pair(r#"booleans = ["**.b"]"#, "<a><b>true</b><b>1</b></a>", r#"{"a":{"b":[true,"1"]}}"#);
    assert_eq!(xml("", r#"{"a":{"b":1.50,"c":true,"d":[],"e":""}}"#).unwrap(), "<a><b>1.50</b><c>true</c><e/></a>");
}

#[test]
fn prefixes_are_dropped_where_it_is_asked_for() {
    let drop = r#"namespaces = "drop""#;
    let document = r#"<s:a xmlns:s="urn:s" xmlns="urn:d" s:id="1"><b/><s:b/></s:a>"#;
    assert_eq!(json(drop, document).unwrap(), r#"{"a":{"@id":"1","b":[null,null]}}"#);
    let declares = json(drop, "<a xmlns:s='urn:s' s:xmlns='urn:d'/>").unwrap_err();
    assert!(declares.what.contains("a declaration without its prefix"));
    let both = r#"<a xmlns:s="urn:s" s:id="1" id="2"/>"#;
    assert!(json("", both).is_ok());
    assert!(json(drop, both).unwrap_err().what.contains("`id` comes twice without its prefix"));
}

#[test]
fn the_root_may_be_left_out() {
    pair(r#"root = "a""#, "<a><b/><c/></a>", r#"{"b":null,"c":null}"#);
    pair(r#"root = "a""#, "<a>x</a>", r#""x""#);
    pair(r#"root = "a""#, "<a/>", "null");
    pair("root = 'a'\nitem = 'b'", "<a><b>1</b><b/></a>", r#"["1",null]"#);
    pair("root = 'a'\nitem = 'b'", "<a/>", "[]");
    pair("root = 'a'\nitem = 'b'\nnumbers = ['a.b']", "<a><b>1</b></a>", "[1]");
    for wrong in ["<a><b/><c/></a>", "<a>x<b/></a>", r#"<a x="1"/>"#, "<b/>"] {
        assert!(json("root = 'a'\nitem = 'b'", wrong).is_err(), "{wrong}");
    }
    assert_eq!(json("root = 'a'", "<b/>").unwrap_err().what, "the root element is `b`, where `a` is expected");
    unwritable("root = 'a'\nitem = 'b'", "{}", "an array is expected");
    unwritable("root = 'a'", "[]", "an array in an array");
}

#[test]
fn what_is_no_information_is_dropped() {
    let document = "<?xml version='1.0' encoding='utf-8' standalone=\"yes\" ?>\r\n<!-- <a> --><?p i?>\
                    <a >\r\n <b  x = '1\r\n2'\t/>\n<?p?><c><!---->1<![CDATA[<2>&amp;]]>3<!-- -->&#x34;</c\n></a><!-- --> <?q?>\n";
    assert_eq!(json("", document).unwrap(), r#"{"a":{"b":{"@x":"1 2"},"c":"1<2>&amp;34"}}"#);
    assert_eq!(json("", "<a>x\r\ny\rz</a>").unwrap(), r#"{"a":"x\ny\nz"}"#);
    assert_eq!(json("", "<a><![CDATA[]]></a>").unwrap(), r#"{"a":null}"#);
    assert_eq!(json("", "<a> <![CDATA[]]><b/></a>").unwrap(), r#"{"a":{"b":null}}"#);
    assert_eq!(json("", "<a><![CDATA[ ]]><b/></a>").unwrap(), r##"{"a":{"#content":[" ",{"b":null}]}}"##);
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for (document, what) in [
        ("", "has no element"),
        (" ", "has no element"),
        ("<!-- x -->", "has no element"),
        ("x<a/>", "text outside of the root"),
        ("<a/>x", "text outside of the root"),
        ("<a/>&#32;", "text outside of the root"),
        ("<![CDATA[]]><a/>", "text outside of the root"),
        ("<a/><b/>", "second root"),
        ("<a>", "ends within the element `a`"),
        ("<a><b></b>", "ends within the element `a`"),
        ("<a", "not well-formed"),
        ("<a ", "not well-formed"),
        ("<", "not a tag"),
        ("</a>", "closes nothing"),
        ("<a></a", "closes nothing"),
        ("<a></a x='1'>", "closes nothing"),
        ("<a><b></a></b>", "end tag of `b` is expected"),
        ("<a></A>", "end tag of `a` is expected"),
        ("< a/>", "not a tag"),
        ("<1/>", "not a tag"),
        ("<a:/>", "not a tag"),
        ("<:a/>", "not a tag"),
        ("<a:b:c/>", "not a tag"),
        ("<a/ >", "not well-formed"),
        ("<a b/>", "no value"),
        ("<a b=1/>", "must be quoted"),
        ("<a b='/>", "has no end"),
        ("<a b='<'/>", "`<` is not allowed"),
        ("<a b='1'c='2'/>", "not well-formed"),
        ("<a b='1' b='2'/>", "`b` comes twice"),
        ("<a 1='1'/>", "not well-formed"),
        ("<a>]]></a>", "`]]>` is not allowed"),
        ("<a>&</a>", "not a reference"),
        ("<a>& ;</a>", "not a reference"),
        ("<a>&x;</a>", "not a reference"),
        ("<a>&AMP;</a>", "not a reference"),
        ("<a>&#0;</a>", "not a reference"),
        ("<a>&#1;</a>", "not a reference"),
        ("<a>&#xD800;</a>", "not a reference"),
        ("<a>&#xFFFE;</a>", "not a reference"),
        ("<a>&#x110000;</a>", "not a reference"),
        ("<a>&#99999999999;</a>", "not a reference"),
        ("<a>&#+65;</a>", "not a reference"),
        ("<a>&#X41;</a>", "not a reference"),
        ("<a>&#;</a>", "not a reference"),
        ("<a b='&x;'/>", "not a reference"),
        ("<a>\u{1}</a>", "does not allow this character"),
        ("<a>\u{FFFF}</a>", "does not allow this character"),
        ("<a><!-- -- --></a>", "not allowed in a comment"),
        ("<a><!-- ---></a>", "not allowed in a comment"),
        ("<a><!-- ", "comment has no end"),
        ("<a><![CDATA[ ]]", "CDATA section has no end"),
        ("<a><?p ", "instruction has no end"),
        ("<a><? p?></a>", "instruction cannot be here"),
        ("<a><?xml version='1.0'?></a>", "instruction cannot be here"),
        (" <?xml version='1.0'?><a/>", "instruction cannot be here"),
        ("<?XML version='1.0'?><a/>", "instruction cannot be here"),
        ("<?xml?><a/>", "instruction cannot be here"),
        ("<?xml ?><a/>", "declaration is not"),
        ("<?xml encoding='utf-8'?><a/>", "declaration is not"),
        ("<?xml version='1.0'encoding='utf-8'?><a/>", "declaration is not"),
        ("<?xml version='1.0' standalone='yes' encoding='utf-8'?><a/>", "declaration is not"),
        ("<?xml version='1.0' standalone='maybe'?><a/>", "declaration is not"),
        ("<?xml version='1.0' x='1'?><a/>", "declaration is not"),
        ("<?xml version='1.1'?><a/>", "only XML 1.0"),
        ("<!ELEMENT a ANY><a/>", "not a tag"),
        ("<a>\u{FEFF}</A>", "end tag"),
    ] {
        refused(document, what);
    }
}

#[test]
fn prefixes_must_be_declared() {
    for (document, what) in [
        ("<x:a/>", "`x` is not declared"),
        ("<a x:b='1'/>", "`x` is not declared"),
        ("<a><b xmlns:x='urn:x'/><x:c/></a>", "`x` is not declared"),
        ("<a xmlns:x=''/>", "no empty namespace"),
        ("<a xmlns:xml='urn:x'/>", "has another namespace"),
        ("<a xmlns:xmlns='urn:x'/>", "cannot be declared"),
        ("<xmlns:a/>", "`xmlns` is not declared"),
        ("<a xmlns='http://www.w3.org/2000/xmlns/'/>", "no other prefix"),
        ("<a xmlns:x='http://www.w3.org/XML/1998/namespace'/>", "no other prefix"),
        ("<a xmlns:x='urn:x' xmlns:y='urn:&#120;' x:b='' y:b=''/>", "by another prefix"),
        ("<a xmlns:x:y='urn:x'/>", "not well-formed"),
    ] {
        refused(document, what);
    }
    let shadowed = "<x:a xmlns:x='urn:x'><x:b xmlns:x='urn:y'/><x:c b='' x:b=''/></x:a>";
    assert!(json("", shadowed).is_ok());
    assert!(json("", "<a xmlns='urn:a'><b xmlns='' xml:space='preserve'/></a>").is_ok());
}

#[test]
fn document_types_are_refused() {
    let laughs = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol1 \"&lol;&lol;&lol;\">]>\
                  <lolz>&lol1;</lolz>";
    refused(laughs, "a document type is refused");
    refused("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>", "a document type is refused");
    refused("<!DOCTYPE a SYSTEM \"http://127.0.0.1/\"><a/>", "a document type is refused");
    refused("<!DOCTYPE html><html/>", "a document type is refused");
    refused("<a/><!DOCTYPE a>", "a document type is refused");
    refused("<a><!DOCTYPE a></a>", "a document type is refused");
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let deepest = json("", &nested(DEPTH)).unwrap();
    assert_eq!(json("", &xml("", &deepest).unwrap()).unwrap(), deepest);
    refused(&nested(DEPTH + 1), "deeper than");
    refused(&nested(100_000), "deeper than");
    refused(&"<a>".repeat(100_000), "deeper than");
    // An element and text beside it are two levels more.
    let mixed = |depth: usize| format!("{}{}", "<a>x".repeat(depth), "</a>".repeat(depth));
    assert!(json("", &mixed(DEPTH / 3)).is_ok());
    refused(&mixed(DEPTH / 2), "the JSON of this document is deeper than");
    unwritable("", &format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000)), "deeper than");
}

#[test]
fn what_is_large_is_read_in_linear_time() {
    const MANY: usize = 200_000;
    let attributes: String = (0..MANY).map(|n| format!(" a{n}=''")).collect();
    assert!(json("", &format!("<a{attributes}/>")).is_ok());
    let prefixes: String = (0..MANY).map(|n| format!(" xmlns:a{n}='urn:{n}'")).collect();
    assert!(json("", &format!("<a{prefixes}>{}</a>", "<a0:b/>".repeat(MANY))).is_ok());
    let names: String = (0..MANY).map(|n| format!("<a{n}/>")).collect();
    assert!(json("", &format!("<a>{names}{names}</a>")).is_ok());
    refused(&format!("<a>{}", "&lt;".repeat(MANY)), "ends within");
    refused(&format!("<a>{}", "&".repeat(MANY)), "not a reference");
    refused(&format!("<a>{}</a>", "<![CDATA[".repeat(MANY)), "CDATA section has no end");
    assert!(json("", &format!("<a>{}<b/></a>", "<![CDATA[x]]>".repeat(MANY))).is_ok());
    let members: Vec<String> = (0..MANY).map(|n| format!("\"a{n}\":1")).collect();
    assert!(config("").from_json(format!("{{\"a\":{{{}}}}}", members.join(",")).as_bytes(), usize::MAX).is_ok());
}

#[test]
fn a_document_is_no_larger_than_the_limit() {
    let name = "n".repeat(1000);
    let value = format!("{{\"a\":{{\"{name}\":[{}1]}}}}", "1,".repeat(1000));
    let limit = |limit| config("").from_json(value.as_bytes(), limit);
    let size = limit(usize::MAX).unwrap().len();
    assert!(size > 2_000_000);
    assert!(limit(size).is_ok());
    let wrong = limit(size - 1).unwrap_err();
    assert!(wrong.what.starts_with("/a: the XML is larger than"), "{wrong}");
    assert!(limit(100_000).unwrap_err().what.contains("n…/49"));
}

#[test]
fn what_xml_cannot_say_is_refused() {
    for (value, what) in [
        ("{}", "one member, the root element"),
        ("[]", "one member, the root element"),
        ("\"x\"", "one member, the root element"),
        (r#"{"a":1,"b":2}"#, "one member, the root element"),
        (r#"{"a":[1]}"#, "/a: an array in an array"),
        (r#"{"a":{"b":[1,[2]]}}"#, "/a/b/1: an array in an array"),
        (r#"{"a":{"b c":1}}"#, "/a/b c: `b c` is not a name"),
        (r#"{"":1}"#, "/: `` is not a name"),
        (r#"{"a":{"x/y":1}}"#, "/a/x~1y: `x/y` is not a name"),
        (r#"{"a><b":1}"#, "is not a name"),
        (r##"{"a":{"#other":1}}"##, "`#other` is not a name"),
        (r#"{"a":{"@":1}}"#, "/a/@: `` is not a name"),
        (r#"{"a":{"@b":null}}"#, "/a/@b: an attribute has a value"),
        (r#"{"a":{"@b":{}}}"#, "/a/@b: a text, a number"),
        (r#"{"a":{"@b":"\u0000"}}"#, "/a/@b: XML does not allow"),
        (r#"{"a":"\u0001"}"#, "/a: XML does not allow"),
        (r#"{"a":"\ufffe"}"#, "/a: XML does not allow"),
        (r##"{"a":{"#text":[]}}"##, "/a/#text: a text, a number"),
        (r##"{"a":{"#content":1}}"##, "/a/#content: an array is expected"),
        (r##"{"a":{"#content":[],"b":1}}"##, "/a/#content: `#content` is all"),
        (r##"{"a":{"#content":[{}]}}"##, "/a/#content/0: an object with one member"),
        (r##"{"a":{"#content":[{"b":1,"c":1}]}}"##, "/a/#content/0: an object with one member"),
        (r##"{"a":{"#content":[{"b":[1]}]}}"##, "/a/#content/0/b: an array in an array"),
        (r##"{"a":{"#content":[{"@b":1}]}}"##, "`@b` is not a name"),
        (r##"{"a":{"#content":[[]]}}"##, "/a/#content/0: a text, a number"),
        (r#"{"a":{"x:b":1}}"#, "/a/x:b: the prefix `x` is not declared"),
        (r#"{"a":{"@x:b":1}}"#, "/a/@x:b: the prefix `x` is not declared"),
        (r#"{"a":{"@xmlns:xml":"x"}}"#, "/a/@xmlns:xml: the prefix `xml` has another"),
        (r#"{"a":1,"a":2}"#, "`a` twice"),
        (r#"{"a":1"#, "ends too early"),
    ] {
        unwritable("", value, what);
    }
    assert_eq!(xml("", r##"{"a":{"b":1,"#text":" ","@c":2}}"##).unwrap(), r#"<a c="2"><b>1</b>&#32;</a>"#);
}

#[test]
fn encodings_are_told_by_mark_charset_or_declaration() {
    let xml = config("");
    let read = |bytes: &[u8], charset| xml.to_json(bytes, charset).map(|bytes| String::from_utf8(bytes).unwrap());
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let (little, big) = (u16::to_le_bytes, u16::to_be_bytes);
    let é = Ok(r#"{"a":"é😀"}"#.to_owned());
    assert_eq!(read("<a>é😀</a>".as_bytes(), None), é);
    assert_eq!(read("\u{FEFF}<a>é😀</a>".as_bytes(), Some("iso-8859-1")), é);
    for unit in [little, big] {
        assert_eq!(read(&utf16("\u{FEFF}<a>é😀</a>", unit), None), é);
        assert_eq!(read(&utf16("<?xml version='1.0' encoding='UTF-16'?><a>é😀</a>", unit), None), é);
        assert_eq!(read(&utf16("<a>é😀</a>", unit), Some("utf-16")), é);
    }
    assert_eq!(read(&utf16("<a>é😀</a>", little), Some("UTF-16LE")), é);
    let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>";
    assert_eq!(read(latin, None).as_deref(), Ok(r#"{"a":"é"}"#));
    assert_eq!(read(&latin[43..], Some("latin1")).as_deref(), Ok(r#"{"a":"é"}"#));
    assert!(read(latin, Some("utf-8")).unwrap_err().what.contains("not UTF-8"));
    assert!(read(b"<a>\xe9</a>", None).unwrap_err().what.contains("not UTF-8"));
    assert!(read(b"<a>\xe9</a>", Some("us-ascii")).unwrap_err().what.contains("not US-ASCII"));
    assert!(read(b"\xff\xfe<\0a\0/\0>\0\0", None).unwrap_err().what.contains("not UTF-16"));
    assert!(read(b"\xff\xfe<\0\0\xd8", None).unwrap_err().what.contains("not UTF-16"));
    let other = b"<?xml version='1.0' encoding='Shift_JIS'?><a/>";
    assert!(read(other, None).unwrap_err().what.contains("the encoding `shift_jis` is not read"));
}

#[test]
fn mistakes_of_the_configuration_have_their_key() {
    let mistakes = |toml: &str| toml::from_str::<XmlConfig>(toml).unwrap().compile().unwrap_err();
    for (toml, key, what) in [
        ("root = 'a b'", "root", "not a name"),
        ("item = 'b'", "item", "needs a `root`"),
        ("root = 'a'\nitem = '@b'", "item", "not a name"),
        ("root = 'x:a'\nnamespaces = 'drop'", "root", "never met"),
        ("arrays = ['a']", "arrays[0]", "never an array"),
        ("arrays = ['a.b', 'a..b']", "arrays[1]", "names that XML allows"),
        ("arrays = ['a.@b']", "arrays[0]", "holds no elements"),
        ("numbers = ['a.@b.c']", "numbers[0]", "holds no elements"),
        ("numbers = ['a.**.c']", "numbers[0]", "in front"),
        ("numbers = ['']", "numbers[0]", "names that XML allows"),
        ("numbers = ['x:a']\nnamespaces = 'drop'", "numbers[0]", "never met"),
        ("numbers = ['a']\nbooleans = ['a']", "booleans[0]", "among the numbers"),
    ] {
        let found = mistakes(toml);
        assert!(found.len() == 1 && found[0].key == key && found[0].message.contains(what), "{toml}: {found:?}");
    }
    assert_eq!(mistakes("root = '1'\nitem = '1'\narrays = ['a', 'b']").len(), 4);
    assert!(toml::from_str::<XmlConfig>("array = ['a.b']").is_err());
    assert!(toml::from_str::<XmlConfig>("namespaces = 'strip'").is_err());
}

/// What a document says.
#[derive(Debug, Clone, PartialEq)]
enum Info {
    Text(String),
    Element(String, Vec<(String, String)>, Vec<Info>),
}

fn info(document: &Document<'_>, element: u32) -> Info {
    let (mut attributes, mut inner) = (Vec::new(), Vec::new());
    for node in document.inner(element) {
        let value = || document.value(node).into_owned();
        match document.kind(node) {
            Kind::Attribute => attributes.push((document.name(node).to_owned(), value())),
            Kind::Element => inner.push((info(document, node), false)),
            _ => inner.push((Info::Text(value()), document.is_layout(node))),
        }
    }
    let has_elements = inner.iter().any(|(info, _)| matches!(info, Info::Element(..)));
    let has_text = inner.iter().any(|(info, layout)| matches!(info, Info::Text(_)) && !layout);
    if has_elements && !has_text {
        inner.retain(|(info, _)| matches!(info, Info::Element(..)));
    }
    let mut merged: Vec<Info> = Vec::new();
    for (info, _) in inner {
        match (merged.last_mut(), info) {
            (_, Info::Text(text)) if text.is_empty() => {}
            (Some(Info::Text(before)), Info::Text(text)) => before.push_str(&text),
            (_, info) => merged.push(info),
        }
    }
    Info::Element(document.name(element).to_owned(), attributes, merged)
}

/// Brings elements of one name together.
fn grouped(info: Info) -> Info {
    let Info::Element(name, attributes, mut inner) = info else { return info };
    inner = inner.into_iter().map(grouped).collect();
    if inner.iter().all(|info| matches!(info, Info::Element(..))) {
        let name = |info: &Info| match info {
            Info::Element(name, ..) => name.clone(),
            Info::Text(_) => String::new(),
        };
        let names: Vec<String> = inner.iter().map(name).collect();
        inner.sort_by_key(|info| names.iter().position(|other| *other == name(info)));
    }
    Info::Element(name, attributes, inner)
}

fn whole(xml: &[u8]) -> Info {
    info(&Document::read(&read::text(xml, None).unwrap()).unwrap(), 0)
}

/// A text, and one of the ways to write it.
fn text_in(quote: bool) -> impl Strategy<Value = (String, String)> {
    let piece = (any::<char>(), 0..4u8).prop_map(move |(c, how)| {
        let c = if names::is_character(c) { c } else { '&' };
        let written = match (c, how) {
            (c, 0) => format!("&#{};", u32::from(c)),
            (c, 1) => format!("&#x{:04X};", u32::from(c)),
            ('\r', _) => "&#13;".into(),
            ('\n' | '\t', _) if quote => format!("&#{};", u32::from(c)),
            ('<', _) => "&lt;".into(),
            ('&', _) => "&amp;".into(),
            ('"', _) => "&quot;".into(),
            ('>', _) => "&gt;".into(),
            (c, 2) if !quote && c != ']' => format!("<![CDATA[{c}]]>"),
            (c, _) => c.to_string(),
        };
        (c.to_string(), written)
    });
    let space = prop::sample::select(vec![" ", "\n", "\t"]).prop_map(move |space| {
        let written = if quote { format!("&#{};", space.as_bytes()[0]) } else { space.to_owned() };
        (space.to_owned(), written)
    });
    let pieces = prop::collection::vec(prop_oneof![piece, space], 0..4);
    pieces.prop_map(|pieces| pieces.into_iter().unzip())
}

fn attributes() -> impl Strategy<Value = Vec<(String, (String, String))>> {
    prop::collection::btree_map("[a-cé_][a-c1.-]{0,2}", text_in(true), 0..3).prop_map(|map| map.into_iter().collect())
}

fn begin(name: &str, attributes: &[(String, (String, String))]) -> String {
    let written: String = attributes.iter().map(|(name, (_, value))| format!(" {name}=\"{value}\"")).collect();
    format!("<{name}{written}>")
}

/// An element as it is written.
fn element() -> impl Strategy<Value = String> {
    let leaf = ("[a-c]", attributes(), text_in(false))
        .prop_map(|(name, attributes, (_, text))| format!("{}{text}</{name}>", begin(&name, &attributes)));
    leaf.prop_recursive(5, 40, 6, |inner| {
        let text = text_in(false).prop_map(|(_, text)| text);
        let other = prop::sample::select(vec!["<!-- c -->", "<?p i?>", "\n  ", ""]).prop_map(str::to_owned);
        let part = prop_oneof![6 => inner, 1 => text, 2 => other];
        ("[a-c]", attributes(), prop::collection::vec(part, 0..6))
            .prop_map(|(name, attributes, parts)| format!("{}{}</{name}>", begin(&name, &attributes), parts.concat()))
    })
}

fn some_config() -> impl Strategy<Value = Xml> {
    prop::sample::select(vec![
        "",
        "ordered = true",
        "arrays = ['**.a', '*.*.b']\nnumbers = ['**.c', '**.@a']\nbooleans = ['**.b']",
        "ordered = true\narrays = ['**.a']",
        "namespaces = 'drop'",
    ])
    .prop_map(config)
}

proptest! {
    #[test]
    fn text_is_what_was_written((value, written) in text_in(true), (text, content) in text_in(false)) {
        let document = format!("<a b=\"{written}\">{content}</a>");
        let read: serde_json::Value = serde_json::from_slice(&config("").to_json(document.as_bytes(), None).unwrap()).unwrap();
        prop_assert_eq!(read["a"]["@b"].as_str(), Some(&*value));
        prop_assert_eq!(read["a"]["#text"].as_str().unwrap_or_default(), text);
    }

    #[test]
    fn a_document_survives_json(xml in some_config(), document in element()) {
        let json = xml.to_json(document.as_bytes(), None).unwrap();
        prop_assert!(json.len() <= 4 * document.len() + 64);
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        let again = xml.from_json(&json, usize::MAX).unwrap();
        match xml.ordered {
            true => prop_assert_eq!(whole(&again), whole(document.as_bytes())),
            false => prop_assert_eq!(whole(&again), grouped(whole(document.as_bytes()))),
        }
        prop_assert_eq!(String::from_utf8(xml.to_json(&again, None).unwrap()), String::from_utf8(json));
    }

    #[test]
    fn whatever_is_written_is_read(
        xml in some_config(),
        json in r##"(\{("[@#]?[abc]":|"#text":|"#content":)?|"[^\x00-\x1f\\"]"|-?[0-9]|\[|\]|\}|,|null|true){0,12}"##
    ) {
        if let Ok(document) = xml.from_json(json.as_bytes(), usize::MAX) {
            let once = xml.to_json(&document, None).unwrap();
            let again = xml.from_json(&once, usize::MAX).unwrap();
            prop_assert_eq!(xml.to_json(&again, None).unwrap(), once);
        }
    }

    #[test]
    fn nothing_panics(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            r#"(<[/!?]?|a|b|:| |x='|'|"|>|/>|&|;|#|xmlns|--|\]\]>|<!\[CDATA\[|<\?xml |é|\{){0,24}"#.prop_map(String::into_bytes),
        ],
        cut in any::<prop::sample::Index>(), charset in prop::option::of(prop::sample::select(vec!["utf-16", "latin1", "x"]))
    ) {
        let xml = config("");
        if let Ok(json) = xml.to_json(&bytes, charset) {
            prop_assert!(json.len() <= 4 * bytes.len() + 64);
        }
        let _ = xml.from_json(&bytes, usize::MAX);
        if !bytes.is_empty() {
            let _ = xml.to_json(&bytes[..cut.index(bytes.len())], charset);
        }
    }

    #[test]
    fn what_is_cut_off_is_refused(document in element(), cut in any::<prop::sample::Index>()) {
        let bytes = document.as_bytes();
        prop_assert!(config("").to_json(&bytes[..cut.index(bytes.len())], None).is_err());
    }
}
