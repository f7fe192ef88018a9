//! What the fuzz targets of `fuzz/` run: parsers that meet the network or the file, each with what must hold
//! whatever they are given. Only there when fuzzing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Version;

use crate::body::form::{Files, FormConfig};
use crate::body::grpc::{GrpcConfig, Transcoder};
use crate::body::json::{Edits, EditsConfig};
use crate::body::xml::{Namespaces, Xml, XmlConfig};
use crate::body::{Filter, Malformed};
use crate::cache::{Arrival, CDN_CACHE_CONTROL, Caller, Directives, Life, Rules};
use crate::facts::{Facts, Limits};
use crate::gateway::Gateway;
use crate::http1::chunked::Chunked;
use crate::http1::{Framing, parse_request, parse_response, write_request};
use crate::server::acme::Acme;
use crate::server::{head, listener};
use crate::store::resp;
use crate::telemetry::metrics::traffic::Meter;
use crate::types::path;

/// A head that is let in has one meaning: what is written to a server is let in again, with the same framing.
pub fn request(data: &[u8]) {
    let Ok(Some(length)) = head::end(data, 0) else { return };
    let Ok(found) = head::check(&data[..length], &Limits::default()) else { return };
    let Ok(mut request) = parse_request(&Bytes::copy_from_slice(&data[..length])) else { return };
    if request.version == Version::HTTP_10 && !request.headers.contains_key("host") {
        return;
    }
    request.set_version(Version::HTTP_11);
    let mut written = Vec::new();
    write_request(&request, found.body, &mut written);
    let again = head::check(&written, &Limits { max_headers: 200, ..Limits::default() });
    let again = again.unwrap_or_else(|refused| panic!("{refused:?}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(again.body, found.body);
    assert_eq!(head::end(&written, 0), Ok(Some(written.len())));
}

/// A server's head is read or refused, and never says that a body ends in two places.
pub fn response(data: &[u8]) {
    let mut read = BytesMut::from(data);
    if let Ok(Some(head)) = parse_response(&mut read, false) {
        let fields = &head.head.headers;
        assert!(!(fields.contains_key("content-length") && fields.contains_key("transfer-encoding")));
        assert!(head.body != Framing::UntilClose || !head.keep_alive);
    }
}

/// Where a chunked body ends does not depend on how it arrives.
pub fn chunked(data: &[u8]) {
    let mut whole = Chunked::default();
    let at_once = whole.advance(data);
    let mut piece = Chunked::default();
    let mut taken = 0;
    for byte in data {
        match piece.advance(std::slice::from_ref(byte)) {
            Ok(1) => taken += 1,
            Ok(_) => break,
            Err(_) => return assert!(at_once.is_err()),
        }
    }
    assert_eq!(at_once, Ok(taken));
    assert_eq!(whole.is_done(), piece.is_done());
}

/// What is normal stays as it is, and holds nothing that climbs.
pub fn target(data: &[u8]) {
    if let Ok(normal) = path::normalize_bytes(data) {
        assert_eq!(path::normalize(&normal).as_deref(), Ok(&*normal));
        assert!(normal.starts_with('/') && !normal.split('/').any(|segment| segment == ".." || segment == "."));
    }
}

/// What an answer says of its storage is read, and a line that forbids it counts whatever the other lines say.
pub fn cache_control(data: &[u8]) {
    let mut headers = http::HeaderMap::new();
    for line in data.split(|b| *b == b'\n') {
        if let Ok(value) = http::HeaderValue::from_bytes(line) {
            headers.append("cache-control", value);
        }
    }
    let asked = Directives::of_request(&headers);
    let now = std::time::Instant::now();
    let arrival = Arrival { at: now, date: std::time::SystemTime::now(), delay: Default::default() };
    let rules = Rules { heuristic: true, ..Rules::default() };
    let life = |headers: &http::HeaderMap| {
        let (said, targeted) = Directives::of_response(headers);
        Life::of(http::StatusCode::OK, headers, (&said, targeted), &rules, Caller::Anyone, arrival)
    };
    if let Ok(life) = life(&headers) {
        let _ = (life.usable(&asked, now), life.ttl(now), life.stands_in(now));
    }
    let mut older = headers.clone();
    older.append("cache-control", "max-age=0, s-maxage=0".parse().expect("this is a value"));
    assert!(life(&older).is_err(), "stored without a validator, though it is never fresh");
    headers.append("cache-control", "private".parse().expect("this is a value"));
    assert!(life(&headers).is_err(), "stored, though it is private");
    let mut targeted = http::HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(data) {
        targeted.insert(CDN_CACHE_CONTROL, value);
        let _ = life(&targeted);
    }
}

/// Two requests have the same key only if they are the same in all that the key has.
pub fn cache_key(data: &[u8]) {
    thread_local! {
        static GATEWAY: Gateway = {
            let text = "[listen.a]\naddress = '127.0.0.1:1'\n[upstream]\no = ['127.0.0.1:1']\n[[route]]\nmatch = '/**'\n\
                        upstream = 'o'\ncache = { by = ['path', 'query:a', 'header:x-a'] }";
            let loaded = crate::config::Loaded::from_text("fuzz.toml", text);
            Gateway::compile(&Meter::default(), &mut loaded.build()).expect("this is a configuration")
        };
    }
    let requests: Vec<_> = data
        .split(|b| *b == 0)
        .filter_map(|piece| {
            let (target, value) = piece.split_at(piece.iter().position(|b| *b == b'\n')?);
            let mut request = pingora_http::RequestHeader::build("GET", target, None).ok()?;
            request.insert_header("host", "a").ok()?;
            value[1..].split(|b| *b == b'\n').try_for_each(|line| request.append_header("x-a", line).map(drop)).ok()?;
            Some(request)
        })
        .take(8)
        .collect();
    GATEWAY.with(|gateway| {
        let Some(cache) = gateway.route(0).chain.cache() else { return };
        let of = |request: &pingora_http::RequestHeader| {
            let wanted = cache.wanted(request, &Facts::of_client("127.0.0.1"), "o");
            let fetched = cache.fetch(request);
            let lines: Vec<Vec<u8>> =
                request.headers.get_all("x-a").iter().map(|line| line.as_bytes().to_vec()).collect();
            (wanted.key.bytes, fetched.uri.to_string(), lines)
        };
        for (i, one) in requests.iter().enumerate() {
            for other in &requests[..i] {
                let (one, other) = (of(one), of(other));
                // What is sent is what the key has, and no more.
                assert_eq!(one.0 == other.0, (&one.1, &one.2) == (&other.1, &other.2), "{one:?}\n{other:?}");
            }
        }
    });
}

/// What a store says is an answer or none, and no more of it is held than a few lines.
pub fn store(data: &[u8]) {
    const NUMBERS: usize = 4;
    match resp::parse(data, NUMBERS) {
        Ok(Some((answer, length))) => {
            assert_eq!(resp::parse(&data[..length], NUMBERS), Ok(Some((answer, length))));
            assert_eq!(resp::parse(&data[..length - 1], NUMBERS), Ok(None));
        }
        Ok(None) => assert!(data.len() <= resp::LONGEST + 2 + NUMBERS * (resp::NUMBER + 2)),
        Err(_) => {}
    }
}

/// What is edited is JSON if and only if the document is, and does not depend on how it arrives.
pub fn json_edits(data: &[u8]) {
    thread_local! {
        static EDITS: [Arc<Edits>; 2] = {
            let compile = |text: &str| {
                let config: EditsConfig = toml::from_str(text).expect("this is a configuration");
                Arc::new(Edits::compile(&config).expect("it is sound").expect("it is not empty"))
            };
            [
                compile("remove = ['a', '*.b', 'c.*.a', 'd.0']\nrename = { b = 'e', 'c.d' = 'f' }\nset = { 'f.g' = 1 }"),
                compile("pick = ['a', 'b.*.c', '*.d']\nremove = ['a.*.b']\nset = { '*.0' = 'x', 'b.a' = {} }"),
            ]
        };
    }
    EDITS.with(|all| {
        for edits in all {
            let at_once = edits.apply(data);
            let sound =
                serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok() && std::str::from_utf8(data).is_ok();
            let deep = data.iter().filter(|byte| b"[{".contains(byte)).count() > crate::body::DEPTH;
            assert!(at_once.is_ok() == sound || (sound && deep));
            if let Ok(edited) = &at_once {
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(edited).is_ok());
            }
            let (mut editor, mut out) = (edits.filter(), Vec::new());
            let pushed = data.chunks(1).try_for_each(|byte| editor.push(byte, &mut out));
            assert_eq!(pushed.and_then(|()| editor.end(&mut out)).map(|()| out), at_once);
        }
    });
}

/// Tokens and key sets are read or refused, and nothing is good that nobody signed.
pub fn token(data: &[u8]) {
    crate::policy::fuzz_token(data);
}

/// A file is compiled, or refused with words.
pub fn config(text: &str) {
    let loaded = crate::config::Loaded::from_text("fuzz.toml", text);
    let mut build = loaded.build();
    let meter = Meter::default();
    let gateway = Gateway::compile(&meter, &mut build);
    let listeners = listener::compile(&Acme::new(None), &meter, &mut build);
    let failed = gateway.is_none() || listeners.is_none();
    let diagnostics = build.diagnostics();
    assert!(!failed || diagnostics.errors() > 0, "refused without a word");
    let _ = diagnostics.to_string();
}

/// What is JSON for a message is the same message when it is read again; an answer does not depend on how it is cut; and
/// the other way, a message that is written as JSON is read again. The first byte says which way, and what is called.
pub fn transcode(descriptors: &'static [u8], data: &[u8]) {
    thread_local! { static TRANSCODER: std::cell::OnceCell<Transcoder> = const { std::cell::OnceCell::new() } }
    let Some((way, data)) = data.split_first() else { return };
    TRANSCODER.with(|cell| {
        let transcoder = cell.get_or_init(|| {
            let config: GrpcConfig =
                toml::from_str("descriptors = ''\nmax_message = '64KiB'").expect("this is a configuration");
            Transcoder::new(&config, descriptors).expect("this is a descriptor set")
        });
        let echo = transcoder.find("POST", "/echo").expect("there is such a method");
        let json = |frames: &[u8], size: usize| -> Result<Vec<u8>, Malformed> {
            let (mut answer, mut out) = (echo.answer(None, None)?, Vec::new());
            frames.chunks(size).try_for_each(|part| answer.push(part, &mut out))?;
            answer.end(&mut out).map(|()| out)
        };
        match way % 3 {
            0 => {
                let Ok(frame) = echo.request(None, None, data) else { return };
                let text = json(&frame, usize::MAX).expect("what was read can be written");
                let again = echo.request(None, None, &text).expect("what was written can be read");
                assert_eq!(json(&again, usize::MAX), Ok(text));
            }
            1 => {
                let whole = json(data, usize::MAX);
                assert_eq!(whole, json(data, 1 + usize::from(*way) / 3));
                if let Ok(text) = whole {
                    let again = echo.request(None, None, &text).expect("what was written can be read");
                    assert_eq!(json(&again, usize::MAX), Ok(text));
                }
            }
            _ => {
                let Ok(target) = std::str::from_utf8(data) else { return };
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                if let Ok(call) = transcoder.find("GET", path) {
                    let _ = call.request(Some(query), None, b"");
                }
            }
        }
    });
}

/// What is read of XML survives the way to JSON and back, and takes no more room than is said.
pub fn xml_to_json(data: &[u8]) {
    for xml in &xmls() {
        let Ok(json) = xml.to_json(data, None) else { continue };
        assert!(json.len() <= 4 * data.len() + 64);
        let read: Result<serde_json::Value, _> = serde_json::from_slice(&json);
        // A number of any size is kept.
        assert!(read.is_ok_and(|value| value.is_object()) || json.iter().any(u8::is_ascii_digit));
        let again = xml.from_json(&json, usize::MAX).expect("the JSON came of XML");
        assert_eq!(xml.to_json(&again, None).as_deref(), Ok(&*json), "{}", String::from_utf8_lossy(&again));
    }
}

/// What is written of JSON is well-formed, and says the same once it went the same way again.
pub fn json_to_xml(data: &[u8]) {
    for xml in &xmls() {
        let Ok(document) = xml.from_json(data, 1 << 20) else { continue };
        assert!(document.len() <= 1 << 20);
        match xml.to_json(&document, None) {
            Ok(json) => {
                let again = xml.from_json(&json, usize::MAX).expect("the JSON came of XML");
                assert_eq!(xml.to_json(&again, None).as_deref(), Ok(&*json));
            }
            Err(wrong) => {
                let known = wrong.what.contains("deeper than") || wrong.what.contains("without its prefix");
                assert!(known, "{wrong}: {}", String::from_utf8_lossy(&document));
            }
        }
    }
}

fn xmls() -> [Xml; 3] {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let plain = XmlConfig::default();
    let ordered = XmlConfig {
        ordered: true,
        arrays: paths(&["**.a", "*.*.b"]),
        numbers: paths(&["**.b", "**.@a"]),
        booleans: paths(&["**.c"]),
        ..XmlConfig::default()
    };
    let dropped = XmlConfig { namespaces: Namespaces::Drop, ..XmlConfig::default() };
    [plain, ordered, dropped].map(|config| config.compile().expect("this is a configuration"))
}

/// Forms are read or refused, and what is read survives the way to JSON and back.
pub fn form(data: &[u8]) {
    let names = vec!["a".to_owned()];
    let config = FormConfig { arrays: names.clone(), numbers: names, files: Files::Base64, ..FormConfig::default() };
    let form = config.compile().expect("this is a configuration");
    if let Ok(json) = form.to_json(data) {
        assert!(json.len() <= 8 * data.len() + 64);
        let again = form.from_json(&json, usize::MAX).expect("the JSON came of a form");
        assert_eq!(form.to_json(&again).as_deref(), Ok(&*json));
    }
    if let Ok(written) = form.from_json(data, 1 << 20) {
        assert!(written.len() <= 1 << 20);
        // There may be too many fields.
        let _ = form.to_json(&written);
    }
    if let Ok(json) = form.multipart_to_json(data, "multipart/form-data; boundary=b") {
        assert!(json.len() <= 8 * data.len() + 64);
    }
}

/// Whatever the body, programs give JSON or say why not; what passes through them is read again as itself.
pub fn jq_input(data: &[u8]) {
    use crate::body::jq::{Bounds, Program};
    thread_local! {
        static PROGRAMS: [Program; 3] = [
            ".",
            "[.., (paths | tojson), (.. | strings | gsub(\"[a-z]+\"; \"x\")), (.. | tostring)] | sort | unique",
            "walk(if type == \"object\" then with_entries(.value |= [.]) else . end)",
        ]
        .map(|text| Program::compile(text, &[]).expect("this is a program"));
    }
    let bounds = Bounds { steps: 100_000, output: 1 << 20, value: 1 << 20 };
    PROGRAMS.with(|programs| {
        for program in programs {
            if let Ok(output) = program.run(data, &[], &bounds) {
                assert!(output.len() <= bounds.output);
                let free = Bounds { steps: 10_000_000, output: 16 << 20, value: 64 << 20 };
                assert_eq!(programs[0].run(&output, &[], &free).as_ref(), Ok(&output));
            }
        }
    });
}

/// Whatever the document, it is weighed or refused, and so is whatever request carries it.
pub fn graphql(data: &[u8]) {
    use crate::body::graphql::{Batch, Document, Limits};
    let limits = Limits { max_aliases: 50, max_directives: 50, introspection: true, ..Limits::default() };
    let check = |text: &str| match Document::read(text) {
        Ok(document) => {
            let _ = document.operation(None).and_then(|one| document.weigh(one, &limits, &[("n".into(), 7)].into()));
        }
        Err(wrong) => drop(wrong.location(text)),
    };
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
    if let Ok(batch) = Batch::read(data)
        && let Ok((asks, _)) = batch.asks()
    {
        for ask in asks {
            ask.query.iter().for_each(|query| check(query));
            let _ = (ask.amounts(), ask.hash());
        }
    }
}

/// Whatever the message, it is read or refused; what is in one can be put into another.
pub fn soap(data: &[u8]) {
    use crate::body::xml::XmlConfig;
    use crate::body::xml::soap::{Envelope, Version, Wrapping, text};
    let xml = XmlConfig::default().compile().expect("this is a configuration");
    let Ok(text) = text(data, None) else { return };
    let Ok(envelope) = Envelope::read(&text) else { return };
    let _ = (envelope.fault(), envelope.not_understood(&[]));
    if let Ok(json) = envelope.json(&xml) {
        let _ = Wrapping::new(Version::V12, "a", "urn:a", None, []).write(None, &json, 1 << 20);
    }
}
