//! SOAP envelopes, 1.1 and 1.2: what is in one, and how one is made of JSON.
//!
//! Names are told apart by their namespaces, whatever their prefixes. Parts of a message that are elsewhere (`href`, MTOM)
//! are not looked for.

use std::borrow::Cow;

use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::names::{is_character, is_local_name, local};
use super::read::{Document, Kind};
use super::{Namespaces, Xml, from_json, read, to_json};
use crate::body::Malformed;
use crate::body::tokens::Json;

/// A version of SOAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// SOAP 1.1 (W3C Note).
    V11,
    /// SOAP 1.2 (W3C Recommendation, second edition).
    V12,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Sender,
    /// The server's.
    Receiver,
    /// The envelope is of another version.
    Version,
    /// A header that must be understood is not.
    Header,
}

/// Why a document is no envelope.
#[derive(Debug)]
pub enum Wrong {
    /// It cannot be read, or is none.
    Malformed(Malformed),
    /// It is one of another version of SOAP.
    Version,
}

/// What a Fault says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its code, without prefix: `Client`, `Sender`.
    pub code: String,
    /// The innermost subcode of SOAP 1.2, without prefix.
    pub subcode: Option<String>,
    /// In words, in whatever language came first.
    pub reason: String,
    /// The name of the first element of the detail, without prefix.
    pub detail_name: Option<String>,
    /// The detail, as JSON.
    pub detail: Option<Vec<u8>>,
}

/// A message that was read.
pub struct Envelope<'a> {
    document: Document<'a>,
    /// Its version.
    pub version: Version,
    headers: Option<u32>,
    body: u32,
}

impl Version {
    /// The namespace of its envelopes.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::V11 => "http://schemas.xmlsoap.org/soap/envelope/",
            Self::V12 => "http://www.w3.org/2003/05/soap-envelope",
        }
    }

    /// The version that a content type is of.
    pub fn of(content_type: &[u8]) -> Self {
        match content_type.trim_ascii_start().get(..20) {
            Some(media) if media.eq_ignore_ascii_case(b"application/soap+xml") => Self::V12,
            _ => Self::V11,
        }
    }

    /// What an envelope is said to be.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::V11 => "text/xml; charset=utf-8",
            Self::V12 => "application/soap+xml; charset=utf-8",
        })
    }

    fn code(self, blame: Blame) -> &'static str {
        match (blame, self) {
            (Blame::Sender, Self::V11) => "soap:Client",
            (Blame::Sender, Self::V12) => "soap:Sender",
            (Blame::Receiver, Self::V11) => "soap:Server",
            (Blame::Receiver, Self::V12) => "soap:Receiver",
            (Blame::Version, _) => "soap:VersionMismatch",
            (Blame::Header, _) => "soap:MustUnderstand",
        }
    }
}

/// The text of a message; see [`Xml::to_json`].
///
/// # Errors
/// Its encoding is not known or broken.
pub fn text<'a>(bytes: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, Malformed> {
    read::text(bytes, charset)
}

