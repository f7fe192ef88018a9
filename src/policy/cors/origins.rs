//! Which origins may use a route.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::build::Build;

/// `origins` as it is written.
pub enum Config {
    /// `"*"`
    Any,
    /// A list of origins and patterns.
    These(Vec<String>),
}

/// The origins that may use a route.
pub enum Origins {
    /// Every one.
    Any,
    /// These, and none else.
    These {
        /// As browsers write them.
        exact: HashSet<Box<[u8]>>,
        /// `https://*.example.com:8443`: what stands before and after the star.
        wild: Vec<Ends>,
    },
}

/// What stands before a star, and what after it.
type Ends = (Box<[u8]>, Box<[u8]>);

impl Origins {
    /// `None` after every mistake was reported.
    pub fn compile(config: &Config, build: &mut Build<'_>) -> Option<Self> {
        let Config::These(texts) = config else { return Some(Self::Any) };
        let before = build.errors();
        if texts.is_empty() {
            build.error("origins", "no page could use the route").help("name an origin, or leave `cors` out");
        }
        let (mut exact, mut wild) = (HashSet::new(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok((origin, None)) => drop(exact.insert(origin.into_bytes().into())),
                Ok((scheme, Some(rest))) => wild.push((scheme.into_bytes().into(), rest.into_bytes().into())),
                Err((message, help)) => drop(build.error(&format!("origins[{i}]"), message).help(help)),
            }
        }
        (build.errors() == before).then_some(Self::These { exact, wild })
    }

    /// Whether an origin is one of them. Browsers write scheme and host in lower case.
    pub fn contains(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::These { exact, wild } => {
                exact.contains(origin)
                    || wild.iter().any(|(before, after)| {
                        let labels = origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                        labels.is_some_and(is_labels)
                    })
            }
        }
    }
}

/// One or more labels of a host: nothing that could end the host and begin something else.
fn is_labels(text: &[u8]) -> bool {
    let label = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b))
    };
    text.split(|b| *b == b'.').all(label)
}

/// An origin; or what stands before and after its star.
fn parse(text: &str) -> Result<(String, Option<String>), (String, String)> {
    let hint = || "an origin is a scheme and a host, such as \"https://app.example.com\"".to_owned();
    let wrong = |message: String| Err((message, hint()));
    if text == "*" {
        return Err(("a list names origins".to_owned(), "write origins = \"*\" for all of them".to_owned()));
    }
    if text == "null" {
        let message = "`null` is the origin of sandboxed pages, which anybody can make".to_owned();
        return Err((message, "serve the page from an origin of its own".to_owned()));
    }
    let lower = text.to_ascii_lowercase();
    let Some((scheme, host)) = lower.split_once("://") else {
        return wrong(format!("`{text}` is not an origin"));
    };
    let (star, name) = match host.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, host),
    };
    if let Some(bare) = text.strip_suffix('/') {
        return Err((format!("`{text}` has a path, and an origin has none"), format!("write \"{bare}\"")));
    }
    let sound = name.parse::<http::uri::Authority>().is_ok_and(|authority| authority.as_str() == name);
    let scheme_is_sound = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if scheme.is_empty() || !scheme_is_sound || !sound || name.contains(['*', '@']) {
        return wrong(format!("`{text}` is not an origin"));
    }
    let default = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "/",
    };
    if name.ends_with(default) {
        let shorter = &text[..text.len() - default.len()];
        return Err((format!("browsers leave `{default}` out of an origin"), format!("write \"{shorter}\"")));
    }
    Ok(match star {
        true => (format!("{scheme}://"), Some(format!(".{name}"))),
        false => (lower, None),
    })
}

impl<'de> de::Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OriginsVisitor;
        impl<'de> Visitor<'de> for OriginsVisitor {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of origins such as [\"https://app.example.com\"], or \"*\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Config, E> {
                Ok(if text == "*" { Config::Any } else { Config::These(vec![text.to_owned()]) })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Config, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(Config::These(texts))
            }
        }
        deserializer.deserialize_any(OriginsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Sources;

    fn origins(texts: &[&str]) -> Origins {
        let mut sources = Sources::default();
        let (root, _) = sources.parse("x.toml", "");
        let config = Config::These(texts.iter().map(|text| (*text).to_owned()).collect());
        Origins::compile(&config, &mut Build::new(&sources, &root)).unwrap()
    }

    #[test]
    fn an_origin_is_matched_as_a_whole() {
        let origins = origins(&["https://App.example.com", "https://*.example.com", "http://*.test:8080", "app://x"]);
        for allowed in ["https://app.example.com", "https://a.b.example.com", "http://a.test:8080", "app://x"] {
            assert!(origins.contains(allowed.as_bytes()), "{allowed}");
        }
        for refused in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://evil.com/.example.com",
            "https://evil.com:1.example.com",
            "https://user@a.example.com",
            "https://evilexample.com",
            "https://app.example.com.evil.com",
            "http://a.test",
            "null",
            "",
        ] {
            assert!(!origins.contains(refused.as_bytes()), "{refused}");
        }
    }
}
