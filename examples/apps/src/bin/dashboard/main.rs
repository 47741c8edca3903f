//! A terminal view of a running service: the states of its sessions, their rates, and the outcomes of their turns.
//!
//! ```text
//! dashboard [--sessions N] [--seconds N]     in a terminal, until `q`, or for N seconds
//! dashboard --once       without a terminal: runs for a moment (--seconds), then prints one frame
//! dashboard --svg FILE   writes that frame as a picture
//! ```
//!
//! The agents are simulated: they write, think, call tools, ask the person at the dashboard, fail and panic by
//! pseudo-random numbers. One thread keeps the sessions busy (`load.rs`). Another thread is the view, which never waits
//! for a turn (`view.rs`).

// The library's rule about locks does not apply to the programs.
#![allow(clippy::disallowed_types)]

mod agents;
mod draw;
mod figures;
mod load;
mod model;
mod screen;
mod svg;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::backend::TestBackend;
use ratatui::Terminal;
use turnwise::crossbeam_channel::{after, never, select, tick, unbounded};
use turnwise::EphemeralSessionService;
use turnwise_apps::{
    args, save,
    say::{say, warn},
};

use agents::Cast;
use screen::{Input, Panics, Screen};
use view::{Dashboard, Next};

/// The service with the agents.
type Host = EphemeralSessionService<Cast>;

/// The prefix of the names of the session threads.
const AGENTS: &str = "agent";
/// The number of sessions that may be opened in addition to the first ones.
const SPARE: usize = 4;
const FRAME: Duration = Duration::from_millis(100);
/// How long the program runs before it draws a single frame.
const MOMENT: Duration = Duration::from_secs(2);
/// The longest time that `--seconds` allows: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long sessions may take to end at the end of the program.
const GRACE: Duration = Duration::from_secs(5);

struct Options {
    sessions: usize,
    time: Option<Duration>,
    once: bool,
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let _panics = Panics::keep(AGENTS);
    match parse(args::all()).and_then(run) {
        Ok(code) => code,
        Err(message) => {
            warn(format_args!("dashboard: {message}"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Options, String> {
    let mut options = Options { sessions: 16, time: None, once: false, svg: None };
    while let Some(arg) = args.next() {
        let arg = args::text(&arg)?;
        let mut value = |what: &str| args.next().ok_or(format!("{arg} needs {what}"));
        match arg {
            "--sessions" => options.sessions = sessions(args::text(&value("a number")?)?)?,
            "--seconds" => options.time = Some(seconds(args::text(&value("seconds")?)?)?),
            // A file name need not be UTF-8.
            "--svg" => options.svg = Some(value("a file")?.into()),
            "--once" => options.once = true,
            "--help" | "-h" => return Err("usage: dashboard [--sessions N] [--seconds N] [--once] [--svg FILE]".into()),
            other => return Err(format!("unknown argument '{other}'; try --help")),
        }
    }
    Ok(options)
}

fn sessions(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=256).contains(count));
    count.ok_or(format!("'{text}' is not a number of sessions from 1 to 256"))
}

/// A positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero() && *time <= LONGEST).ok_or(format!("'{text}' is not a number of seconds"))
}

fn run(options: Options) -> Result<ExitCode, String> {
    let offscreen = options.once || options.svg.is_some();
    // This comes first: without a terminal, nothing has to be stopped.
    let screen = if offscreen { None } else { Some(Screen::take()?) };
    let config = EphemeralSessionService::configure(Cast)
        .max_sessions(options.sessions + SPARE)
        .stack_size(256 << 10)
        .thread_name_prefix(AGENTS);
    let service = config.build().map_err(|error| error.to_string())?;
    let (orders, ordered) = unbounded();
    let (reporter, reports) = unbounded();
    // The dashboard subscribes before the first session is opened, so it gets all events.
    let mut dashboard = Dashboard::new(service.clone(), orders, reports);
    let load = load::start(service.clone(), options.sessions, ordered, reporter).map_err(|error| error.to_string())?;
    let shown = match screen {
        Some(screen) => show(&mut dashboard, screen, options.time),
        None => show_once(&mut dashboard, &options),
    };
    // This drops the sender of orders, which ends the load.
    drop(dashboard);
    let load = load.join();
    let report = service.shutdown(GRACE);
    shown?;
    say(format_args!("sessions joined: {}, stuck: {}", report.joined, report.stuck.len()));
    Ok(if load.is_ok() && report.stuck.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows frames in the terminal until a key ends the program or the time has passed.
fn show(dashboard: &mut Dashboard, mut screen: Screen, time: Option<Duration>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the terminal is gone: {error}");
    let input = screen.input()?;
    let frames = tick(FRAME);
    let over = time.map_or(never(), after);
    loop {
        dashboard.refresh()?;
        screen.terminal.draw(|frame| dashboard.draw(frame)).map_err(failed)?;
        select! {
            recv(frames) -> _ => {}
            recv(over) -> _ => return Ok(()),
            recv(input) -> input => match input {
                Ok(Input::Key(key)) => match dashboard.on_key(key) {
                    Next::Go => {}
                    Next::Quit => return Ok(()),
                },
                Ok(Input::Signal) => screen.wait_for_exit(),
                Err(_) => return Ok(()),
            },
        }
    }
}

/// Draws one frame without a terminal, large enough for every session. A session that asks is selected, if there is one.
fn show_once(dashboard: &mut Dashboard, options: &Options) -> Result<(), String> {
    let end = Instant::now() + options.time.unwrap_or(MOMENT);
    let frames = tick(FRAME);
    while frames.recv_deadline(end).is_ok() {
        dashboard.refresh()?;
    }
    dashboard.select_question();
    let height = draw::AROUND + options.sessions.max(3) as u16;
    let backend = TestBackend::new(draw::WIDTH, height);
    let mut terminal = Terminal::new(backend).map_err(|error| error.to_string())?;
    terminal.draw(|frame| dashboard.draw(frame)).map_err(|error| error.to_string())?;
    let frame = terminal.backend().buffer();
    if let Some(file) = &options.svg {
        let picture = svg::svg(frame, "turnwise dashboard").map_err(|error| error.to_string())?;
        save::save(file, picture.as_bytes()).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if options.once {
        say(svg::text(frame).trim_end_matches('\n'));
    }
    Ok(())
}
