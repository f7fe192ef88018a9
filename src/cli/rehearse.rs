//! A request in words, from the file or the command line, and what the gateway would do with it.
//!
//! `GET /users/7` comes for the host `localhost`; `GET https://api.example.com/users/7` names host and scheme. The
//! request is written as HTTP/1.1 and held to what a listener holds its requests to, then goes through the gateway.
//! It comes by the listener that is named, or by the first in the file (for an absolute URL: the first that has, or
//! has not, TLS). `client` is who connects: a trusted proxy, where one is to be believed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};

use crate::build::Node;
use crate::facts::{Connection, Tls};
use crate::gateway::Gateway;
use crate::http1::{is_token, parse_request};
use crate::proxy::Outcome;
use crate::server::head;
use crate::server::listener::{Address, ListenerSpec};

/// A request in words.
pub(super) struct Question {
    method: String,
    /// Where the request is for, if it says so.
    origin: Option<Origin>,
    /// The target in origin form.
    target: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Option<Bytes>,
    client: Option<IpAddr>,
    listener: Option<String>,
    /// Claims of the caller that are taken for true.
    assumed: Option<serde_json::Map<String, serde_json::Value>>,
}

struct Origin {
    tls: bool,
    authority: String,
}

/// What is wrong with a question.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The part of it: `request`, `headers.NAME`, `listener`.
    pub(super) key: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// What would become of a request, and how it came.
pub(super) struct Rehearsed {
    pub(super) outcome: Outcome,
    pub(super) listener: String,
    /// Who connects.
    pub(super) peer: Option<IpAddr>,
    /// The request in short, with what the question left out.
    pub(super) url: String,
    /// What is not as it would be for a client.
    pub(super) notes: Vec<String>,
}

