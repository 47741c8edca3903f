//! The Agent Client Protocol: what a client sees on the wire, line by line, over pipes.
//!
//! The client of these tests writes and reads JSON by hand, so that nothing of the library is on its side. The official
//! SDKs drive a whole program in the tests of `examples/apps`.

// The library's rule about locks does not apply to its tests.
#![allow(clippy::disallowed_types)]

mod asking;
mod calls;
mod cancel;
mod ends;
mod fuzz;
mod lines;
mod panics;
mod prompts;
mod sessions;
mod support;
mod unloading;
