//! The C interface: the exported functions, and the checks at the border.

pub mod agent;
pub mod context;
mod contexts;
mod entry;
pub mod events;
mod fork;
mod handles;
pub mod inbox;
pub mod service;
pub mod sessions;
pub mod store;
pub mod structs;
mod text;
pub mod texts;
pub mod turns;