impl Question {
    /// Understands a request such as `GET /users/7`.
    pub(super) fn new(request: &str, client: Option<IpAddr>, listener: Option<String>) -> Result<Self, Wrong> {
        let mut words = request.split_whitespace();
        let (Some(method), Some(target), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("request", format!("`{request}` is not a method and a target"))
                .help("write \"GET /users/7\" or \"GET https://api.example.com/users/7\""));
        };
        let upper = method.to_ascii_uppercase();
        if method != upper || !method.bytes().all(is_token) {
            return Err(wrong("request", format!("`{method}` is not a method"))
                .help(format!("methods are written in upper case: {upper}")));
        }
        let (origin, target) = split_target(target)?;
        let method = method.to_owned();
        Ok(Self { method, origin, target, fields: Vec::new(), body: None, client, listener, assumed: None })
    }

    /// Has the request carry a body, after its header fields are known.
    pub(super) fn carry(&mut self, body: impl Into<Bytes>) -> Result<(), Wrong> {
        for (name, _) in &self.fields {
            if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
                return Err(wrong("body", format!("its framing is known, and `{name}` is not to be given beside it"))
                    .help("leave one of the two out"));
            }
        }
        self.body = Some(body.into());
        Ok(())
    }

    /// Takes claims of the caller for true.
    pub(super) fn assume(&mut self, claims: serde_json::Map<String, serde_json::Value>) {
        self.assumed = Some(claims);
    }

    /// Adds a header field.
    pub(super) fn field(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let key = format!("headers.{name}");
        let Ok(header) = name.parse::<HeaderName>() else {
            return Err(wrong(&key, format!("`{name}` is not the name of a header field")));
        };
        let Ok(value) = HeaderValue::from_str(value) else {
            return Err(wrong(&key, "a header field cannot hold control characters"));
        };
        if header == HOST && self.origin.is_some() {
            return Err(wrong(&key, "the request names its host already").help("leave one of the two out"));
        }
        self.fields.push((header, value));
        Ok(())
    }

    /// Takes the request through a gateway with these listeners, of which `root` has the order.
    pub(super) async fn rehearse(
        &self,
        gateway: &Arc<Gateway>,
        listeners: &[Arc<ListenerSpec>],
        root: &Node,
    ) -> Result<Rehearsed, Wrong> {
        let spec = self.listener(listeners, root)?;
        let tls = self.origin.as_ref().map_or(spec.tls.is_some(), |origin| origin.tls);
        let scheme = if tls { "https" } else { "http" };
        let host = self.fields.iter().find(|(name, _)| *name == HOST).and_then(|(_, host)| host.to_str().ok());
        let host = self.origin.as_ref().map(|origin| origin.authority.as_str()).or(host).unwrap_or("localhost");
        let name = spec.facts.name.to_string();
        let mut notes = Vec::new();
        if tls != spec.tls.is_some() {
            let has = if tls { "has no TLS" } else { "has TLS" };
            notes.push(format!("the listener `{name}` {has}: no client can ask it by {scheme}://"));
        }
        let local = Ipv4Addr::LOCALHOST.into();
        let peer = self.client.or_else(|| (!matches!(spec.address, Address::Unix(_))).then_some(local));
        let tls = tls.then(|| Tls {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            sni: Some(host.split(':').next().unwrap_or("").into()),
            client_certificate: None,
        });
        let connection = Connection::new(peer.map(|peer| SocketAddr::new(peer, 0)), None, spec.facts.clone(), tls);
        let written = self.written(host);
        let limits = &spec.facts.limits;
        let judged = match written.len() > limits.max_header_size && self.target.len() <= limits.max_uri {
            true => Err(head::Refused { status: 431, reason: "the request head is too large" }),
            false => head::end(&written, 0).and_then(|_| head::check(&written, limits)),
        };
        let outcome = match (judged, parse_request(&written)) {
            (Ok(head), Ok(request)) => {
                if head.upgrade {
                    notes.push("the server is asked to switch protocols as well (Connection, Upgrade)".to_owned());
                }
                let body = (head.body, self.body.clone());
                Outcome::of(gateway.clone(), Arc::new(connection), request, body, self.assumed.clone()).await
            }
            (Err(refused), _) => Outcome::refused(refused.status, refused.reason),
            (Ok(_), Err(malformed)) => Outcome::refused(400, malformed.0),
        };
        if outcome.ignores_claims() {
            notes.push("no policy of the route asks who the caller is, so `as` changes nothing".to_owned());
        }
        let path = if self.target == "*" { "" } else { &self.target };
        let url = format!("{} {scheme}://{host}{path}", self.method);
        Ok(Rehearsed { outcome, listener: name, peer, url, notes })
    }

    fn listener<'l>(&self, listeners: &'l [Arc<ListenerSpec>], root: &Node) -> Result<&'l ListenerSpec, Wrong> {
        let mut specs: Vec<&ListenerSpec> = listeners.iter().map(|spec| &**spec).collect();
        let tables = root.get("listen").and_then(Node::table);
        let place = |spec: &&ListenerSpec| tables?.get(&*spec.facts.name).map(|entry| entry.key);
        specs.sort_by_key(place);
        let found = match &self.listener {
            Some(name) => specs.iter().find(|spec| *spec.facts.name == **name),
            None => {
                let speaks = |spec: &&&ListenerSpec| self.origin.as_ref().is_none_or(|o| o.tls == spec.tls.is_some());
                specs.iter().find(speaks).or(specs.first())
            }
        };
        found.copied().ok_or_else(|| {
            let name = self.listener.as_deref().unwrap_or("");
            let known: Vec<&str> = specs.iter().map(|spec| &*spec.facts.name).collect();
            wrong("listener", format!("there is no listener `{name}`"))
                .help(crate::build::suggestion("listener", name, &known))
        })
    }

    /// The head as a client would send it.
    fn written(&self, host: &str) -> Bytes {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.fields.iter().any(|(name, _)| *name == HOST) {
            head.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
        }
        for (name, value) in &self.fields {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head.into()
    }
}

impl Wrong {
    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "\nhelp: {help}"))
    }
}

/// Waits for what needs no network. On a thread that may wait.
pub(super) fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without sockets asks nothing of the system").block_on(work)
}

fn split_target(target: &str) -> Result<(Option<Origin>, String), Wrong> {
    if target.starts_with('/') || target == "*" {
        return Ok((None, target.to_owned()));
    }
    let absolute = target.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let (tls, rest) = match &absolute {
        Some((scheme, rest)) if scheme == "https" => (true, *rest),
        Some((scheme, rest)) if scheme == "http" => (false, *rest),
        _ => {
            return Err(wrong("request", format!("`{target}` is neither a path nor an absolute URL"))
                .help("a path begins with `/`, a URL with http:// or https://"));
        }
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(wrong("request", "the URL names no host"));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((Some(Origin { tls, authority: authority.to_owned() }), format!("{slash}{target}")))
}

fn wrong(key: &str, message: impl Into<String>) -> Wrong {
    Wrong { key: key.to_owned(), message: message.into(), help: None }
}
