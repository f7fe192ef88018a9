//! `Cache-Control` and the fields that are aimed at a gateway: what they say, read strictly where it matters.
//!
//! What is given twice counts as the stricter of the two (RFC 9111, section 4.2.1, lets a cache choose); an age that is
//! no number counts as none at all, so that what it is to keep fresh is stale. What is not known is skipped.
//!
//! A field that is aimed at caches like this one, `CDN-Cache-Control`, is a dictionary of structured fields (RFC 8941)
//! and stands for `Cache-Control` and `Expires` together; one that is malformed or empty is not there (RFC 9213,
//! section 2.1).

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, ListEntry, Parser};

/// What is aimed at gateways (RFC 9213, section 3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// No answer is fresh for longer, whatever it says: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86400);

/// What a request or a response says of its storage and reuse (RFC 9111, section 5.2).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directives {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache`, without names of fields.
    pub no_cache: bool,
    /// `private`, without names of fields.
    pub private: bool,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `max-age`
    pub max_age: Option<Duration>,
    /// `s-maxage`
    pub s_maxage: Option<Duration>,
    /// `min-fresh`
    pub min_fresh: Option<Duration>,
    /// `max-stale`; without a value it is forever.
    pub max_stale: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861, section 3)
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861, section 4)
    pub stale_if_error: Option<Duration>,
    /// The fields that `private="…"` and `no-cache="…"` name: they are not for others.
    pub withheld: Vec<HeaderName>,
}

impl Directives {
    /// What a request says: `Pragma: no-cache` too, where it has no `Cache-Control` (RFC 9111, section 5.4).
    pub fn of_request(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        found.read(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            found.no_cache = headers.get_all(PRAGMA).iter().any(|value| {
                value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
            });
        }
        found
    }

    /// What a response says, and whether it says that to caches like this one alone, so that `Expires` says nothing.
    pub fn of_response(headers: &HeaderMap) -> (Self, bool) {
        if let Some(targeted) = targeted(headers) {
            return (targeted, true);
        }
        let mut found = Self::default();
        found.read(headers);
        (found, false)
    }

    fn read(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(CACHE_CONTROL) {
            for (name, argument) in Scanner(value.as_bytes()) {
                self.add(name, argument.as_deref());
            }
        }
    }

    fn add(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.restrict(argument, |found| &mut found.no_cache);
        } else if is("private") {
            self.restrict(argument, |found| &mut found.private);
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            lower(&mut self.max_age, seconds(argument));
        } else if is("s-maxage") {
            lower(&mut self.s_maxage, seconds(argument));
        } else if is("min-fresh") {
            let wanted = seconds(argument);
            self.min_fresh = Some(self.min_fresh.map_or(wanted, |before| before.max(wanted)));
        } else if is("max-stale") {
            lower(&mut self.max_stale, argument.map_or(FOREVER, |argument| seconds(Some(argument))));
        } else if is("stale-while-revalidate") {
            lower(&mut self.stale_while_revalidate, seconds(argument));
        } else if is("stale-if-error") {
            lower(&mut self.stale_if_error, seconds(argument));
        }
    }

    /// A directive that is about some fields, or about the whole where it names none.
    fn restrict(&mut self, argument: Option<&[u8]>, whole: impl FnOnce(&mut Self) -> &mut bool) {
        let names: Option<Vec<HeaderName>> = argument.and_then(|names| {
            names.split(|b| *b == b',').map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
        });
        match names {
            Some(names) if !names.is_empty() => self.withheld.extend(names),
            // Names that are none: better too strict.
            _ => *whole(self) = true,
        }
    }
}

/// The dictionary that is aimed at gateways, if it is there and sound.
fn targeted(headers: &HeaderMap) -> Option<Directives> {
    let mut fields = headers.get_all(CDN_CACHE_CONTROL).iter().map(HeaderValue::as_bytes).peekable();
    fields.peek()?;
    let whole = fields.collect::<Vec<_>>().join(&b", "[..]);
    let dictionary = Parser::parse_dictionary(&whole).ok().filter(|dictionary| !dictionary.is_empty())?;
    let mut found = Directives::default();
    for (name, entry) in &dictionary {
        let ListEntry::Item(item) = entry else { continue };
        match &item.bare_item {
            BareItem::Boolean(false) => {}
            BareItem::Boolean(true) => found.add(name.as_bytes(), None),
            BareItem::Integer(number) => found.add(name.as_bytes(), Some(number.to_string().as_bytes())),
            BareItem::String(text) | BareItem::Token(text) => found.add(name.as_bytes(), Some(text.as_bytes())),
            // Of another type: for an age it is no number.
            _ => found.add(name.as_bytes(), Some(b"")),
        }
    }
    Some(found)
}

