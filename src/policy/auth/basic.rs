//! `basic`: the name of a `[consumer.NAME]` and one of its keys, as user name and password (RFC 7617).
//!
//! ```toml
//! [auth.machines]
//! basic = {}
//! ```
//!
//! For clients that can do nothing else. Passwords are keys that `portcullis key new` made, as for `api_key`: one that
//! a person chose would have to be hashed slowly at every request, and is not taken.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Judgement;
use super::identity::Consumers;
use crate::facts::Consumer;
use crate::telemetry::metrics::policies::Reason;

/// `basic` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BasicConfig {}

/// Who has these credentials.
pub(super) fn judge(credentials: &[u8], consumers: &Consumers) -> Judgement {
    match known(credentials, consumers) {
        Some(consumer) => Judgement::Known(consumer),
        None => Judgement::Wrong(Reason::CallerUnknown, "nobody has the name and the key"),
    }
}

fn known(credentials: &[u8], consumers: &Consumers) -> Option<Arc<Consumer>> {
    let text = STANDARD.decode(credentials).ok()?;
    let at = memchr::memchr(b':', &text)?;
    consumers.with_key(&text[at + 1..]).filter(|consumer| consumer.name.as_bytes() == &text[..at]).cloned()
}
