//! A notebook of script kernels: every session is a live interpreter, every cell a turn.
//!
//! ```text
//! notebook [--limit SECONDS] FILE...     run script files; several at once, each a session of its own
//! notebook [--limit SECONDS] < FILE      run a script from standard input
//! notebook [--limit SECONDS]             an interactive prompt (--prompt: also where input is no terminal)
//! ```
//!
//! A line that begins with `// %%` starts the next cell of a file. What a cell prints appears while it runs, values and
//! functions survive from cell to cell, and Ctrl-C interrupts the running cells, not the program.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

#[path = "shared/ctrl_c.rs"]
mod ctrl_c;
#[path = "notebook/files.rs"]
mod files;
#[path = "shared/histories.rs"]
mod histories;
#[path = "notebook/interrupts.rs"]
mod interrupts;
#[path = "notebook/kernel.rs"]
mod kernel;
#[path = "shared/lines.rs"]
mod lines;
#[path = "notebook/prompt.rs"]
mod prompt;
#[path = "notebook/report.rs"]
mod report;

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use turnwise::EphemeralSessionService;

use ctrl_c::AtRest;
use kernel::KernelBuilder;

/// What hosts the kernels.
type Notebook = EphemeralSessionService<KernelBuilder>;

/// Deeply nested scripts need room: the interpreter recurses on its thread's stack.
const STACK_SIZE: usize = 8 << 20;
const MAX_KERNELS: usize = 64;
/// How long kernels may take to end when the program does.
const GRACE: Duration = Duration::from_secs(5);

struct Options {
    limit: Option<Duration>,
    prompt: bool,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("notebook: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { limit: None, prompt: false, files: Vec::new() };
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--limit" => options.limit = Some(seconds(&args.next().ok_or("--limit needs seconds")?)?),
            "--prompt" => options.prompt = true,
            "--help" | "-h" => {
                return Err("usage: notebook [--limit SECONDS] [--prompt | FILE...]; see also :help".into())
            }
            flag if flag.starts_with("--") => return Err(format!("unknown option {flag}; try --help")),
            file => options.files.push(file.into()),
        }
    }
    if options.prompt && !options.files.is_empty() {
        return Err("--prompt and files do not go together".into());
    }
    Ok(options)
}

/// A positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let refused = || format!("'{text}' is not a number of seconds");
    let seconds: f64 = text.parse().map_err(|_| refused())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err(refused()),
    }
}

fn run(options: Options) -> Result<ExitCode, String> {
    let config = EphemeralSessionService::configure(KernelBuilder)
        .max_sessions(MAX_KERNELS)
        .stack_size(STACK_SIZE)
        .thread_name_prefix("kernel");
    let notebook = config.build().map_err(|error| error.to_string())?;
    let at_rest = AtRest::of(options.files.is_empty());
    interrupts::install(&notebook, at_rest).map_err(|error| format!("cannot catch Ctrl-C: {error}"))?;
    let code = if !options.files.is_empty() {
        files::run(&notebook, &files::read(&options.files)?, options.limit)
    } else if options.prompt || io::stdin().is_terminal() {
        prompt::run(&notebook, options.limit)?
    } else {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
        files::run(&notebook, &[files::Script::new("stdin", &text)], options.limit)
    };
    let stuck = notebook.shutdown(GRACE).stuck;
    if !stuck.is_empty() {
        eprintln!("notebook: {} kernels did not stop", stuck.len());
    }
    Ok(code)
}
