//! The `mirror` of a route, with the upstream that it names.

use std::sync::Arc;

use crate::build::Build;
use crate::policy::MirrorTerms;
use crate::telemetry::metrics::traffic::{Meter, MirrorSeries};
use crate::upstream::Pool;

/// Who gets copies of a route's requests.
pub struct Mirror {
    /// The upstream.
    pub pool: Arc<Pool>,
    /// The share of the requests that are copied.
    pub share: f64,
    /// Bytes that a body may have to be copied.
    pub max_body: u64,
    /// What is counted of the copies.
    pub counts: MirrorSeries,
}

impl Mirror {
    /// Compiles what a policy says; `None` after a report that the upstream cannot be sent copies.
    pub(super) fn compile(terms: &MirrorTerms, pool: Arc<Pool>, meter: &Meter, build: &mut Build<'_>) -> Option<Self> {
        if !pool.is_plain_h1() {
            build
                .error("upstream", "copies are sent by HTTP/1.1 without TLS, which this upstream does not speak")
                .help("name an upstream with `protocol = \"h1\"` and no `tls`");
            return None;
        }
        let counts = meter.mirror(pool.name());
        Some(Self { pool, share: terms.share, max_body: terms.max_body.0, counts })
    }
}
