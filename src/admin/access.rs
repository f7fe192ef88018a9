//! Who may ask the admin interface, and for which host.
//!
//! ```toml
//! [admin]
//! address = "127.0.0.1:9900"
//! token   = { env = "ADMIN_TOKEN" }     # or { file = "admin.token" }, { credential = "admin" }
//! ```
//!
//! Without a token whoever can connect may ask: any user of the machine on loopback, those whom the permissions of the
//! socket let in on a Unix socket. A browser can connect too, and a page can have a name that it owns resolved to
//! 127.0.0.1: over TCP only requests for an IP address, `localhost` or the listener's name are answered.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use subtle::ConstantTimeEq;

use super::problem;
use crate::reply::Reply;
use crate::types::SecretText;

/// What a request must have to be answered.
#[derive(Clone)]
pub struct Access {
    /// The listener's name, where it is TCP.
    tcp: Option<Box<str>>,
    token: Option<SecretText>,
}

impl Access {
    /// For a TCP listener: by its name, an IP address or `localhost`.
    pub fn tcp(name: &str, token: Option<SecretText>) -> Self {
        Self { tcp: Some(name.into()), token }
    }

    /// For a Unix socket: by any host.
    pub fn unix(token: Option<SecretText>) -> Self {
        Self { tcp: None, token }
    }

    /// The token, for who asks on the operator's behalf.
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(SecretText::expose)
    }

    /// Refuses a request for a host that is not here.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Reply> {
        let Some(name) = &self.tcp else { return Ok(()) };
        // HTTP/1.0 may have none, and no browser sends that. An absolute target has the same host.
        if headers.get(HOST).is_none_or(|host| is_here(host.as_bytes(), name)) {
            return Ok(());
        }
        Err(Reply::misdirected("the admin interface is asked for by its IP address or as localhost"))
    }

    /// Refuses a request without the token, if there is one.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Reply> {
        let Some(token) = &self.token else { return Ok(()) };
        // The comparison tells an observer of times how long the token is and nothing else.
        if bearer(headers).is_some_and(|given| bool::from(given.ct_eq(token.expose().as_bytes()))) {
            return Ok(());
        }
        let detail = "this needs the header field Authorization with the admin token";
        let reply = problem(StatusCode::UNAUTHORIZED, "unauthorized", "The request is not authorised", detail);
        Err(reply.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.as_bytes().split_at_checked("Bearer".len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(b"Bearer").then_some(token)
}

/// Whether `host` or `host:port` is an address, `localhost` or the listener.
fn is_here(authority: &[u8], name: &str) -> bool {
    let Ok(authority) = std::str::from_utf8(authority) else { return false };
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(name) || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_here() {
        for host in
            ["127.0.0.1", "127.0.0.1:9900", "10.1.2.3", "[::1]", "[::1]:9900", "localhost", "LocalHost:1", "admin"]
        {
            assert!(is_here(host.as_bytes(), "admin"), "{host}");
        }
        for host in ["", "a.example", "127.0.0.1.example", "localhost.example:80", "[::1", "[a]", "0x7f000001", "127.1"]
        {
            assert!(!is_here(host.as_bytes(), "admin"), "{host}");
        }
    }

    #[test]
    fn a_token_is_given_once_and_in_full() {
        let access = Access::unix(Some(SecretText::new("0123456789abcdef")));
        let check = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, field.parse().unwrap());
            }
            access.check_token(&headers).is_ok()
        };
        assert!(check(&["Bearer 0123456789abcdef"]) && check(&["bearer  0123456789abcdef"]));
        for wrong in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789ABCDEF"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
        assert!(Access::unix(None).check_token(&HeaderMap::new()).is_ok());
    }
}
