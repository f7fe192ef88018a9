//! `retry`: what is tried again of the requests of a route, in the place of what their upstream says.
//!
//! ```toml
//! retry = { attempts = 2, on = ["connect", "503"] }
//! retry = false                                        # short form of { attempts = 0 }
//! ```
//!
//! Each key that is given takes the place of the same key of the upstream's `retry`, and means the same. The budget
//! stays the upstream's: no route can turn its outage into a storm.

use serde::Deserialize;

use super::{Policy, Scope, Terms};
use crate::build::{Build, Node, Value};
use crate::types::Failures;

/// `retry` as it is written.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Further tries after the first.
    pub attempts: Option<u32>,
    /// After which failures.
    pub on: Option<Failures>,
}

/// Further tries at most.
const MOST_ATTEMPTS: u32 = 10;

impl Policy for Retry {
    type Config = Self;

    /// `false` is no further try, whatever the upstream says.
    fn long(short: &Node) -> Option<Node> {
        let none = Node { value: Value::Integer(0), ..*short };
        (short.value == Value::Boolean(false)).then(|| none.under("attempts"))
    }

    fn compile(config: Self, _: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        if config.attempts.is_some_and(|attempts| attempts > MOST_ATTEMPTS) {
            build.error("attempts", "more than 10 further tries only make an outage worse");
            return None;
        }
        Some(config)
    }

    fn settle(&self, terms: &mut Terms) {
        terms.retry = self.clone();
    }
}
