//! Text with variables, parsed once: `"/v1/users/{path.id}"`, `"{client.ip}"`.
//!
//! | variable | what it is |
//! | --- | --- |
//! | `{path.NAME}`, `{**}` | what the route's pattern captured |
//! | `{path}`, `{host}`, `{method}`, `{scheme}` | of the request |
//! | `{header.NAME}`, `{query.NAME}` | the first value, empty where there is none |
//! | `{consumer}`, `{consumer.groups}`, `{claims.NAME}` | who asks, where that is known |
//! | `{client.ip}`, `{request.id}`, `{listener}`, `{route}`, `{upstream}` | what the gateway knows |
//!
//! `{{` and `}}` are braces.

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What stands in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// A capture of the route's path, by position.
    Capture(usize),
    /// The normalised path.
    Path,
    /// The host without its port.
    Host,
    /// The method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// The first value of a header field.
    Header(http::HeaderName),
    /// The first value of a query parameter.
    Query(Box<str>),
    /// The name of who asks.
    Consumer,
    /// The groups of who asks, with commas between them.
    ConsumerGroups,
    /// What the credential of who asks says.
    Claim(Box<str>),
    /// The client's address.
    ClientIp,
    /// The request's id.
    RequestId,
    /// The listener's name.
    Listener,
    /// The route's name.
    Route,
    /// The upstream's name.
    Upstream,
    /// What a part of an aggregate has answered, by its position: all of it, or the member that a dotted path leads to.
    Part(usize, Box<str>),
}

/// The names that a text may use beside those that are always there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'n> {
    /// What the route's path captures, by position.
    pub captures: &'n [Box<str>],
    /// The parts of an aggregate, by position.
    pub parts: &'n [Box<str>],
}

/// Where the values come from.
pub trait Variables {
    /// Appends the value of a variable.
    fn write(&self, variable: &Variable, out: &mut Vec<u8>);
}

const PLAIN: [(&str, Variable); 11] = [
    ("path", Variable::Path),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("consumer", Variable::Consumer),
    ("consumer.groups", Variable::ConsumerGroups),
    ("client.ip", Variable::ClientIp),
    ("request.id", Variable::RequestId),
    ("listener", Variable::Listener),
    ("route", Variable::Route),
    ("upstream", Variable::Upstream),
];

impl Template {
    /// Parses a text. `captures` are the names that the route's path has, by position.
    ///
    /// # Errors
    /// A brace without its other, or a variable that is not known.
    pub fn parse(text: &str, captures: &[Box<str>]) -> Result<Self, String> {
        Self::parse_with(text, Names { captures, parts: &[] })
    }

    /// Parses a text that may use these names.
    ///
    /// # Errors
    /// A brace without its other, or a variable that is not known.
    pub fn parse_with(text: &str, names: Names<'_>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if rest.starts_with(brace) {
                literal.push_str(brace);
                rest = &rest[1..];
            } else if brace == "}" {
                return Err("a `}` without a `{`: write `}}` for a brace".to_owned());
            } else {
                let end = rest.find('}').ok_or("a `{` without a `}`: write `{{` for a brace")?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Variable(Variable::parse(&rest[..end], names)?));
                rest = &rest[end + 1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts })
    }

    /// The text, if there is no variable in it.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The variable that all of the text is.
    pub fn only_variable(&self) -> Option<&Variable> {
        match self.parts.as_slice() {
            [Part::Variable(variable)] => Some(variable),
            _ => None,
        }
    }

    /// Whether all its variables are about who asks.
    pub fn is_about_caller(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Variable(variable) => {
                matches!(variable, Variable::Consumer | Variable::ConsumerGroups | Variable::Claim(_))
            }
        })
    }

    /// What the text begins with before its first variable.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The text with its values.
    pub fn render(&self, variables: &impl Variables) -> Vec<u8> {
        self.render_with(variables, |_, value, out| out.extend_from_slice(value))
    }

    /// The text as a path: values are percent-encoded, save captures, which are encoded already.
    pub fn render_path(&self, variables: &impl Variables) -> Vec<u8> {
        self.render_with(variables, |variable, value, out| match variable {
            Variable::Capture(_) | Variable::Path => out.extend_from_slice(value),
            _ => out.extend(percent_encoding::percent_encode(value, UNRESERVED).flat_map(str::bytes)),
        })
    }

    /// The text as the value of a query parameter.
    pub fn render_query(&self, variables: &impl Variables) -> Vec<u8> {
        let value = self.render(variables);
        percent_encoding::percent_encode(&value, UNRESERVED).flat_map(str::bytes).collect()
    }

    /// The text as a URI reference (RFC 3986, section 4.1): values are percent-encoded for where they stand, so that
    /// none gets out of its component. `None` where a value would still lead elsewhere: as a dot segment, or as an
    /// empty host.
    pub fn render_reference(&self, variables: &impl Variables) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        let mut value = Vec::new();
        for part in &self.parts {
            let (at, rooted) = (Component::behind(&out), is_root(&out));
            // Two slashes with nothing between them but an empty value would make a host of what follows.
            let unrooted = |text: &mut &[u8]| {
                while rooted && text.first() == Some(&b'/') {
                    *text = &text[1..];
                }
            };
            match part {
                Part::Text(text) => {
                    let mut text = text.as_bytes();
                    unrooted(&mut text);
                    out.extend_from_slice(text);
                }
                Part::Variable(variable) => {
                    value.clear();
                    variables.write(variable, &mut value);
                    let mut value = value.as_slice();
                    unrooted(&mut value);
                    if matches!(at, Component::First | Component::Path) && matches!(value, b"." | b"..") {
                        return None;
                    }
                    at.encode(variable, value, &mut out);
                }
            }
        }
        (!is_hostless(&out)).then_some(out)
    }

    fn render_with(&self, variables: &impl Variables, put: impl Fn(&Variable, &[u8], &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    value.clear();
                    variables.write(variable, &mut value);
                    put(variable, &value, &mut out);
                }
            }
        }
        out
    }
}

