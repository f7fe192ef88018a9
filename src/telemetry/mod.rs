//! What the gateway tells of itself: the access log and the metrics.

pub mod access_log;
pub mod metrics;
