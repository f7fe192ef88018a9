//! What the gateway tells of itself: the access log.

pub mod access_log;
