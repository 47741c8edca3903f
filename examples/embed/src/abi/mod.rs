//! The C interface: the exported functions, and the checks at the border.

pub mod agent;
pub mod context;
pub mod contexts;
mod entry;
pub mod events;
mod handles;
pub mod inbox;
pub mod service;
pub mod sessions;
pub mod store;
pub mod structs;
mod text;
pub mod texts;
pub mod turns;
