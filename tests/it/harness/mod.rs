//! The harness: the real binary on ports that it picked, real origins that answer by script and remember every
//! byte, and clients that speak HTTP/1.1, HTTP/2 and TLS down to the last byte.
//!
//! ```no_run
//! let users = Origin::saying("users");
//! let gw = gateway().upstream("users", &users).config(ROUTES).start();
//! gw.get("/users/7").header("Accept", "text/plain").send().expect(200);
//! assert_eq!(users.only_request().target, "/users/7");
//! ```
//!
//! Nothing here sleeps to let something happen: what happens is an entry in a [`Journal`], and whoever waits for
//! it waits with a deadline.

mod certificates;
mod client;
mod gateway;
mod h2_client;
mod h2_frames;
mod h2_origin;
mod journal;
mod origin;
mod parts;
mod pebble;
mod redis;
mod traffic;
mod wire;

pub use certificates::{Authority, Identity, client_trusting};
pub use client::{Connection, Request, Response};
pub use gateway::{Address, Builder, Gateway, gateway, portcullis};
pub use h2_client::{H2, grpc_frame};
pub use h2_frames::{Fate, Frames};
pub use h2_origin::{H2Answer, H2Origin};
pub use journal::{DEADLINE, Journal, eventually};
pub use origin::{Answer, ClosedPort, Origin, Seen, answer, full_address, refused_address};
pub use parts::{Part, free_port, in_front_of, installed, nginx, nginx_with, node, output, python};
pub use pebble::{Builder as PebbleBuilder, Pebble, pebble};
pub use redis::{NoRedis, Redis};
pub use traffic::Traffic;
pub use wire::Fields;
