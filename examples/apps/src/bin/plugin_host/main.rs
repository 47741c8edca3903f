//! A host that loads and unloads plugins. Each plugin has a service of its own, and counts as unloaded only when no
//! thread runs its code any more. A host of shared libraries would then unmap that code. A thread that still ran it,
//! for example in the destructor of a thread-local value, would crash the program.
//!
//! ```text
//! plugin_host [--rounds N]     repeats everything N times
//! ```
//!
//! The program checks the figures of the library against the system's list of threads (on Linux), and against the
//! values that the plugins have made and dropped. The output is the same in every run. The exit code is 1 if anything
//! was left.

mod host;
mod ledger;
mod plugins;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::StartTurnRequest;
use turnwise_apps::{args, say::warn};

use host::{Plugin, Unload};
use ledger::Ledger;
use plugins::{DoesNotListen, KeepsThreadLocals, Maker, SharesByRc, Talks};

/// How long a plugin may take to end. It is longer than any plugin needs that ends at all.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the host waits for a plugin that ignores cancels.
const SHORT_LIMIT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let rounds = match args::texts().and_then(|args| parse(args.into_iter())) {
        Ok(rounds) => rounds,
        Err(message) => {
            warn(format_args!("plugin_host: {message}"));
            return ExitCode::from(2);
        }
    };
    let is_clean = (0..rounds).all(|_| match run() {
        Ok(is_clean) => is_clean,
        Err(error) => {
            warn(format_args!("plugin_host: {error}"));
            false
        }
    });
    if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<u32, String> {
    let mut rounds = 1;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => {
                let text = args.next().ok_or("--rounds needs a number")?;
                let number = text.parse().ok().filter(|number| *number > 0);
                rounds = number.ok_or(format!("'{text}' is not a number of rounds"))?;
            }
            "--help" | "-h" => return Err("usage: plugin_host [--rounds N]".into()),
            other => return Err(format!("unknown argument '{other}'; try --help")),
        }
    }
    Ok(rounds)
}

/// Runs every plugin once. Returns whether all of them are unloaded.
fn run() -> Result<bool, Box<dyn Error>> {
    let unloads = [talker()?, keeper()?, counter()?, stubborn()?];
    Ok(unloads.iter().all(|unload| matches!(unload, Unload::Done)))
}

/// This plugin is unloaded while one session runs a turn and another one is in host mode.
fn talker() -> Result<Unload, Box<dyn Error>> {
    let ledger = Ledger::default();
    let mut plugin = Plugin::load("talker", ledger.clone(), Maker::new(Talks, &ledger), 4)?;
    let greeter = plugin.open("greeter")?;
    plugin.ask(greeter, StartTurnRequest::new("welcome"));
    let singer = plugin.open("singer")?;
    plugin.begin(singer, "sing")?;
    plugin.host("listener", "ping")?;
    plugin.take_stock();
    Ok(plugin.unload(LIMIT))
}

/// The agents of this plugin leave thread-local values in threads that wait for another session.
fn keeper() -> Result<Unload, Box<dyn Error>> {
    let ledger = Ledger::default();
    let mut plugin = Plugin::load("keeper", ledger.clone(), Maker::new(KeepsThreadLocals, &ledger), 4)?;
    let names = ["first", "second", "third"];
    // All sessions are opened before the first one ends, so that each has a thread of its own.
    let ids = names.map(|name| plugin.open(name)).into_iter().collect::<Result<Vec<_>, _>>()?;
    for &id in &ids {
        plugin.ask(id, StartTurnRequest::new("to be kept"));
    }
    plugin.archive(ids[0], LIMIT)?;
    plugin.archive(ids[1], LIMIT)?;
    plugin.take_stock();
    Ok(plugin.unload(LIMIT))
}

/// The agents of this plugin cannot leave their threads. Turns with timeouts have started a timer thread.
fn counter() -> Result<Unload, Box<dyn Error>> {
    let ledger = Ledger::default();
    let mut plugin = Plugin::load("counter", ledger.clone(), Maker::new(SharesByRc, &ledger), 0)?;
    let words = plugin.open("words")?;
    plugin.ask(words, StartTurnRequest::new("one two two"));
    plugin.ask(words, StartTurnRequest::new("two three").timeout(LIMIT));
    let napper = plugin.open("napper")?;
    plugin.ask(napper, StartTurnRequest::new("nap").timeout(SHORT_LIMIT));
    plugin.take_stock();
    Ok(plugin.unload(LIMIT))
}

/// A turn of this plugin ignores its cancel. The host does not unload the plugin before the turn has ended.
fn stubborn() -> Result<Unload, Box<dyn Error>> {
    let (finish, device) = bounded(0);
    let ledger = Ledger::default();
    let mut plugin = Plugin::load("stubborn", ledger.clone(), Maker::new(DoesNotListen { device }, &ledger), 4)?;
    let driver = plugin.open("driver")?;
    plugin.begin(driver, "drive")?;
    plugin.take_stock();
    let plugin = match plugin.unload(SHORT_LIMIT) {
        Unload::Refused(plugin) => plugin,
        other => return Ok(other),
    };
    plugin.take_stock();
    drop(finish); // the device finishes
    Ok(plugin.unload(LIMIT))
}
