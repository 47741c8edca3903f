//! The shared parts of the programs: the command line, output, a prompt in a terminal, and files that are written
//! whole.

pub mod args;
pub mod ctrl_c;
pub mod dice;
pub mod histories;
pub mod lines;
pub mod save;
pub mod say;
pub mod terminal;
