//! `mirror`: another upstream gets copies of a share of the requests, and nobody waits for what it answers.
//!
//! ```toml
//! mirror = { upstream = "next", share = 0.1, max_body = "64KiB" }
//! ```
//!
//! Here is what the policy says; the gateway knows the upstream, and the proxy sends the copies.

use serde::Deserialize;

use super::{Policy, Scope, Terms};
use crate::build::Build;
use crate::types::Size;

/// `mirror` as it is written.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The name of the upstream that gets the copies.
    pub upstream: String,
    /// The share of the requests that are copied.
    #[serde(default = "all")]
    pub share: f64,
    /// Requests with a longer body are not copied.
    #[serde(default = "much")]
    pub max_body: Size,
}

/// Many bodies are held at once.
const LARGEST: Size = Size::kib(1 << 10);

impl Policy for Mirror {
    type Config = Self;

    fn compile(config: Self, _: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        if !(config.share > 0.0 && config.share <= 1.0) {
            build
                .error("share", "the share of the requests is more than 0 and at most 1")
                .help("write 0.1 for every tenth, or mirror = false for none");
        }
        if config.max_body > LARGEST {
            build.error("max_body", format!("bodies of at most {LARGEST} are held for a copy"));
        }
        (build.errors() == before).then_some(config)
    }

    fn settle(&self, terms: &mut Terms) {
        terms.mirror = Some(self.clone());
    }
}

fn all() -> f64 {
    1.0
}

fn much() -> Size {
    Size::kib(64)
}