fn lower(age: &mut Option<Duration>, to: Duration) {
    *age = Some(age.map_or(to, |before| before.min(to)));
}

/// `delta-seconds` (RFC 9111, section 1.2.2): as large as it may be, and nothing where it is no number.
fn seconds(argument: Option<&[u8]>) -> Duration {
    match argument {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
            number.map_or(FOREVER, |number| Duration::from_secs(number).min(FOREVER))
        }
        _ => Duration::ZERO,
    }
}

/// The directives of a field: names, and their arguments without quotes.
struct Scanner<'v>(&'v [u8]);

impl<'v> Iterator for Scanner<'v> {
    type Item = (&'v [u8], Option<Vec<u8>>);

    fn next(&mut self) -> Option<Self::Item> {
        let skipped = self.0.iter().position(|b| !b", \t".contains(b))?;
        self.0 = &self.0[skipped..];
        let name = self.take_until(b"=,");
        let mut argument = None;
        if self.0.first() == Some(&b'=') {
            self.0 = self.0[1..].trim_ascii_start();
            argument = Some(match self.0.first() {
                Some(b'"') => self.quoted(),
                _ => self.take_until(b",").trim_ascii().to_vec(),
            });
            // What stands behind a quoted string is not a part of anything.
            self.take_until(b",");
        }
        Some((name.trim_ascii(), argument))
    }
}

impl<'v> Scanner<'v> {
    fn take_until(&mut self, ends: &[u8]) -> &'v [u8] {
        let end = self.0.iter().position(|b| ends.contains(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// The text of a quoted string (RFC 9110, section 5.6.4); one without its end goes to the end of the field.
    fn quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut bytes = self.0.iter().enumerate().skip(1);
        let mut end = self.0.len();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = at + 1;
                    break;
                }
                b'\\' => text.extend(bytes.next().map(|(_, byte)| *byte)),
                byte => text.push(*byte),
            }
        }
        self.0 = &self.0[end..];
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> Directives {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Directives::of_response(&headers).0
    }

    fn secs(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn directives_are_read_in_any_case_and_order() {
        let found =
            of(&[("cache-control", "Public , MAX-age=60,  s-maxage=\"5\",unknown=\"a, no-store\", must-understand")]);
        assert!(found.public && found.must_understand && !found.no_store);
        assert_eq!((found.max_age, found.s_maxage), (secs(60), secs(5)));
    }

    #[test]
    fn the_stricter_of_two_counts() {
        let found = of(&[("cache-control", "max-age=60, max-age=5"), ("cache-control", "max-age=90")]);
        assert_eq!(found.max_age, secs(5));
        assert!(of(&[("cache-control", "private=\"x-a\", private")]).private);
        assert!(of(&[("cache-control", "private, private=\"x-a\"")]).private);
    }

    #[test]
    fn an_age_that_is_no_number_keeps_nothing_fresh() {
        for text in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age = \"\"", "max-age=1 2"] {
            assert_eq!(of(&[("cache-control", text)]).max_age, secs(0), "{text}");
        }
        assert_eq!(of(&[("cache-control", "max-age=99999999999999999999999")]).max_age, Some(FOREVER));
        assert_eq!(of(&[("cache-control", "max-age = 7")]).max_age, secs(7));
    }

    #[test]
    fn fields_are_withheld_and_names_that_are_none_are_all() {
        let found = of(&[("cache-control", "private=\"X-A, set-cookie\", no-cache=x-b")]);
        assert!(!found.private && !found.no_cache);
        assert_eq!(found.withheld, ["x-a", "set-cookie", "x-b"]);
        assert!(of(&[("cache-control", "no-cache=\"a b\"")]).no_cache);
        assert!(of(&[("cache-control", "private=\"\"")]).private);
    }

    #[test]
    fn a_targeted_field_stands_for_all_others() {
        let found = of(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60, must-revalidate")]);
        assert!(!found.no_store && found.must_revalidate);
        assert_eq!(found.max_age, secs(60));
        // Malformed or empty: it is not there.
        for text in ["max-age=60;=", "", "MAX-AGE=60"] {
            assert!(of(&[("cache-control", "no-store"), ("cdn-cache-control", text)]).no_store, "{text}");
        }
        assert_eq!(of(&[("cdn-cache-control", "max-age=1.5")]).max_age, secs(0));
        assert!(!of(&[("cdn-cache-control", "no-store=?0, max-age=1")]).no_store);
    }

    #[test]
    fn what_a_client_says() {
        let request = |name: &'static str, value: &'static str| {
            Directives::of_request(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]))
        };
        assert!(request("pragma", "x, No-Cache").no_cache);
        assert_eq!(request("cache-control", "max-stale").max_stale, Some(FOREVER));
        assert_eq!(request("cache-control", "min-fresh=5, min-fresh=9").min_fresh, secs(9));
    }
}
