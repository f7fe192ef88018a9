//! `version` of an `[api.NAME]`: which version of an API it is, and what becomes of that.
//!
//! ```toml
//! [api.shop-v1]
//! base_path = "/shop"
//! version   = { name = "v1", deprecated = "2026-06-01", sunset = "2026-12-31", successor = "v2", after = "gone" }
//! ```
//!
//! Tables with the same hosts, listeners and base path are the versions of one API. A request names one by its path
//! (`/shop/v1`), a header field, a query parameter or a media type that it accepts: [`By`]. In a header field, a parameter
//! and a media type the `v` of a name may be left out.
//!
//! The answers of a version say when it was deprecated (`Deprecation`, RFC 9745), when it ends (`Sunset`, RFC 8594) and
//! where its successor has the same resource (`Link`, RFC 5829), the gateway's own answers among them. Once it has ended it
//! is served on, unless `after` says that it is gone (410) or leads to its successor (308).
//!
//! The policy runs behind `cors`, so that browsers may see what it answers, and before all others.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ACCEPT, LINK, LOCATION, VARY};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Policy, Scope, Verdict};
use crate::build::{Build, Node, Value};
use crate::clock::Clock;
use crate::facts::{Facts, RequestView};
use crate::reply::Reply;
use crate::types::{Date, weighted};

/// `version` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Where requests name it.
    #[serde(default)]
    pub by: ByConfig,
    /// Whether it is for requests that name none.
    #[serde(default)]
    pub default: bool,
    /// From when it is there.
    pub from: Option<Date>,
    /// From when it is not to be used any more.
    pub deprecated: Option<Date>,
    /// Until when it is there.
    pub sunset: Option<Date>,
    /// The version to use in its place.
    pub successor: Option<String>,
    /// What becomes of requests after its end.
    #[serde(default)]
    pub after: After,
}

/// `by` as it is written.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ByConfig {
    /// The first segment below the base path.
    #[default]
    Path,
    /// A header field.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A media type in `Accept`, with `{version}` where the name stands.
    MediaType(String),
}

/// What becomes of requests after the end of a version.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// They are served as before: a date in a header field is an announcement, and takes nothing away.
    #[default]
    Serve,
    /// A 410.
    Gone,
    /// A 308 to the successor.
    Redirect,
}

/// Where requests name a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The first segment below the base path.
    Path,
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(Box<str>),
    /// A media type in `Accept`: what stands before and after the name, in lower case.
    MediaType(Box<str>, Box<str>),
}

/// The versions of one API, and how requests name them.
#[derive(Debug)]
pub struct Naming {
    by: By,
    /// The base path of all of them, empty where there is none.
    base: Box<str>,
    versions: Box<[Known]>,
    /// The version of requests that name none.
    default: Option<usize>,
    clock: Clock,
}

#[derive(Debug)]
struct Known {
    name: Box<str>,
    from: Option<Date>,
    /// Its end, if it is not served behind that.
    until: Option<Date>,
}

/// What a request says of its version.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Nothing,
    Version(usize),
    Unknown(String),
}

/// The compiled policy.
#[derive(Clone)]
pub struct Version(Arc<Own>);

struct Own {
    naming: Arc<Naming>,
    /// Which of the versions it is.
    index: usize,
    /// What its paths begin with.
    prefix: Box<str>,
    /// Whether its requests are led to its successor after its end.
    redirects: bool,
    /// What its answers say.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// What its answers depend on.
    vary: Option<HeaderValue>,
    successor: Option<Successor>,
}

struct Successor {
    name: Box<str>,
    /// What its paths begin with.
    prefix: Box<str>,
    /// What `Link` says of it.
    parameters: Box<str>,
}

/// Characters of a name that nothing has, as they are shown.
const MOST_SHOWN: usize = 64;

impl By {
    /// Compiles `by`, at `version` of the table at hand; `None` after a mistake in it was reported.
    pub fn compile(config: &ByConfig, name: &str, build: &mut Build<'_>) -> Option<Self> {
        match config {
            ByConfig::Path => Some(Self::Path),
            ByConfig::Query(parameter) => Some(Self::Query(parameter.as_str().into())),
            ByConfig::Header(field) => match field.parse() {
                Ok(field) => Some(Self::Header(field)),
                Err(_) => {
                    build.error("version.by.header", format!("`{field}` is not the name of a header field"));
                    None
                }
            },
            ByConfig::MediaType(text) => match text.to_ascii_lowercase().split_once("{version}") {
                Some((before, after)) if before.contains('/') && !after.contains(['{', ',', ';']) => {
                    Some(Self::MediaType(before.into(), after.into()))
                }
                _ => {
                    build
                        .error(
                            "version.by.media_type",
                            "the media type does not say where the name of a version stands",
                        )
                        .help(match text.contains(name) {
                            true => format!("write \"{}\"", text.replacen(name, "{version}", 1)),
                            false => "write \"application/vnd.acme.{version}+json\"".to_owned(),
                        });
                    None
                }
            },
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Header(_) | Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::MediaType(..) => StatusCode::NOT_ACCEPTABLE,
        }
    }
}

