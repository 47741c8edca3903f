//! A loop of 60 frames a second that owns five characters, each a session of its own, and never waits for any of them.
//!
//! ```text
//! game_loop [--frames N] [--seed N] [--quiet]     600 frames unless it is said otherwise; quiet: the report alone
//! ```
//!
//! The characters take 100 to 300 milliseconds to wake up and 5 to 400 to think, some of them with a processor each, and ask
//! each other. The loop begins sessions and turns, polls results and events, interrupts, archives, and lets characters come
//! back as soon as there is room. What happens in which frame is decided by the seed; how far the characters are by then
//! is a matter of time.
//!
//! In the end it reports what its frames took. A frame is late when its work took longer than the budget; that the system
//! wakes the loop late is shown beside it. Exit code 1: the library's calls took longer than the budget of a frame.

mod frames;
mod minds;
mod world;

use std::process::ExitCode;

use turnwise_apps::{
    args,
    say::{say, warn},
};

use frames::{Frames, Meter};
use world::World;

/// An hour.
const MOST_FRAMES: u64 = 60 * 60 * 60;

struct Options {
    frames: u64,
    seed: u64,
    quiet: bool,
}

fn main() -> ExitCode {
    match args::texts().and_then(|args| parse(args.into_iter())).and_then(run) {
        Ok(code) => code,
        Err(message) => {
            warn(format_args!("game_loop: {message}"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { frames: 600, seed: 1, quiet: false };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a number"));
        match arg.as_str() {
            "--frames" => options.frames = number(&value()?, 1, MOST_FRAMES)?,
            "--seed" => options.seed = number(&value()?, 0, u64::MAX)?,
            "--quiet" => options.quiet = true,
            "--help" | "-h" => return Err("usage: game_loop [--frames N] [--seed N] [--quiet]".into()),
            other => return Err(format!("unknown argument '{other}'; try --help")),
        }
    }
    Ok(options)
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(format!("'{text}' is not a number from {least} to {most}"))
}

fn run(options: Options) -> Result<ExitCode, String> {
    let mut world = World::new(options.seed, !options.quiet)?;
    let (mut frames, mut meter) = (Frames::new(), Meter::default());
    for frame in 0..options.frames {
        frames.draw(&mut meter, |meter| world.step(frame, meter));
    }
    say(frames.report(&meter));
    // The only call that waits, and it is in no frame.
    let all_ended = world.end(options.frames);
    if frames.was_blocked() {
        warn("game_loop: the library's calls took longer than a frame has");
    }
    Ok(if all_ended && !frames.was_blocked() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
