//! Many sessions in one process: who there is, how many there may be, and how they all end.

mod calls;
mod config;
mod core;
mod launch;
mod registry;
mod service;
mod shutdown;
mod threads;

pub use config::ServiceConfig;
pub use service::EphemeralSessionService;
