//! Many sessions in one process: who there is, how many there may be, and how they all end.

pub(crate) mod awaited;
mod calls;
mod config;
mod core;
mod launch;
mod registry;
mod service;
mod shutdown;
mod threads;
#[cfg(feature = "store")]
pub(crate) mod wrapped;

pub use config::ServiceConfig;
#[cfg(feature = "store")]
pub(crate) use config::Settings;
pub use service::EphemeralSessionService;
