//! The programs with many sessions and a loop of their own: `game_loop` and `plugin_host`.

#[path = "support/program.rs"]
mod program;

use std::process::{Output, Stdio};

fn run(example: &str, args: &[&str]) -> Output {
    program::command(example).args(args).stdin(Stdio::null()).output().expect("the example runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The figure before this word, in the line that begins with this text.
#[track_caller]
fn figure(report: &str, line: &str, word: &str) -> u64 {
    let start = format!("{line}: ");
    let line = report.lines().find_map(|text| text.strip_prefix(start.as_str()));
    let line = line.unwrap_or_else(|| panic!("no line '{start}' in\n{report}"));
    let part = line.split([',', ';']).find(|part| part.contains(word));
    let number = part.and_then(|part| part.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no figure '{word}' in '{line}'"))
}

#[test]
fn a_frame_loop_is_never_blocked_and_its_report_adds_up() {
    let output = run("game_loop", &["--frames", "120", "--quiet"]);
    let report = out(&output);
    assert_eq!(output.status.code(), Some(0), "{report}{}", err(&output));
    assert_eq!(report.lines().count(), 13, "the report and nothing else:\n{report}");

    assert_eq!(figure(&report, "frames", "drawn"), 120);
    let (late, starved) = (figure(&report, "frames", "late"), figure(&report, "frames", "want of a processor"));
    assert!(starved <= late && late <= 120, "{report}");
    for line in ["frame work: median ", "library calls: median ", "sleep overshoot: median "] {
        let line =
            report.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{report}"));
        assert!(line.contains(" ms, p99 ") && line.contains(" ms, worst "), "{line}");
    }
    assert!(report.contains("\nslowest call: "), "{report}");

    let session = |word| figure(&report, "sessions", word);
    assert_eq!(session("created"), session("archived") + session("at the end"), "{report}");
    assert!(session("created") >= 5, "{report}");
    let turn = |word| figure(&report, "turns", word);
    let ended = turn("completed") + turn("interrupted") + turn("cut off");
    assert_eq!((turn("begun"), turn("failed")), (ended, 0), "{report}");
    assert!(turn("interrupted") <= figure(&report, "interrupts", ""), "{report}");
    let asked = figure(&report, "questions", "among");
    assert_eq!(figure(&report, "questions", "in all"), turn("begun") + asked, "{report}");

    // The purse has too few coins for the first wishes of all characters, and one of them is too dear at any time.
    let request = |word| figure(&report, "requests", word);
    let [granted, refused, timed_out] = ["granted", "refused", "timed out"].map(request);
    assert!(granted >= 1 && refused >= 1 && timed_out >= 1, "{report}");
    assert_eq!(request("asked"), granted + refused + timed_out + request("withdrawn"), "{report}");
    // A response that was accepted has reached its character, and the loop has paid for no other.
    let coins = |word| figure(&report, "coins", word);
    assert_eq!(coins("spent"), coins("received"), "{report}");
    assert_eq!(coins("at first") + coins("earned"), coins("spent") + coins("left"), "{report}");

    let event = |word| figure(&report, "events", word);
    assert_eq!(event("missed"), 0, "{report}");
    // Every turn has at least two events, its start and its end, whether the player listens to it or not.
    assert_eq!(turn("begun"), session("created") + turn("listened"), "{report}");
    assert!(event("streams") >= 2 * turn("listened"), "{report}");
    assert!(event("seen") >= event("streams") + 2 * (session("created") + asked), "{report}");
    assert_eq!(figure(&report, "stuck", ""), 0);
}

#[test]
fn the_game_prints_its_events_without_quiet() {
    let output = run("game_loop", &["--frames", "40", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for name in ["Ada", "Bram", "Cleo", "Dorn", "Edda"] {
        assert!(out(&output).contains(&format!(" s  {name:<5} comes in\n")), "{name}\n{}", out(&output));
    }
}

#[test]
fn bad_options_are_refused_before_the_first_session() {
    let bad = [
        ("game_loop", &["--frames"][..]),
        ("game_loop", &["--frames", "0"]),
        ("game_loop", &["--frames", "-1"]),
        ("game_loop", &["--frames", "many"]),
        ("game_loop", &["--frames", "216001"]),
        ("game_loop", &["--seed", "1.5"]),
        ("game_loop", &["--nonsense"]),
        ("game_loop", &["twice"]),
        ("plugin_host", &["--rounds"]),
        ("plugin_host", &["--rounds", "0"]),
        ("plugin_host", &["--nonsense"]),
        ("plugin_host", &["plugin.so"]),
    ];
    for (example, args) in bad {
        let output = run(example, args);
        assert_eq!(output.status.code(), Some(2), "{example} {args:?}");
        assert!(err(&output).starts_with(&format!("{example}: ")), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
}

const PLUGINS: &str = "\
[talker] loaded
[talker] greeter: WELCOME
[talker] singer: in the middle of a turn
[talker] listener: in host mode, and says PING
[talker] there are: threads 3, agents 3 of 3, thread-locals 0 of 0
[talker] singer: told to stop: service shut down
[talker] listener: told to stop: service shut down
[talker] unloaded: threads 0, builders 0 of 1, agents 0 of 3, thread-locals 0 of 0
[keeper] loaded
[keeper] first: 3 words in the scratch memory
[keeper] second: 3 words in the scratch memory
[keeper] third: 3 words in the scratch memory
[keeper] first: archived
[keeper] second: archived
[keeper] there are: threads 3, agents 1 of 3, thread-locals 3 of 3
[keeper] unloaded: threads 0, builders 0 of 1, agents 0 of 3, thread-locals 0 of 3
[counter] loaded
[counter] words: 3 words, 2 different ones
[counter] words: 5 words, 3 different ones
[counter] napper: told to stop: deadline exceeded
[counter] there are: threads 3, agents 2 of 2, thread-locals 0 of 0
[counter] unloaded: threads 0, builders 0 of 1, agents 0 of 2, thread-locals 0 of 0
[stubborn] loaded
[stubborn] driver: in the middle of a turn
[stubborn] there are: threads 1, agents 1 of 1, thread-locals 0 of 0
[stubborn] not unloaded: driver is stuck, the code has to stay
[stubborn] there are: threads 1, agents 1 of 1, thread-locals 0 of 0
[stubborn] driver: the device has finished
[stubborn] unloaded: threads 0, builders 0 of 1, agents 0 of 1, thread-locals 0 of 0
";

#[test]
fn every_plugin_is_unloaded_with_nothing_left() {
    let output = run("plugin_host", &["--rounds", "3"]);
    assert_eq!(out(&output), PLUGINS.repeat(3), "{}", err(&output));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}
