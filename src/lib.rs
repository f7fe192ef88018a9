//! Portcullis, an API gateway on Pingora.
//!
//! # The way of a request
//!
//! A connection arrives at a worker in [`server`], which owns the accept loop, TLS, the reading of request heads
//! and HTTP/2's streams. [`proxy`] asks the [`gateway`] for the route, runs the route's [`policy`] chain over the
//! request, takes a server from one of the [`upstream`] pools, runs the chain backwards over the response and hands
//! what it knows ([`facts`]) to [`telemetry`]. It does so in Pingora's hooks, or, for plain HTTP/1 servers, from socket
//! to socket ([`proxy::Direct`]). What was answered before may come from the [`cache`]; what several gateways know
//! together is in a [`store`].
//!
//! # The way of the configuration
//!
//! [`config`] loads the TOML files into one tree, [`mod@build`] turns its tables into the features' own
//! configuration types and collects every mistake with its place in the file, [`gateway`] compiles the result
//! into one immutable value that requests hold while they run. Before it takes traffic it is held to the file's
//! tests, whose requests go the same way without a network ([`proxy::Outcome`]).
//!
//! # The import rule
//!
//! Modules import to the left only: `types`, `http1`, `http01`, `deadline`, `clock` → `reply`, `telemetry` → `body` → `facts` →
//! `keep`, `client` → `build` → `cache`, `store` →
//! `policy`, `upstream` → `config` → `gateway` → `proxy`, `admin` → `server` → `cli`.
//! `tests/it/architecture.rs` holds it.

pub mod clock;
pub mod deadline;
pub mod http01;
pub mod http1;
pub mod types;

pub mod reply;
pub mod telemetry;

pub mod body;

pub mod facts;

pub mod client;
pub mod keep;

pub mod build;

pub mod cache;
pub mod store;

pub mod policy;
pub mod upstream;

pub mod config;

pub mod gateway;

pub mod admin;
pub mod proxy;

pub mod server;

#[cfg(fuzzing)]
pub mod fuzzing;

pub mod cli;
