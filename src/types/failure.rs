//! How an attempt at a server can fail, and which failures are tried again.

use serde::Deserialize;

/// How an attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent either.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// Nothing came in time.
    Timeout,
    /// An answer with this status.
    Status(u16),
}

/// Kinds of failures: `["connect", "503"]`.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(transparent)]
pub struct Failures(Vec<Kind>);

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
enum Kind {
    #[serde(rename = "connect")]
    Connect,
    #[serde(rename = "reset")]
    Reset,
    #[serde(rename = "timeout")]
    Timeout,
    #[serde(rename = "5xx")]
    Any5xx,
    #[serde(rename = "500")]
    S500,
    #[serde(rename = "502")]
    S502,
    #[serde(rename = "503")]
    S503,
    #[serde(rename = "504")]
    S504,
}

impl Failures {
    /// Whether a failure is one of them.
    pub fn has(&self, failure: Failure) -> bool {
        self.0.iter().any(|kind| match (kind, failure) {
            (Kind::Connect, Failure::Connect | Failure::ConnectTimeout)
            | (Kind::Reset, Failure::Reset)
            | (Kind::Timeout, Failure::Timeout | Failure::ConnectTimeout)
            | (Kind::S500, Failure::Status(500))
            | (Kind::S502, Failure::Status(502))
            | (Kind::S503, Failure::Status(503))
            | (Kind::S504, Failure::Status(504)) => true,
            (Kind::Any5xx, Failure::Status(status)) => status >= 500,
            _ => false,
        })
    }
}

impl Default for Failures {
    /// What is safe for every request: no connection.
    fn default() -> Self {
        Self(vec![Kind::Connect])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(kinds: &[Kind]) -> Failures {
        Failures(kinds.to_vec())
    }

    #[test]
    fn kinds_are_told_apart() {
        let some = failures(&[Kind::Connect, Kind::S503]);
        assert!(some.has(Failure::Connect) && some.has(Failure::Status(503)));
        assert!(!some.has(Failure::Reset) && !some.has(Failure::Status(500)));
        assert!(failures(&[Kind::Any5xx]).has(Failure::Status(599)));
    }

    #[test]
    fn a_connection_that_was_not_made_in_time_is_of_both_kinds() {
        for kind in [Kind::Connect, Kind::Timeout] {
            assert!(failures(&[kind]).has(Failure::ConnectTimeout));
        }
        assert!(!failures(&[Kind::Reset]).has(Failure::ConnectTimeout));
        assert!(!failures(&[Kind::Connect]).has(Failure::Timeout));
    }
}
