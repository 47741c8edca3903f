//! A notebook of script kernels: every session is a live interpreter, and every cell is a turn.
//!
//! ```text
//! notebook [OPTIONS] FILE...     run script files concurrently, each in a session of its own
//! notebook [OPTIONS] < FILE      run a script from standard input
//! notebook [OPTIONS]             an interactive prompt (--prompt: also if the input is not a terminal)
//!
//!   --limit SECONDS    the time limit of a cell --memory MB        the memory limit of all kernels together (1024)
//! ```
//!
//! A line that begins with `// %%` starts the next cell of a file. The output of a cell appears while the cell runs.
//! Values and functions stay from cell to cell. Ctrl-C interrupts the running cells, not the program. A cell that fails
//! or is interrupted changes no variable, not even a captured one.
//!
//! Interrupts and time limits take effect between two steps of a script. One step may be a native function, such as
//! `sort` on an array or `split` on a string. It runs to its end first.
//!
//! Memory has these limits, and a cell that exceeds one of them fails:
//!
//! - A string has at most 1 MB, an array 1 million elements, and a map 100,000 entries.
//! - Values are nested at most 500 deep.
//! - A kernel has at most 10,000 variables, which use at most 128 MB, and 1,000 functions, including closures.
//! - All kernels together use at most the memory of `--memory`, plus that of one step.
//!
//! A cycle of closures that no variable refers to any more is never freed, and counts until the program ends. The
//! history keeps the first 64 kB of a cell's output.

// The library's rule about locks does not apply to the programs.
#![allow(clippy::disallowed_types)]

mod files;
mod interrupts;
mod kernel;
mod limits;
mod prompt;
mod report;
mod values;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use turnwise::EphemeralSessionService;
use turnwise_apps::{args, ctrl_c::AtRest, say::warn};

use kernel::KernelBuilder;

/// The service with the kernels.
type Notebook = EphemeralSessionService<KernelBuilder>;

/// The interpreter recurses over scripts and values on the stack of its thread. The system maps only the used part.
const STACK_SIZE: usize = 64 << 20;
const MAX_KERNELS: usize = 64;
/// How long kernels may take to end at the end of the program.
const GRACE: Duration = Duration::from_secs(5);

struct Options {
    limit: Option<Duration>,
    memory: u32,
    prompt: bool,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match parse(args::all()).and_then(run) {
        Ok(code) => code,
        Err(message) => {
            warn(format_args!("notebook: {message}"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Options, String> {
    let mut options = Options { limit: None, memory: limits::MOST_MEMORY, prompt: false, files: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--limit") => {
                let limit = args.next().ok_or("--limit needs seconds")?;
                options.limit = Some(seconds(args::text(&limit)?)?);
            }
            Some("--memory") => {
                let memory = args.next().ok_or("--memory needs megabytes")?;
                options.memory = megabytes(args::text(&memory)?)?;
            }
            Some("--prompt") => options.prompt = true,
            Some("--help" | "-h") => {
                return Err(
                    "usage: notebook [--limit SECONDS] [--memory MB] [--prompt | FILE...]; see also :help".into()
                )
            }
            Some(flag) if flag.starts_with("--") => return Err(format!("unknown option {flag}; try --help")),
            // A file name need not be UTF-8.
            _ => options.files.push(arg.into()),
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

/// A positive number of megabytes.
fn megabytes(text: &str) -> Result<u32, String> {
    let megabytes = text.parse().ok().filter(|megabytes| *megabytes > 0);
    megabytes.ok_or_else(|| format!("'{text}' is not a number of megabytes"))
}

fn run(options: Options) -> Result<ExitCode, String> {
    limits::allow_memory(options.memory);
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
        warn(format_args!("notebook: {} kernels did not stop", stuck.len()));
    }
    Ok(code)
}
