//! What the gateway tells of itself: the access log, the metrics and traces.

pub mod access_log;
pub mod metrics;
pub mod trace;
