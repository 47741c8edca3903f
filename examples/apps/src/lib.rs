//! What the programs share: the command line, output for a person, a prompt in a terminal, and files that are written whole.

pub mod args;
pub mod ctrl_c;
pub mod dice;
pub mod histories;
pub mod lines;
pub mod save;
pub mod say;
mod terminal;
