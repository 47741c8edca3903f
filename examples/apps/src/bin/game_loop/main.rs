//! A loop of 60 frames a second with five characters. Each character is a session, and the loop never waits for one.
//!
//! ```text
//! game_loop [--frames N] [--seed N] [--quiet]     600 frames by default; --quiet prints the report only
//! ```
//!
//! The build of a character takes 100 to 300 milliseconds, and its thinking takes 5 to 400. Some characters compute
//! meanwhile, and some ask another character. The loop begins sessions and turns, polls results and events, interrupts,
//! archives, and opens a character again as soon as there is capacity. The seed decides what the loop does in each
//! frame. The progress of the characters depends on time.
//!
//! Only the loop may spend from the party's purse. A character that wants to buy something asks the loop, and its turn
//! waits. Each frame looks at the open requests, and answers those that it can decide. A request that the purse cannot
//! pay in time times out, and the turn goes on.
//!
//! At the end the program reports the times of its frames. A frame is late if its work took longer than the budget. The
//! delay with which the system wakes the loop is a separate figure. The exit code is 1 if the library's calls took
//! longer than the budget of a frame.

mod frames;
mod minds;
mod purse;
mod world;

use std::process::ExitCode;

use turnwise_apps::{
    args,
    say::{say, warn},
};

use frames::{Frames, Meter};
use world::World;

/// The largest number of frames: an hour.
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
    // This is the only call that waits, and it is outside of the frames.
    let all_ended = world.end(options.frames);
    if frames.was_blocked() {
        warn("game_loop: the library's calls took longer than a frame has");
    }
    Ok(if all_ended && !frames.was_blocked() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
