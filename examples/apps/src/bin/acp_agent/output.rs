//! Standard output, which belongs to the protocol.

use std::io::{self, Write};

/// The output for the protocol. Afterwards a text that other code prints on standard output goes to standard error, so
/// that it cannot break the protocol.
#[cfg(unix)]
pub(crate) fn private() -> io::Result<impl Write + Send + 'static> {
    let output = nix::unistd::dup(io::stdout())?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(std::fs::File::from(output))
}

/// The output for the protocol. Without a call of the system that moves it, nothing else may print there.
#[cfg(not(unix))]
pub(crate) fn private() -> io::Result<impl Write + Send + 'static> {
    Ok(io::stdout())
}
