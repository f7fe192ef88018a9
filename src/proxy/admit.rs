//! Before an upstream is asked: what is known, whether the request is sound, its route and its policies.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::Ctx;
use super::forwarded::X_REQUEST_ID;
use crate::body::grpc::web::Coding;
use crate::body::media::is_grpc;
use crate::facts::{ClientIp, Connection, Facts, RequestView, authority, check_length, lower_host, new_request_id};
use crate::gateway::matcher::Found;
use crate::gateway::{Destination, Gateway};
use crate::http1::is_authority;
use crate::policy::{Verdict, preflight};
use crate::reply::Reply;
use crate::types::path;

/// Whose request it is.
pub(super) fn connection(session: &Session) -> Result<Arc<Connection>> {
    session
        .digest()
        .and_then(|digest| digest.proxy_digest.as_ref())
        .and_then(|digest| digest.user_data.as_ref())
        .and_then(|data| data.downcast_ref::<Arc<Connection>>())
        .cloned()
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "the connection does not say who it is"))
}

/// Gathers what the connection and the head say.
pub(super) fn gather(connection: Arc<Connection>, request: &RequestHeader) -> Facts {
    let trusted = connection.peer_is_trusted();
    let peer = connection.peer_ip();
    let client = match &connection.listener.client_ip {
        Some(config) if trusted => claimed_client(request, config).unwrap_or(peer),
        _ => peer,
    };
    let id = request.headers.get(X_REQUEST_ID).filter(|id| trusted && is_request_id(id)).cloned();
    let content_type = request.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let grpc = is_grpc(content_type);
    let grpc_web =
        std::str::from_utf8(content_type).ok().filter(|_| grpc).and_then(Coding::of).map(|(coding, _)| coding);
    let events = request.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream");
    let streaming = grpc || events || request.headers.contains_key(UPGRADE);
    let id = id.unwrap_or_else(new_request_id);
    Facts { trusted, grpc, grpc_web, streaming, ..Facts::new(connection, client, id) }
}

/// Begins the trace of a request, where traces are made.
pub(super) fn trace(request: &RequestHeader, ctx: &mut Ctx) {
    if let (Some(tracer), Some(facts)) = (&ctx.gateway.tracer, &mut ctx.facts) {
        facts.trace = Some(tracer.begin(&request.headers, facts.trusted));
    }
}

/// Judges the request and finds its route; `Err` is the answer where there is none.
pub(super) fn route(request: &mut RequestHeader, ctx: &mut Ctx) -> Verdict {
    let Some(facts) = &mut ctx.facts else { return Err(Reply::internal("the connection is not known")) };
    check_head(request, facts)?;
    normalize_target(request)?;
    if let Some(answer) = challenge(request, facts) {
        facts.stopped_by = Some("acme");
        return Err(answer);
    }
    join_cookies(request);

    let host = lower_host(request);
    let view = RequestView::of(request, &host, facts);
    let found = announced(request, &view, &ctx.gateway).unwrap_or_else(|| ctx.gateway.find(&view));
    let route = match found {
        Found::Route { index, captures } => {
            facts.captures = captures;
            ctx.gateway.route(index)
        }
        none => {
            let (method, path) = (view.method, view.path);
            return Err(ctx.gateway.no_version(&view).unwrap_or_else(|| match none {
                Found::MethodNotAllowed { allow } => {
                    Reply::method_not_allowed(format!("{path} has no {method}")).allow(&allow.to_string())
                }
                _ => Reply::no_route(format!("no route takes {method} {path}")),
            }));
        }
    };
    facts.route = Some(route.name.clone());
    ctx.route = Some(route.clone());
    Ok(())
}

/// A preflight (CORS) goes to the route of the request that it announces, if that route answers preflights; else it is
/// an OPTIONS like any other.
fn announced(request: &RequestHeader, view: &RequestView<'_>, gateway: &Gateway) -> Option<Found> {
    let method = &preflight(request)?;
    let found = gateway.find(&RequestView { method, ..*view });
    matches!(&found, Found::Route { index, .. } if gateway.route(*index).chain.answers_preflights()).then_some(found)
}

/// Takes the request through its route's policies; `Err` is the answer where none of the upstreams gives it.
pub(super) async fn enter(request: &mut RequestHeader, ctx: &mut Ctx) -> Verdict {
    let (Some(facts), Some(route)) = (&mut ctx.facts, &ctx.route) else {
        return Err(Reply::internal("the request has no route"));
    };
    route.chain.request(request, facts).await?;
    match &route.destination {
        Destination::Upstream(_) | Destination::Aggregate(_) => Ok(()),
        Destination::Split(split) => {
            ctx.choice = split.choose(request, facts);
            Ok(())
        }
        Destination::Reply(canned) => {
            facts.stopped_by = Some(canned.kind());
            Err(canned.reply(request, facts))
        }
    }
}

