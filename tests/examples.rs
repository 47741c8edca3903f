//! Runs the examples that `cargo test` has built. Each has to print its expected output and to succeed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

struct Example {
    name: &'static str,
    /// Whether the features are enabled that the example requires.
    is_built: bool,
    prints: &'static str,
}

const EXAMPLES: [Example; 17] = [
    Example { name: "abort_socket", is_built: true, prints: "interrupted\nhello\n" },
    Example {
        name: "asking",
        is_built: true,
        prints: "May I cut the hedge? waiting\nThe plants are watered.\nThe answer is no.\n",
    },
    Example { name: "deadline", is_built: true, prints: "deadline exceeded\nslept for 0 s\n" },
    Example {
        name: "export",
        is_built: cfg!(feature = "serde"),
        prints: r#"{"role":"user","content":"hello"}
{"role":"assistant","blocks":[{"type":"text","text":"HELLO"}],"stop_reason":"end_turn"}
{"role":"user","content":"again"}
{"role":"assistant","blocks":[{"type":"text","text":"AGAIN"}],"stop_reason":"end_turn"}
"#,
    },
    Example { name: "frame_loop", is_built: true, prints: "ONCE\nUPON\nA\nTIME\nthe end\n" },
    Example { name: "interactions", is_built: true, prints: "HOW ARE YOU\nAND YOURSELF\n3 prompts and interactions\n" },
    Example { name: "permits", is_built: true, prints: "north\neast\nsouth\nwest\nat most 2 at a time\n" },
    Example {
        name: "queue",
        is_built: true,
        prints: "SESSION_BUSY\nqueued: true true\nsuperseded by another turn\n\
                 1. take cover, turn 4\n2. sow, turn 2\n3. water, turn 3\n",
    },
    Example { name: "resume", is_built: true, prints: "before the export\nand after it\n" },
    Example {
        name: "spans",
        is_built: cfg!(feature = "tracing"),
        prints: concat!(
            " INFO session{session_id=018f8f6e-9c6b-7000-8000-000000000001}:turn{session_id=018f8f6e-9c6b-7000-8000-",
            "000000000001 turn_id=1}:sow{what=\"barley\"}: begins\n",
            " INFO session{session_id=018f8f6e-9c6b-7000-8000-000000000001}:turn{session_id=018f8f6e-9c6b-7000-8000-",
            "000000000001 turn_id=1}: helps\n",
            " INFO session{session_id=018f8f6e-9c6b-7000-8000-000000000001}:turn{session_id=018f8f6e-9c6b-7000-8000-",
            "000000000001 turn_id=2}:sow{what=\"oats\"}: begins\n",
            " INFO session{session_id=018f8f6e-9c6b-7000-8000-000000000001}:turn{session_id=018f8f6e-9c6b-7000-8000-",
            "000000000001 turn_id=2}: helps\n",
        ),
    },
    Example {
        name: "steering",
        is_built: true,
        prints: "go north, then east, and rest\ntaken: true\ntaken: true\nSESSION_NOT_RUNNING\n",
    },
    Example { name: "store", is_built: cfg!(feature = "store"), prints: "turn 1: hello\nturn 2: again\n4 messages\n" },
    Example { name: "sub_agent", is_built: true, prints: "10\n" },
    Example {
        name: "sub_agents",
        is_built: true,
        prints: "The north is explored.\nThe south is explored.\nCancelled\n1 session is left\n",
    },
    Example {
        name: "subscription",
        is_built: true,
        prints: "1 a turn begins\n2 ONE\n3 the turn ends\n4 a turn begins\n5 TWO\n6 the turn ends\n",
    },
    Example {
        name: "test_kit",
        is_built: cfg!(feature = "testkit"),
        prints:
            "RunStarted(think)\nTextDelta(hm, )\nRunFailed(the turn of the session failed: cancelled: interrupted)\n",
    },
    Example {
        name: "unloading",
        is_built: cfg!(feature = "store"),
        prints: "hello again, turn 2\n4 messages of the first session\n2 live, 99 unloaded so far\n",
    },
];

/// The program of an example, beside this test. Cargo builds it for `cargo test`, but not for a run with a `--test`
/// filter.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("the folder of the build profile");
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is missing: `cargo build --examples` builds it", program.display());
    program
}

#[test]
fn every_example_prints_its_output_and_succeeds() {
    for example in EXAMPLES.iter().filter(|example| example.is_built) {
        let output = Command::new(program(example.name)).stdin(Stdio::null()).output().expect("the example runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), example.prints, "{}: {errors}", example.name);
        assert!(output.status.success() && errors.is_empty(), "{}: {errors}", example.name);
    }
}

/// The last line of the quick start has a session id, which is new in every run. So the test compares the text around
/// it.
#[test]
fn the_quick_start_runs() {
    let output = Command::new(program("quickstart")).stdin(Stdio::null()).output().expect("the example runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let (lines, last) = printed.trim_end().rsplit_once('\n').expect("several lines");
    assert_eq!(lines, "that was turn 1\n  TELL\n  ME\n  MORE\nthat was turn 2");
    let end = " failed: cancelled: interrupted";
    assert!(last.starts_with("the turn of session ") && last.ends_with(end), "{last}");
    assert!(output.status.success());
}

/// A program in `examples/` that is not in the table would be built and never run.
#[test]
fn every_example_is_in_the_table() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).expect("the examples").map(|entry| entry.expect("an example").path());
    let programs = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut names: Vec<String> =
        programs.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    names.sort();
    let mut expected: Vec<&str> = EXAMPLES.iter().map(|example| example.name).chain(["quickstart"]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}
