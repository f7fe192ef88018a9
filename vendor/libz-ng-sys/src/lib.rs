//! Stands in for `libz-ng-sys` by way of stock zlib.
//!
//! Pingora asks flate2 for its zlib-ng backend, whose build needs cmake, while a C compiler is all that
//! this project asks of its users. Nothing of the gateway compresses through flate2. It goes when Pingora
//! lets the backend be chosen.
pub use libz_sys::*;
