//! Portcullis from the outside: the real binary, between real clients and real origins.

#[allow(
    dead_code,
    unused_imports,
    clippy::type_complexity,
    clippy::wrong_self_convention,
    reason = "the harness is there for tests to come as well"
)]
mod harness;

mod access;
mod acme;
mod admin;
mod adversity;
mod aggregate;
mod apis;
mod architecture;
mod auth;
mod balancing;
mod cache;
mod coded;
mod compress;
mod cors;
mod direct;
mod docs;
mod forward_auth;
mod graphql;
mod grpc;
mod headers;
mod hostile;
mod http2;
mod identity;
mod introspection;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod mirror;
mod mistakes;
mod observability;
mod parts;
mod real;
mod rehearsal;
mod reload;
mod resilience;
mod routing;
mod schema_suite;
mod schemathesis;
mod selftest;
mod soap;
mod split;
mod stores;
mod systemd;
mod timeouts;

mod tls;
mod traces;
mod transform;
mod translated;
mod upgrade;
mod upstreams;
mod validate;