/// What a CA is to be told that checks who has a name: before any route, and whatever the host.
fn challenge(request: &RequestHeader, facts: &Facts) -> Option<Reply> {
    let answer = facts.connection.listener.challenges.as_ref()?.answer(request.uri.path())?;
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut reply = Reply::new(StatusCode::OK).with(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    reply.body = answer.into();
    Some(reply)
}

/// What HTTP/1 heads were already held to when they were read, for HTTP/2; and the size of the body.
fn check_head(request: &RequestHeader, facts: &Facts) -> Verdict {
    let limits = &facts.connection.listener.limits;
    match request.method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {}
        Method::TRACE | Method::CONNECT => {
            return Err(Reply::refusal(405, format!("{} is not proxied", request.method)));
        }
        _ => return Err(Reply::refusal(501, format!("the method {} is not known", request.method))),
    }
    if request.version == Version::HTTP_2 {
        if request.headers.len() > limits.max_headers {
            return Err(Reply::head_too_large(format!("more than {} header fields", limits.max_headers)));
        }
        if request.raw_path().len() > limits.max_uri {
            return Err(Reply::uri_too_long(format!("the target has more than {} bytes", limits.max_uri)));
        }
        // RFC 9113, section 8.3.1: Host must not differ from :authority.
        let mut hosts = request.headers.get_all(HOST).iter();
        if let (Some(host), Some(authority)) = (hosts.next(), request.uri.authority())
            && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        {
            return Err(Reply::bad_request("`Host` and `:authority` differ"));
        }
        if hosts.next().is_some() {
            return Err(Reply::bad_request("more than one `Host`"));
        }
        if authority(request).is_empty() {
            return Err(Reply::bad_request("the request names no host"));
        }
        if request
            .headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| !length.as_bytes().iter().all(u8::is_ascii_digit))
        {
            return Err(Reply::bad_request("`Content-Length` is no number"));
        }
        if !is_authority(authority(request).as_bytes()) {
            return Err(Reply::bad_request("the host is not a host"));
        }
    }
    limits.max_body.map_or(Ok(()), |most| check_length(request, most))
}

/// Puts the normal form of the path into the request, so that what is matched is what is forwarded.
fn normalize_target(request: &mut RequestHeader) -> Verdict {
    if request.uri.path() == "*" {
        return match request.method {
            Method::OPTIONS => Ok(()),
            _ => Err(Reply::bad_request("`*` is for OPTIONS only").closing()),
        };
    }
    if request.raw_path() != request.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes()
        && request.uri.scheme().is_none()
    {
        return Err(Reply::bad_request("the target is not a URI").closing());
    }
    // An absolute target may have a query and no path: `http://host?query`.
    let pathless = request.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'));
    let path = match path::normalize(request.uri.path()) {
        Ok(Cow::Borrowed(_)) if !pathless => return Ok(()),
        Ok(path) => path.into_owned(),
        Err(error) => return Err(Reply::bad_request(error.to_string()).closing()),
    };
    let target = match request.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    match (parts.path_and_query.is_some(), Uri::from_parts(parts)) {
        (true, Ok(uri)) => {
            request.set_uri(uri);
            Ok(())
        }
        _ => Err(Reply::bad_request("the target is not a URI").closing()),
    }
}

/// HTTP/2 lets a client split its cookies into several fields, which are one for everybody else (RFC 9113, section
/// 8.2.3).
fn join_cookies(request: &mut RequestHeader) {
    if request.version != Version::HTTP_2 || request.headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&cookies.join(&b"; "[..]));
    if let Ok(joined) = joined {
        let _ = request.insert_header(COOKIE, joined);
    }
}

/// The client that the trusted proxies in front name: the last address that is not itself trusted.
fn claimed_client(request: &RequestHeader, config: &ClientIp) -> Option<IpAddr> {
    let forwarded = config.header == http::header::FORWARDED;
    let mut nearest = None;
    for value in request.headers.get_all(&config.header).iter().rev() {
        for element in value.to_str().ok()?.rsplit(',') {
            let address = if forwarded { forwarded_for(element)? } else { parse_address(element.trim())? };
            nearest = Some(address);
            if !config.trust.iter().any(|range| range.contains(address)) {
                return nearest;
            }
        }
    }
    nearest
}

/// The `for` parameter of an element of `Forwarded` (RFC 7239, section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let (_, value) = element
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    parse_address(value.trim().trim_matches('"'))
}

/// An address, with or without a port, IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => text.split(':').next()?,
    };
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// What may stand in logs and headers as a request id: visible, short, and without what needs quoting.
fn is_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=128).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_untrusted_address_is_the_client() {
        let config =
            ClientIp { header: "x-forwarded-for".parse().unwrap(), trust: vec!["10.0.0.0/8".parse().unwrap()] };
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("X-Forwarded-For", "1.1.1.1, 2.2.2.2").unwrap();
        request.append_header("X-Forwarded-For", "10.0.0.9").unwrap();
        assert_eq!(claimed_client(&request, &config), Some("2.2.2.2".parse().unwrap()));
        request.insert_header("X-Forwarded-For", "10.0.0.8, 10.0.0.9").unwrap();
        assert_eq!(claimed_client(&request, &config), Some("10.0.0.8".parse().unwrap()));
        request.insert_header("X-Forwarded-For", "unknown").unwrap();
        assert_eq!(claimed_client(&request, &config), None);
    }

    #[test]
    fn forwarded_is_understood() {
        assert_eq!(forwarded_for("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60".parse().ok());
        assert_eq!(forwarded_for("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17".parse().ok());
        assert_eq!(forwarded_for("proto=http"), None);
    }
}