impl Naming {
    /// The versions of one API, below a base path.
    pub fn new(by: By, base: &str, configs: &[&Config]) -> Self {
        let known = |config: &&Config| Known {
            name: config.name.as_str().into(),
            from: config.from,
            until: config.sunset.filter(|_| config.after != After::Serve),
        };
        Self {
            by,
            base: base.into(),
            versions: configs.iter().map(known).collect(),
            default: configs.iter().position(|config| config.default),
            clock: Clock::system(),
        }
    }

    /// Whether requests name it by their path, so that paths alone tell the versions apart.
    pub fn is_by_path(&self) -> bool {
        self.by == By::Path
    }

    /// Whether a request is for a version, by what it says beside its path.
    pub fn takes(&self, version: usize, request: &RequestView<'_>) -> bool {
        match self.named(request) {
            Named::Version(named) => named == version,
            Named::Nothing => self.default == Some(version),
            Named::Unknown(_) => false,
        }
    }

    /// What a request must say to be for a version, in words.
    pub fn example(&self, version: usize) -> String {
        let name = self.name(version);
        match &self.by {
            By::Path => format!("the version `{name}` in the path"),
            By::Header(field) => format!("the version `{name}` in the header {field}"),
            By::Query(parameter) => format!("the version `{name}` in the parameter {parameter}"),
            By::MediaType(before, after) => format!("the media type {before}{name}{after} in Accept"),
        }
    }

    /// The answer to a request that no route takes, if that is since it names a version that is not there, or none where
    /// one must be named.
    pub fn refusal(&self, request: &RequestView<'_>) -> Option<Reply> {
        match self.named(request) {
            Named::Unknown(name) => Some(self.refuse(&format!("there is no version `{name}`"))),
            Named::Nothing if self.default.is_none() && !self.is_by_path() => {
                Some(self.refuse("the request names no version"))
            }
            _ => None,
        }
    }

    fn refuse(&self, why: &str) -> Reply {
        let now = self.clock.date();
        let is_there = |known: &&Known| {
            known.from.is_none_or(|from| from.0 <= now) && known.until.is_none_or(|until| now < until.0)
        };
        let there = self.versions.iter().filter(is_there);
        let names: Vec<String> = there.map(|known| format!("`{}`", known.name)).collect();
        let detail = match names.as_slice() {
            [] => why.to_owned(),
            [name] => format!("{why}: there is {name}"),
            names => format!("{why}: there are {}", names.join(", ")),
        };
        Reply { status: self.by.status(), ..Reply::unknown_version(detail) }
    }

    fn named(&self, request: &RequestView<'_>) -> Named {
        match &self.by {
            By::Path => self.in_path(request.path),
            By::Header(field) => {
                let lines = request.headers.get_all(field).iter();
                self.in_values(lines.map(|line| String::from_utf8_lossy(line.as_bytes())))
            }
            By::Query(parameter) => {
                let pairs = form_urlencoded::parse(request.query.unwrap_or("").as_bytes());
                self.in_values(pairs.filter(|(name, _)| **name == **parameter).map(|(_, value)| value))
            }
            By::MediaType(before, after) => {
                let lines = request.headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
                self.in_accept(lines, before, after)
            }
        }
    }

    /// A segment that is no version may be anything, unless it looks like one.
    fn in_path(&self, path: &str) -> Named {
        let below = path.strip_prefix(&*self.base).and_then(|rest| rest.strip_prefix('/'));
        let segment = below.and_then(|rest| rest.split('/').next()).unwrap_or("");
        match self.versions.iter().position(|known| *known.name == *segment) {
            Some(version) => Named::Version(version),
            None if plain(segment).starts_with(|c: char| c.is_ascii_digit()) => Named::Unknown(shown(segment)),
            None => Named::Nothing,
        }
    }

