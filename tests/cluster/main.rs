//! Sessions on a server: the tests start a `redis-server` of their own, on a free port and in a folder that is removed.
//!
//! Where the program is not installed, each of these tests says so in one line and proves nothing. With the environment
//! variable `TURNWISE_REQUIRE_REDIS` its absence is a failure. The same holds for namespaces of networks: see the module
//! `namespaces`.

// The library's rule about locks does not apply to its tests.
#![allow(clippy::disallowed_types)]

#[cfg(unix)]
mod hosting;
#[cfg(unix)]
mod killed;
#[cfg(unix)]
mod namespaces;
mod opening;
#[cfg(unix)]
mod operations;
#[cfg(unix)]
mod players;
#[cfg(unix)]
mod proxy;
mod scripts;
mod server;
#[cfg(unix)]
mod service;
mod storing;
/// The helpers of the tests of every store.
#[allow(dead_code)]
#[path = "../store/support.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(unix)]
mod workers;
