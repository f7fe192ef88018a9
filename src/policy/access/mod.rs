//! `access`: lets requests in by the client's address.
//!
//! ```toml
//! access = { allow = ["10.0.0.0/8", "2001:db8::/32"], deny = ["10.9.0.0/16", "192.0.2.7"] }
//! ```
//!
//! `deny` wins over `allow`. With an `allow`, whoever is not in it is refused; without one, whoever is not denied is
//! let in. The address is the one in the log: behind a proxy it is the proxy's, unless the listener's `client_ip` says
//! whom to believe. The client of a Unix socket counts as the loopback address.

use pingora_http::RequestHeader;
use serde::Deserialize;

use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::types::{Cidr, Cidrs};

/// `access` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    allow: Option<Vec<Cidr>>,
    #[serde(default)]
    deny: Vec<Cidr>,
}

/// The compiled policy.
pub struct Access {
    allow: Option<Cidrs>,
    deny: Cidrs,
}

impl Policy for Access {
    type Config = Config;

    fn compile(config: Config, _scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        if config.allow.as_ref().is_some_and(Vec::is_empty) {
            build
                .error("allow", "nobody could be let in")
                .help("name a range, or leave `allow` out to let everyone in");
            return None;
        }
        if config.allow.is_none() && config.deny.is_empty() {
            build.error("", "nobody is allowed and nobody is denied").help("give it `allow` or `deny`");
            return None;
        }
        let allow = config.allow.map(|ranges| ranges.into_iter().collect());
        Some(Self { allow, deny: config.deny.into_iter().collect() })
    }

    async fn request(&self, _request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        let denied = self.deny.contains(facts.client);
        if denied || self.allow.as_ref().is_some_and(|allow| !allow.contains(facts.client)) {
            let cause = if denied { "the address is denied" } else { "the address is not allowed" };
            return Err(Reply::forbidden("the client's address is not allowed here").because(cause));
        }
        Ok(())
    }
}