    /// Values that say different things say nothing that is known.
    fn in_values<'v>(&self, values: impl Iterator<Item = Cow<'v, str>>) -> Named {
        let mut named = Named::Nothing;
        for value in values {
            let value = value.trim();
            let this = match self.position(value) {
                Some(version) => Named::Version(version),
                None if value.is_empty() => continue,
                None => return Named::Unknown(shown(value)),
            };
            if named != Named::Nothing && named != this {
                return Named::Unknown(shown(value));
            }
            named = this;
        }
        named
    }

    /// The version that is preferred (RFC 9110, section 12.5.1); of several the first.
    fn in_accept<'v>(&self, lines: impl Iterator<Item = &'v str>, before: &str, after: &str) -> Named {
        let (mut named, mut best) = (Named::Nothing, 0);
        for (media_type, weight) in lines.flat_map(|line| weighted(line.as_bytes())) {
            let media_type = String::from_utf8_lossy(media_type).to_ascii_lowercase();
            let Some(name) = media_type.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) else {
                continue;
            };
            match self.position(name) {
                Some(version) if weight > best => (named, best) = (Named::Version(version), weight),
                None if weight > 0 && named == Named::Nothing => named = Named::Unknown(shown(name)),
                _ => {}
            }
        }
        named
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.versions.iter().position(|known| is_same(&known.name, name))
    }

    fn name(&self, version: usize) -> &str {
        self.versions.get(version).map_or("", |known| &known.name)
    }
}

/// Whether two names are one to requests: `v2` and `2`, in either case.
pub fn is_same(a: &str, b: &str) -> bool {
    plain(a).eq_ignore_ascii_case(plain(b))
}

/// A name without the `v` before its number.
fn plain(name: &str) -> &str {
    match name.strip_prefix(['v', 'V']) {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => name,
    }
}

fn shown(name: &str) -> String {
    name.chars().take(MOST_SHOWN).collect()
}

impl Version {
    /// The version at a position of a naming, where its paths begin with `prefix`.
    pub fn new(naming: &Arc<Naming>, index: usize, prefix: &str, config: &Config) -> Self {
        let mut fields = Vec::new();
        let mut say = |name: &'static str, value: String| {
            fields.extend(HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value)));
        };
        if let Some(date) = config.deprecated {
            say("deprecation", format!("@{}", date.0));
        }
        if let Some(date) = config.sunset {
            say("sunset", date.http());
        }
        let vary = match &naming.by {
            By::Path | By::Query(_) => None,
            By::Header(field) => HeaderValue::from_str(field.as_str()).ok(),
            By::MediaType(..) => Some(HeaderValue::from_static("accept")),
        };
        let successor = config.successor.as_ref().map(|name| Successor {
            name: name.as_str().into(),
            prefix: match naming.by {
                By::Path => format!("{}/{name}", naming.base).into(),
                _ => naming.base.clone(),
            },
            parameters: match &naming.by {
                By::Path | By::Query(_) => r#"; rel="successor-version""#.into(),
                By::Header(_) => format!(r#"; rel="successor-version"; title="{name}""#).into(),
                By::MediaType(before, after) => {
                    format!(r#"; rel="successor-version"; type="{before}{name}{after}""#).into()
                }
            },
        });
        let own = Own {
            naming: naming.clone(),
            index,
            prefix: prefix.into(),
            redirects: config.after == After::Redirect,
            fields,
            vary,
            successor,
        };
        Self(Arc::new(own))
    }
}

impl Policy for Version {
    /// It is compiled with its API.
    type Config = IgnoredAny;

    /// A text is the name.
    fn long(short: &Node) -> Option<Node> {
        matches!(short.value, Value::String(_)).then(|| short.clone().under("name"))
    }

    fn compile(_: IgnoredAny, scope: &Scope<'_>, _: &mut Build<'_>) -> Option<Self> {
        scope.version.cloned()
    }

    async fn request(&self, request: &mut RequestHeader, _: &mut Facts) -> Verdict {
        let own = &*self.0;
        let Some(Known { name, from, until }) = own.naming.versions.get(own.index) else { return Ok(()) };
        if from.is_none() && until.is_none() {
            return Ok(());
        }
        let now = own.naming.clock.date();
        if let Some(from) = from.filter(|from| now < from.0) {
            return Err(own.naming.refuse(&format!("the version `{name}` is there from {from} on")));
        }
        let Some(end) = until.filter(|until| now >= until.0) else { return Ok(()) };
        if own.redirects
            && let Some(to) = own.at_successor(request).and_then(|to| HeaderValue::try_from(to).ok())
        {
            return Err(Reply::new(StatusCode::PERMANENT_REDIRECT).with(LOCATION, to));
        }
        let use_other = own.successor.as_ref().map(|successor| format!(": use `{}`", successor.name));
        Err(Reply::gone(format!("the version `{name}` was there until {end}{}", use_other.unwrap_or_default())))
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, _: &Facts) {
        let own = &*self.0;
        for (name, value) in &own.fields {
            let _ = head.insert_header(name.clone(), value.clone());
        }
        if let Some(vary) = &own.vary {
            let _ = head.append_header(VARY, vary.clone());
        }
        if let Some((to, successor)) = own.at_successor(request).zip(own.successor.as_ref())
            && let Ok(link) = HeaderValue::try_from(format!("<{to}>{}", successor.parameters))
        {
            let _ = head.append_header(LINK, link);
        }
    }
}