/// Everything but the unreserved characters of RFC 3986.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same, for what is percent-encoded already.
const ENCODED: &percent_encoding::AsciiSet = &UNRESERVED.remove(b'%');

/// Where in a URI reference a value stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Component {
    /// In what may be a scheme, or the first segment of a relative path.
    First,
    Authority,
    Path,
    /// In the query or the fragment.
    Tail,
}

impl Component {
    fn behind(before: &[u8]) -> Self {
        let rest = without_scheme(before);
        match rest.strip_prefix(b"//") {
            _ if rest.iter().any(|b| b"?#".contains(b)) => Self::Tail,
            Some(authority) if !authority.contains(&b'/') => Self::Authority,
            None if rest.len() == before.len() && !rest.contains(&b'/') => Self::First,
            _ => Self::Path,
        }
    }

    fn encode(self, variable: &Variable, value: &[u8], out: &mut Vec<u8>) {
        let whole_path = *variable == Variable::Path && value.starts_with(b"/");
        let of_path = matches!(variable, Variable::Capture(_) | Variable::Path);
        match self {
            // A path ends an authority and keeps its slashes.
            Self::First | Self::Authority if whole_path => out.extend_from_slice(value),
            Self::Path if of_path => out.extend_from_slice(value),
            Self::First if of_path => {
                // A colon would make a scheme of what is before it.
                const COLON: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b':');
                let end = memchr::memchr(b'/', value).unwrap_or(value.len());
                out.extend(percent_encoding::percent_encode(&value[..end], COLON).flat_map(str::bytes));
                out.extend_from_slice(&value[end..]);
            }
            Self::Authority if *variable == Variable::Host && is_ip_literal(value) => out.extend_from_slice(value),
            _ => {
                let set = if of_path { ENCODED } else { UNRESERVED };
                out.extend(percent_encoding::percent_encode(value, set).flat_map(str::bytes));
            }
        }
    }
}

/// What follows the scheme of a reference, if it has one.
fn without_scheme(reference: &[u8]) -> &[u8] {
    match reference.iter().position(|b| b":/?#".contains(b)) {
        Some(at) if at > 0 && reference[at] == b':' => &reference[at + 1..],
        _ => reference,
    }
}

/// Whether a reference is the root of a path so far.
fn is_root(reference: &[u8]) -> bool {
    without_scheme(reference) == b"/"
}

fn is_hostless(reference: &[u8]) -> bool {
    let authority = without_scheme(reference).strip_prefix(b"//");
    authority.is_some_and(|rest| rest.first().is_none_or(|b| b"/?#".contains(b)))
}

/// `[2001:db8::1]`
fn is_ip_literal(host: &[u8]) -> bool {
    let inner = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    inner.is_some_and(|inner| inner.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b)))
}

impl Variable {
    fn parse(name: &str, Names { captures, parts }: Names<'_>) -> Result<Self, String> {
        let (part, path) = name.split_once('.').unwrap_or((name, ""));
        if let Some(position) = parts.iter().position(|known| **known == *part) {
            return Ok(Self::Part(position, path.into()));
        }
        if let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == name) {
            return Ok(variable.clone());
        }
        let capture = name.strip_prefix("path.").or((name == "**").then_some(name));
        if let Some(capture) = capture {
            return match captures.iter().position(|known| **known == *capture) {
                Some(position) => Ok(Self::Capture(position)),
                None if captures.is_empty() => Err(format!("`{{{name}}}`: the route's path captures nothing")),
                None => Err(format!("`{{{name}}}`: the route's path captures {}", captures.join(", "))),
            };
        }
        if let Some(position) = captures.iter().position(|known| **known == *name) {
            return Ok(Self::Capture(position));
        }
        if let Some(header) = name.strip_prefix("header.") {
            return header
                .parse()
                .map(Self::Header)
                .map_err(|_| format!("`{header}` is not the name of a header field"));
        }
        if let Some(query) = name.strip_prefix("query.")
            && !query.is_empty()
        {
            return Ok(Self::Query(query.into()));
        }
        if let Some(claim) = name.strip_prefix("claims.")
            && !claim.is_empty()
        {
            return Ok(Self::Claim(claim.into()));
        }
        let known = PLAIN.iter().map(|(known, _)| *known);
        let nearest = known.clone().min_by_key(|known| strsim::damerau_levenshtein(known, name)).unwrap_or("");
        Err(format!(
            "the variable `{{{name}}}` is not known: did you mean `{{{nearest}}}`? There are {}, path.NAME, header.NAME, query.NAME, claims.NAME",
            known.collect::<Vec<_>>().join(", ")
        ))
    }
}

