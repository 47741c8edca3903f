//! The notebook example, used as a person would: script files, standard input, the prompt, Ctrl-C.
#![cfg(all(feature = "serde", unix))]

#[path = "examples/program.rs"]
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn notebook() -> Command {
    program::command("notebook")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scripts").join(name)
}

/// Runs the notebook with this standard input.
fn with_input(args: &[&str], input: &str) -> Output {
    let mut child = notebook()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the notebook starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the notebook reads");
    child.wait_with_output().expect("the notebook ends")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_shipped_script_prints_what_it_should() {
    for (name, code) in [("primes", 0), ("adventure", 0), ("monte_carlo", 0), ("strings", 1)] {
        let output = notebook().arg(script(&format!("{name}.rhai"))).output().expect("the notebook runs");
        let expected = fs::read_to_string(script(&format!("{name}.out"))).expect("what it should print");
        assert_eq!(out(&output), expected, "{name}");
        assert_eq!(output.status.code(), Some(code), "{name}: {}", err(&output));
    }
}

#[test]
fn several_files_are_several_sessions_with_their_output_prefixed() {
    let files = ["primes.rhai", "adventure.rhai"].map(script);
    let output = notebook().args(files).output().expect("the notebook runs");
    for name in ["primes", "adventure"] {
        let prefix = format!("[{name}] ");
        let printed = out(&output);
        let own: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect();
        let expected = fs::read_to_string(script(&format!("{name}.out"))).expect("what it should print");
        assert_eq!(own, expected.lines().collect::<Vec<_>>());
    }
    assert!(output.status.success(), "{}", err(&output));
}

#[test]
fn an_error_fails_its_cell_and_values_survive_it() {
    let output = with_input(&[], "let x = 40;\n// %%\nlet x = 0; nonsense()\n// %%\nx + 2\n");
    assert_eq!(out(&output), "= 42\n");
    assert!(err(&output).contains("nonsense"));
    assert_eq!(output.status.code(), Some(1));
    let output = with_input(&[], "let = ;\n");
    assert!(err(&output).starts_with("error: Syntax error"), "{}", err(&output));
}

#[test]
fn a_runaway_cell_meets_its_limit_and_the_next_one_runs() {
    let output = with_input(&["--limit", "0.2"], "loop {}\n// %%\nsleep(60)\n// %%\n1 + 1\n");
    assert_eq!(out(&output), "= 2\n");
    assert_eq!(err(&output).matches("time limit").count(), 2);
    assert_eq!(output.status.code(), Some(1));
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

#[test]
fn ctrl_c_interrupts_the_running_cell_and_not_the_program() {
    let mut child = notebook()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the notebook starts");
    let script = "print(\"running\"); loop {}\n// %%\nprint(\"asleep\"); sleep(3600)\n// %%\n6 * 7\n";
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("the notebook reads");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("another line").expect("text");
    // Each line shows that its cell runs: what it prints comes while it does.
    assert_eq!(next(), "running");
    interrupt(&child);
    assert_eq!(next(), "asleep");
    interrupt(&child);
    assert_eq!(next(), "= 42");
    let mut errors = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
    assert_eq!(errors, "interrupted\ninterrupted\n");
    assert_eq!(child.wait().expect("the notebook ends").code(), Some(1));
}

#[test]
fn ctrl_c_with_nothing_running_ends_the_program() {
    let mut child =
        notebook().stdin(Stdio::piped()).stdout(Stdio::piped()).arg("--prompt").spawn().expect("the notebook starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.next().expect("the greeting").expect("text");
    // Kept open: waiting for the child would close it, and the end of the input ends the program too.
    let input = child.stdin.take();
    interrupt(&child);
    assert_eq!(child.wait().expect("the notebook ends").code(), Some(130));
    drop(input);
}

#[test]
fn the_prompt_opens_switches_lists_reads_exports_resumes_and_archives() {
    let file = std::env::temp_dir().join(format!("notebook-{}.json", std::process::id()));
    let json = file.to_str().expect("a plain path");
    let commands = format!(
        "let a = 5;\nfn twice(n) {{ n * 2 }}\n:open b\na\n:switch main\ntwice(a)\n:list\n:read\n:export {json}\n\
         :resume {json} again\ntwice(a + 1)\n:archive again\n:list\n:switch again\n:interrupt main\n:archive main\n\
         :archive b\n1\n:quit\nnot reached\n"
    );
    let output = with_input(&["--prompt"], &commands);
    let printed = out(&output);
    assert!(printed.contains("= 10\n"), "{printed}");
    assert!(printed.contains("* main             idle         3 cells"), "{printed}");
    assert!(printed.contains("main: idle, 3 cells"), "{printed}");
    assert!(printed.contains(&format!("3 cells of 'main' are in {json}")), "{printed}");
    assert!(printed.contains("= 12\n"), "the resumed kernel has its values back: {printed}");
    let errors = err(&output);
    let expected = [
        "Variable not found: a",
        "there is no kernel 'again'",
        "that kernel is not running a cell",
        "there is no kernel 'b'",
    ];
    assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    for (line, part) in errors.lines().zip(expected) {
        assert!(line.contains(part), "'{part}' in '{line}'");
    }
    assert!(output.status.success());
    let kept = fs::read_to_string(&file).expect("the export");
    fs::write(&file, kept.replacen("\"format_version\": 1", "\"format_version\": 9", 1)).expect("a newer file");
    let output = with_input(&["--prompt"], &format!(":resume {json}\n:resume {json}.none\n:limit nothing\n:bogus\n"));
    let errors = err(&output);
    for part in ["format version 9", "No such file", "'nothing' is not a number", "unknown command ':bogus'"] {
        assert!(errors.contains(part), "'{part}' in {errors}");
    }
    fs::remove_file(file).expect("the export");
}

#[test]
fn a_cell_in_the_background_is_shown_before_a_later_prompt() {
    let mut notebook = program::Program::start(notebook().arg("--prompt"));
    notebook.type_line("let n = 0; while n < 1000 { print(n); n += 1; } n &");
    notebook.type_line(":open other");
    notebook.type_line("1 + 1");
    let meanwhile = notebook.out.expect("= 2\n");
    notebook.type_line(":wait");
    notebook.type_line("2 + 2");
    // How much of it was there already before the wait is a matter of luck.
    let shown = meanwhile + &notebook.out.expect("= 4\n");
    let expected: String = (0..1000).map(|number| format!("[main] {number}\n")).collect();
    assert!(shown.contains(&(expected + "[main] = 1000\n")), "{shown}");
    notebook.type_line("loop {} &");
    notebook.type_line(":interrupt");
    notebook.type_line(":wait");
    notebook.err.expect("[other] interrupted\n");
    assert!(notebook.end().success());
}

#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    for args in [&["--limit"][..], &["--limit", "-1"], &["--limit", "0"], &["--nonsense"], &["/no/such/file"]] {
        let output = notebook().args(args).stdin(Stdio::null()).output().expect("the notebook runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).starts_with("notebook: "), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
}
