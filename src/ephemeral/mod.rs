//! Many sessions in one process: who there is, how many there may be, and how they all end.

pub(crate) mod awaited;
mod calls;
mod config;
mod core;
mod launch;
mod registry;
mod service;
mod settings;
mod shutdown;
mod threads;
#[cfg(feature = "store")]
pub(crate) mod wrapped;

pub use config::ServiceConfig;
pub use service::EphemeralSessionService;
#[cfg(feature = "store")]
pub(crate) use settings::Settings;