impl Own {
    /// Where the successor has what a request is for: a path and its query.
    fn at_successor(&self, request: &RequestHeader) -> Option<String> {
        let successor = self.successor.as_ref()?;
        let rest = request.uri.path().strip_prefix(&*self.prefix)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let mut to = format!("{}{rest}", successor.prefix);
        if to.is_empty() {
            to.push('/');
        }
        let mut separator = '?';
        let mut add = |pair: &str| {
            to.push(separator);
            to.push_str(pair);
            separator = '&';
        };
        let names = |pair: &str, parameter: &str| {
            form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| *name == *parameter)
        };
        let parameter = match &self.naming.by {
            By::Query(parameter) => Some(&**parameter),
            _ => None,
        };
        for pair in request.uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            if parameter.is_none_or(|parameter| !names(pair, parameter)) {
                // It would end the reference of a `Link`.
                add(&pair.replace('>', "%3E"));
            }
        }
        if let Some(parameter) = parameter {
            let mut pair = form_urlencoded::Serializer::new(String::new());
            add(&pair.append_pair(parameter, &successor.name).finish());
        }
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(name: &str) -> Config {
        Config {
            name: name.to_owned(),
            by: ByConfig::Path,
            default: false,
            from: None,
            deprecated: None,
            sunset: None,
            successor: None,
            after: After::Serve,
        }
    }

    fn naming(by: By, base: &str, default: bool) -> Naming {
        let configs = [Config { default, ..config("v1") }, config("v2"), config("2026-01-01")];
        Naming::new(by, base, &configs.each_ref())
    }

    fn get(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn named(naming: &Naming, request: &RequestHeader) -> Named {
        naming.named(&RequestView::of(request, "a.test", &Facts::of_client("192.0.2.1")))
    }

    #[test]
    fn a_header_field_names_one_version() {
        let naming = naming(By::Header("x-api-version".parse().unwrap()), "", false);
        let named = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("x-api-version", *value)).collect();
            named(&naming, &get("/", &fields))
        };
        assert_eq!(named(&[]), Named::Nothing);
        assert_eq!(named(&[""]), Named::Nothing);
        assert_eq!((named(&["2"]), named(&[" V2 "])), (Named::Version(1), Named::Version(1)));
        assert_eq!((named(&["2026-01-01"]), named(&["v2026-01-01"])), (Named::Version(2), Named::Version(2)));
        assert_eq!(named(&["2", "v2"]), Named::Version(1));
        assert_eq!(named(&["2", "1"]), Named::Unknown("1".into()));
        assert_eq!(named(&["2, 1"]), Named::Unknown("2, 1".into()));
        assert_eq!(named(&["9"]), Named::Unknown("9".into()));
    }

    #[test]
    fn a_parameter_names_one_version() {
        let naming = naming(By::Query("version".into()), "", true);
        let named = |target: &str| named(&naming, &get(target, &[]));
        assert_eq!(named("/?a=version&version=2"), Named::Version(1));
        assert_eq!(named("/?version=%32&version=2"), Named::Version(1));
        assert_eq!(named("/?version=1&version=2"), Named::Unknown("2".into()));
        assert_eq!((named("/"), named("/?version")), (Named::Nothing, Named::Nothing));
    }

    #[test]
    fn the_preferred_media_type_names_the_version() {
        let naming = naming(By::MediaType("application/vnd.acme.".into(), "+json".into()), "", true);
        let named = |accept: &str| named(&naming, &get("/", &[("accept", accept)]));
        assert_eq!(named("*/*"), Named::Nothing);
        assert_eq!(named("application/vnd.acme.v2+json"), Named::Version(1));
        assert_eq!(named("text/html, Application/Vnd.Acme.2+JSON; charset=utf-8"), Named::Version(1));
        assert_eq!(named("application/vnd.acme.v1+json;q=0.5, application/vnd.acme.v2+json; q=0.9"), Named::Version(1));
        assert_eq!(named("application/vnd.acme.v9+json, application/vnd.acme.v1+json;q=0.1"), Named::Version(0));
        assert_eq!(named("application/vnd.acme.v1+json, application/vnd.acme.v9+json"), Named::Version(0));
        assert_eq!(named("application/vnd.acme.v9+json"), Named::Unknown("v9".into()));
        assert_eq!(named("application/vnd.acme.v1+json;q=0"), Named::Nothing);
        assert_eq!(named("application/vnd.acme.v1+xml"), Named::Nothing);
    }

    #[test]
    fn a_path_names_a_version_by_its_own_name() {
        let naming = naming(By::Path, "/shop", true);
        let named = |target: &str| named(&naming, &get(target, &[]));
        assert_eq!((named("/shop/v2/x"), named("/shop/v2")), (Named::Version(1), Named::Version(1)));
        assert_eq!(named("/shop/v9/x"), Named::Unknown("v9".into()));
        assert_eq!(named("/shop/2/x"), Named::Unknown("2".into()));
        assert_eq!(
            (named("/shop/users"), named("/shop"), named("/v1")),
            (Named::Nothing, Named::Nothing, Named::Nothing)
        );
    }

    async fn ask(version: &Version, target: &str) -> (Verdict, ResponseHeader) {
        let (mut request, mut facts) = (get(target, &[]), Facts::of_client("192.0.2.1"));
        let verdict = version.request(&mut request, &mut facts).await;
        let mut head = ResponseHeader::build(200, None).unwrap();
        version.response(&mut head, &request, &facts);
        (verdict, head)
    }

    #[tokio::test]
    async fn a_version_has_its_time() {
        let clock = Clock::fake();
        let first = Config {
            from: Some(Date(1000)),
            deprecated: Some(Date(2000)),
            sunset: Some(Date(3000)),
            successor: Some("v2".into()),
            after: After::Gone,
            ..config("v1")
        };
        let configs = [&first, &config("v2")];
        let naming = Arc::new(Naming { clock: clock.clone(), ..Naming::new(By::Path, "/shop", &configs) });
        let version = Version::new(&naming, 0, "/shop/v1", &first);
        let early = ask(&version, "/shop/v1/x").await.0.unwrap_err();
        let detail = early.problem.unwrap().detail.clone();
        assert_eq!(early.status, 404);
        assert!(
            detail.contains("is there from 1970-01-01T00:16:40Z on") && detail.ends_with("there is `v2`"),
            "{detail}"
        );
        clock.advance(Duration::from_secs(1000));
        let (verdict, head) = ask(&version, "/shop/v1/x?a=1").await;
        assert!(verdict.is_ok());
        assert_eq!(head.headers["deprecation"], "@2000");
        assert_eq!(head.headers["sunset"], "Thu, 01 Jan 1970 00:50:00 GMT");
        assert_eq!(head.headers["link"], "</shop/v2/x?a=1>; rel=\"successor-version\"");
        clock.advance(Duration::from_secs(1999));
        assert!(ask(&version, "/shop/v1/x").await.0.is_ok());
        clock.advance(Duration::from_secs(1));
        let gone = ask(&version, "/shop/v1/x").await.0.unwrap_err();
        assert_eq!((gone.status.as_u16(), gone.problem.unwrap().kind), (410, "gone"));
        let led = Version::new(&naming, 0, "/shop/v1", &Config { after: After::Redirect, ..first });
        let reply = ask(&led, "/shop/v1/x?a=1").await.0.unwrap_err();
        assert_eq!(reply.status, 308);
        assert_eq!(reply.headers, [(LOCATION, HeaderValue::from_static("/shop/v2/x?a=1"))]);
    }

    #[tokio::test]
    async fn the_successor_of_a_parameter_is_in_the_parameter() {
        let first = Config { successor: Some("v2".into()), ..config("v1") };
        let naming = Arc::new(Naming::new(By::Query("version".into()), "", &[&first, &config("v2")]));
        let version = Version::new(&naming, 0, "", &first);
        let link = |head: &ResponseHeader| head.headers["link"].to_str().unwrap().to_owned();
        assert_eq!(
            link(&ask(&version, "/x?version=1&a=%3E").await.1),
            "</x?a=%3E&version=v2>; rel=\"successor-version\""
        );
        let naming = Arc::new(Naming::new(By::Header("x-v".parse().unwrap()), "", &[&first, &config("v2")]));
        let head = ask(&Version::new(&naming, 0, "", &first), "/x").await.1;
        assert_eq!(link(&head), "</x>; rel=\"successor-version\"; title=\"v2\"");
        assert_eq!(head.headers["vary"], "x-v");
    }
}