impl<'a> Envelope<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not well-formed XML, or no envelope.
    pub fn read(text: &'a str) -> Result<Self, Wrong> {
        let document = Document::read(text).map_err(Wrong::Malformed)?;
        let wrong = |node, what: &'static str| Wrong::Malformed(Malformed::new(document.at(node), what));
        if local(document.name(0)) != "Envelope" {
            return Err(wrong(0, "this is no SOAP envelope"));
        }
        let namespace = meaning(&document, &[0], document.name(0));
        let Some(version) = [Version::V11, Version::V12].into_iter().find(|version| namespace == version.namespace())
        else {
            return Err(Wrong::Version);
        };
        let (mut headers, mut body) = (None, None);
        for element in elements(&document, 0) {
            let name = document.name(element);
            if meaning(&document, &[0, element], name) != version.namespace() {
                return Err(wrong(element, "an envelope has a header and a body, and nothing else"));
            }
            match (local(name), headers, body) {
                ("Header", None, None) => headers = Some(element),
                ("Body", _, None) => body = Some(element),
                _ => return Err(wrong(element, "an envelope has one header, one body, and nothing else")),
            }
        }
        match body {
            Some(body) => Ok(Self { version, headers, body, document }),
            None => Err(wrong(0, "the envelope has no body")),
        }
    }

    /// The namespace and the name of what the body holds first.
    pub fn child(&self) -> Option<(Cow<'a, str>, &'a str)> {
        let child = self.first()?;
        let name = self.document.name(child);
        Some((meaning(&self.document, &[0, self.body, child], name), local(name)))
    }

    /// What is in the first element of the body, as JSON; paths begin with that element. `null` without one.
    ///
    /// # Errors
    /// It has no counterpart in JSON.
    pub fn json(&self, xml: &Xml) -> Result<Vec<u8>, Malformed> {
        match self.first() {
            Some(child) => to_json::Writer::write_element(xml, &self.document, child),
            None => Ok(b"null".to_vec()),
        }
    }

    /// The first header that must be understood by whoever reads the message, and is of none of these namespaces.
    pub fn not_understood(&self, understood: &[Box<str>]) -> Option<&'a str> {
        const TO_US: [&str; 4] = [
            "",
            "http://schemas.xmlsoap.org/soap/actor/next",
            "http://www.w3.org/2003/05/soap-envelope/role/next",
            "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver",
        ];
        let headers = self.headers?;
        elements(&self.document, headers).map(|block| (block, self.document.name(block))).find_map(|(block, name)| {
            let path = [0, headers, block];
            let says = |wanted: &str| {
                let mut attributes =
                    self.document.inner(block).take_while(|node| self.document.kind(*node) == Kind::Attribute);
                let attribute = attributes.find(|node| {
                    let name = self.document.name(*node);
                    name.contains(':')
                        && local(name) == wanted
                        && meaning(&self.document, &path, name) == self.version.namespace()
                })?;
                Some(self.document.value(attribute).trim().to_owned())
            };
            let must = matches!(says("mustUnderstand").as_deref(), Some("1" | "true"));
            let role = says(if self.version == Version::V11 { "actor" } else { "role" }).unwrap_or_default();
            let namespace = meaning(&self.document, &path, name);
            let known = understood.iter().any(|known| **known == *namespace);
            (must && TO_US.contains(&&*role) && !known).then_some(local(name))
        })
    }

    /// What the Fault says that the body holds.
    pub fn fault(&self) -> Option<Fault> {
        let (namespace, "Fault") = self.child()? else { return None };
        if namespace != self.version.namespace() {
            return None;
        }
        let fault = self.first()?;
        let inner = |element: u32, name: &str| {
            elements(&self.document, element).find(|inner| local(self.document.name(*inner)) == name)
        };
        let text = |element: u32| {
            let nodes = self.document.inner(element);
            let texts = nodes.filter(|node| matches!(self.document.kind(*node), Kind::Text | Kind::Cdata));
            texts.map(|node| self.document.value(node)).collect::<String>().trim().to_owned()
        };
        let code = |element: u32| local(&text(element)).to_owned();
        let (detail, code, subcode, reason) = match self.version {
            Version::V11 => (
                inner(fault, "detail"),
                inner(fault, "faultcode").map(code),
                None,
                inner(fault, "faultstring").map(text),
            ),
            Version::V12 => {
                let top = inner(fault, "Code");
                let innermost = std::iter::successors(top, |outer| inner(*outer, "Subcode")).skip(1).last();
                (
                    inner(fault, "Detail"),
                    top.and_then(|top| inner(top, "Value")).map(code),
                    innermost.and_then(|subcode| inner(subcode, "Value")).map(code),
                    inner(fault, "Reason").and_then(|reason| inner(reason, "Text")).map(text),
                )
            }
        };
        let detail_name = detail.and_then(|detail| elements(&self.document, detail).next());
        let xml = Xml { namespaces: Namespaces::Drop, typed: true, ..plain() };
        Some(Fault {
            code: code.unwrap_or_default(),
            subcode,
            reason: reason.unwrap_or_default(),
            detail_name: detail_name.map(|name| local(self.document.name(name)).to_owned()),
            detail: detail.and_then(|detail| to_json::Writer::write_element(&xml, &self.document, detail).ok()),
        })
    }

    fn first(&self) -> Option<u32> {
        elements(&self.document, self.body).next()
    }
}

/// What is around the content of a message that is written.
#[derive(Debug, Clone)]
pub struct Wrapping {
    /// Its version.
    pub version: Version,
    /// The element in the body, with its prefix if it has one.
    pub element: Box<str>,
    /// Its attributes, which declare namespaces, as members of JSON: `"@xmlns":"urn:orders"`.
    pub attributes: Box<str>,
}

impl Wrapping {
    /// An element of a namespace. Without a prefix its children are of that namespace too, with one they are of none.
    pub fn new<'n>(
        version: Version,
        name: &str,
        namespace: &str,
        prefix: Option<&str>,
        prefixes: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Self {
        let mut attributes = Map::new();
        let own = prefix.map_or_else(|| "@xmlns".to_owned(), |prefix| format!("@xmlns:{prefix}"));
        if !namespace.is_empty() {
            attributes.insert(own, namespace.into());
        }
        attributes.extend(prefixes.into_iter().map(|(prefix, name)| (format!("@xmlns:{prefix}"), name.into())));
        let text = Value::Object(attributes).to_string();
        Self {
            version,
            element: prefix.map_or_else(|| name.into(), |prefix| format!("{prefix}:{name}").into()),
            attributes: text[1..text.len() - 1].into(),
        }
    }