/// The value of a query parameter, decoded; the first of a name.
pub fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<std::borrow::Cow<'q, str>> {
    form_urlencoded::parse(query.unwrap_or("").as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Values;
    impl Variables for Values {
        fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
            out.extend_from_slice(match variable {
                Variable::Capture(0) => b"7%20x",
                Variable::ClientIp => b"192.0.2.1",
                _ => b"a/b?",
            });
        }
    }

    #[test]
    fn text_and_variables() {
        let captures = ["id".into()];
        let render = |text: &str| String::from_utf8(Template::parse(text, &captures).unwrap().render(&Values)).unwrap();
        assert_eq!(render("/users/{path.id}!"), "/users/7%20x!");
        assert_eq!(render("/users/{id}!"), "/users/7%20x!");
        assert_eq!(render("{{{client.ip}}}"), "{192.0.2.1}");
        assert_eq!(render(""), "");
        let path = Template::parse("/{path.id}/{header.x}", &captures).unwrap().render_path(&Values);
        assert_eq!(path, b"/7%20x/a%2Fb%3F");
    }

    struct All(&'static str);
    impl Variables for All {
        fn write(&self, _: &Variable, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0.as_bytes());
        }
    }

    fn reference(text: &str, value: &'static str) -> Option<String> {
        let template = Template::parse(text, &["id".into()]).unwrap();
        template.render_reference(&All(value)).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_value_stays_in_its_component() {
        for (text, value, expected) in [
            ("{scheme}://a.test/", "https", "https://a.test/"),
            ("https://{host}/", "a@b:1/c", "https://a%40b%3A1%2Fc/"),
            ("https://{host}/", "[::1]", "https://[::1]/"),
            ("https://{host}/", "[::1]@b", "https://%5B%3A%3A1%5D%40b/"),
            ("https://a.test{path}", "/b;c/%20:@", "https://a.test/b;c/%20:@"),
            ("https://{path.id}.a.test/", "b:c@%20", "https://b%3Ac%40%20.a.test/"),
            ("//a.test/{path.id}", "b:c", "//a.test/b:c"),
            ("/a/{header.x}/b", "c/d?e#f\\%", "/a/c%2Fd%3Fe%23f%5C%25/b"),
            ("/a?b={query.x}&c=1", "d&e=f#g", "/a?b=d%26e%3Df%23g&c=1"),
            ("/a?b={path}", "/c%20d&e", "/a?b=%2Fc%20d%26e"),
            ("/a#{query.x}", "b c", "/a#b%20c"),
            ("?{query.x}", "b/c", "?b%2Fc"),
            ("{path}", "/a:b", "/a:b"),
            ("{path.id}/x", "a:(b)/c:d", "a%3A(b)/c:d/x"),
            ("a/{path.id}", "b:c", "a/b:c"),
            ("/{path}", "/evil.test", "/evil.test"),
            ("/{query.x}/{query.x}/a", "", "/a"),
            ("https:/{query.x}/evil.test", "", "https:/evil.test"),
            ("https://a.test/{query.x}/b", "", "https://a.test//b"),
        ] {
            assert_eq!(reference(text, value).as_deref(), Some(expected), "{text} with {value:?}");
        }
        for (text, value) in [("/a/{query.x}/b", ".."), ("{query.x}", "."), ("https://{host}/a", ""), ("//{host}", "")]
        {
            assert_eq!(reference(text, value), None, "{text} with {value:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_a_host(value in "[/.:?#@a\\\\%]{0,6}") {
            struct Any(String);
            impl Variables for Any {
                fn write(&self, _: &Variable, out: &mut Vec<u8>) {
                    out.extend_from_slice(self.0.as_bytes());
                }
            }
            for text in ["{query.x}", "/{query.x}/{header.x}", "{query.x}/{query.x}", "/a{query.x}?{query.x}"] {
                let template = Template::parse(text, &[]).unwrap();
                if let Some(out) = template.render_reference(&Any(value.clone())) {
                    assert!(!out.starts_with(b"//") && !out.contains(&b':') && !out.contains(&b'\\'), "{out:?}");
                }
            }
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let wrong = |text: &str| Template::parse(text, &["id".into()]).unwrap_err();
        assert!(wrong("{client.pi}").contains("did you mean `{client.ip}`?"));
        assert!(wrong("{path.ix}").contains("captures id"));
        assert!(wrong("{").contains("without a `}`"));
        assert!(wrong("}").contains("without a `{`"));
        assert!(wrong("{header.a b}").contains("not the name of a header field"));
    }
}