    /// Writes a message of at most `limit` bytes. `header` and `content` are JSON: an object, or `null`.
    ///
    /// # Errors
    /// The content is no object, or has no counterpart in XML.
    pub fn write(&self, header: Option<&[u8]>, content: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
        let content = members(content)?;
        let separator = if content.is_empty() || self.attributes.is_empty() { "" } else { "," };
        let (element, attributes) = (Value::from(&*self.element), &self.attributes);
        let mut message = opening(self.version);
        if let Some(header) = header.map(members).transpose()?.filter(|header| !header.is_empty()) {
            message.push_str(&format!(r#""soap:Header":{{{header}}},"#));
        }
        message.push_str(&format!(r#""soap:Body":{{{element}:{{{attributes}{separator}{content}}}}}}}}}"#));
        from_json::Writer::write(&plain(), &Json::read(message.as_bytes())?, limit)
    }
}

/// Writes a Fault. Characters that XML does not allow are left out, as is a detail that has no counterpart in XML.
pub fn fault(version: Version, blame: Blame, reason: &str, detail: Option<&Value>) -> Vec<u8> {
    let reason: String = reason.chars().filter(|c| is_character(*c)).collect();
    let code = version.code(blame);
    let with = |detail: Option<&Value>| {
        let mut fault = match version {
            Version::V11 => json!({ "faultcode": code, "faultstring": reason }),
            Version::V12 => json!({
                "soap:Code": { "soap:Value": code },
                "soap:Reason": { "soap:Text": { "@xml:lang": "en", "#text": reason } },
            }),
        };
        if let (Some(detail), Some(fault)) = (detail, fault.as_object_mut()) {
            let name = if version == Version::V11 { "detail" } else { "soap:Detail" };
            fault.insert(name.to_owned(), json!({ "problem": detail }));
        }
        let message = format!(r#"{}"soap:Body":{{"soap:Fault":{fault}}}}}}}"#, opening(version));
        let json = Json::read(message.as_bytes())?;
        from_json::Writer::write(&plain(), &json, usize::MAX)
    };
    let written = with(detail).or_else(|_| with(None));
    written.unwrap_or_default()
}

/// Whether it is a name without a prefix.
pub fn is_name(name: &str) -> bool {
    is_local_name(name)
}

fn opening(version: Version) -> String {
    format!(r#"{{"soap:Envelope":{{"@xmlns:soap":"{}","#, version.namespace())
}

/// What stands between the braces of an object, once it is known to be one.
fn members(json: &[u8]) -> Result<&str, Malformed> {
    let read = Json::read(json)?;
    let text = std::str::from_utf8(json).unwrap_or_default().trim();
    match read.root().kind() {
        crate::body::tokens::Kind::Null => Ok(""),
        crate::body::tokens::Kind::Object => Ok(text[1..text.len() - 1].trim()),
        _ => Err(Malformed::new(0, "an object is expected")),
    }
}

/// The mapping without any wishes.
fn plain() -> Xml {
    Xml {
        root: None,
        item: None,
        arrays: Box::default(),
        numbers: Box::default(),
        booleans: Box::default(),
        namespaces: Namespaces::Keep,
        ordered: false,
        typed: false,
    }
}

fn elements<'d>(document: &'d Document<'_>, element: u32) -> impl Iterator<Item = u32> + 'd {
    document.inner(element).filter(|node| document.kind(*node) == Kind::Element)
}

/// The namespace of a name, in the innermost of these elements.
fn meaning<'a>(document: &Document<'a>, path: &[u32], name: &str) -> Cow<'a, str> {
    let declaration = match name.split_once(':') {
        Some((prefix, _)) => Cow::Owned(format!("xmlns:{prefix}")),
        None => Cow::Borrowed("xmlns"),
    };
    for element in path.iter().rev() {
        let mut attributes = document.inner(*element).take_while(|node| document.kind(*node) == Kind::Attribute);
        if let Some(found) = attributes.find(|node| document.name(*node) == declaration) {
            return document.value(found);
        }
    }
    Cow::Borrowed("")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";

    #[test]
    fn what_is_written_is_read_again() {
        for version in [Version::V11, Version::V12] {
            let wrapping = Wrapping::new(version, "Get", "urn:o", Some("m"), [("b", "urn:b")]);
            let header = br##"{"w:T":{"@xmlns:w":"urn:w","@soap:mustUnderstand":"1","#text":"x"}}"##;
            let message = wrapping.write(Some(header), br#" {"id":"7","b:n":null} "#, 4096).unwrap();
            let text = text(&message, None).unwrap();
            let envelope = Envelope::read(&text).unwrap();
            assert_eq!(envelope.version, version);
            assert_eq!(envelope.child(), Some(("urn:o".into(), "Get")));
            assert_eq!(envelope.not_understood(&[]), Some("T"));
            assert_eq!(envelope.not_understood(&["urn:w".into()]), None);
            let xml = Xml { namespaces: Namespaces::Drop, ..plain() };
            assert_eq!(envelope.json(&xml).unwrap(), br#"{"id":"7","n":null}"#);
            assert!(envelope.fault().is_none());
        }
    }

    #[test]
    fn nothing_gets_out_of_the_body() {
        let wrapping = Wrapping::new(Version::V11, "Get", "urn:o", None, []);
        assert!(wrapping.write(None, br#"{"a":1}},"x":{"b":{"c":1}"#, 4096).is_err());
        assert!(wrapping.write(None, br#"[1]"#, 4096).is_err());
        assert!(wrapping.write(None, br#"{"@xmlns":"urn:x"}"#, 4096).is_err());
        let empty = wrapping.write(None, b"null", 4096).unwrap();
        assert!(String::from_utf8(empty).unwrap().contains("<Get xmlns=\"urn:o\"/>"));
    }

    #[test]
    fn faults_are_read_and_written() {
        for (version, code) in [(Version::V11, "Client"), (Version::V12, "Sender")] {
            let message = fault(version, Blame::Sender, "no\u{1} <id>", Some(&json!({ "id": 7 })));
            let text = text(&message, None).unwrap();
            let fault = Envelope::read(&text).unwrap().fault().unwrap();
            assert_eq!((fault.code.as_str(), fault.reason.as_str()), (code, "no <id>"));
            assert_eq!(fault.detail.as_deref(), Some(&br#"{"problem":{"id":"7"}}"#[..]));
            assert_eq!(fault.detail_name.as_deref(), Some("problem"));
        }
        let plain = fault(Version::V11, Blame::Receiver, "x", Some(&json!({ "no name": 7 })));
        assert!(!String::from_utf8(plain).unwrap().contains("detail"));
        let nested = "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'><s:Body><s:Fault><s:Code><s:Value>s:Sender\
                      </s:Value><s:Subcode><s:Value>m:Gone</s:Value></s:Subcode></s:Code></s:Fault></s:Body></s:Envelope>";
        assert_eq!(Envelope::read(nested).unwrap().fault().unwrap().subcode.as_deref(), Some("Gone"));
    }

    #[test]
    fn what_is_no_envelope_is_told_apart() {
        let read = |inside: &str| {
            let text = format!("<e:Envelope xmlns:e='{V11}'>{inside}</e:Envelope>");
            Envelope::read(&text).map(|envelope| envelope.child().map(|(_, name)| name.to_owned()))
        };
        assert_eq!(read("<e:Body> <x/></e:Body>").unwrap().as_deref(), Some("x"));
        assert_eq!(read("<e:Header/><e:Body/>").unwrap(), None);
        for inside in ["", "<Body/>", "<e:Body/><e:Body/>", "<e:Body/><e:Header/>", "<x/><e:Body/>"] {
            assert!(matches!(read(inside), Err(Wrong::Malformed(_))), "{inside}");
        }
        assert!(matches!(Envelope::read("<Envelope xmlns='urn:x'/>"), Err(Wrong::Version)));
        assert!(matches!(Envelope::read("<a/>"), Err(Wrong::Malformed(_))));
        assert!(matches!(Envelope::read("<!DOCTYPE a><a/>"), Err(Wrong::Malformed(_))));
    }

    #[test]
    fn nil_is_null_and_types_are_left_out() {
        let text = format!(
            "<e:Envelope xmlns:e='{V11}' xmlns:i='http://www.w3.org/2001/XMLSchema-instance'><e:Body><r><a i:nil='true'/>\
             <b i:type='x:int' xmlns:x='urn:x'>1</b></r></e:Body></e:Envelope>"
        );
        let xml = Xml { namespaces: Namespaces::Drop, typed: true, ..plain() };
        assert_eq!(Envelope::read(&text).unwrap().json(&xml).unwrap(), br#"{"a":null,"b":"1"}"#);
    }
}
