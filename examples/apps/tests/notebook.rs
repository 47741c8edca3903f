//! The notebook, used as a user would: script files, standard input, the prompt, Ctrl-C.
#![cfg(unix)]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use folder::Folder;

fn notebook() -> Command {
    program::command("notebook")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
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
fn every_shipped_script_prints_its_expected_output() {
    for name in ["primes", "adventure", "monte_carlo", "strings"] {
        let output = notebook().arg(script(&format!("{name}.rhai"))).output().expect("the notebook runs");
        let expected = fs::read_to_string(script(&format!("{name}.out"))).expect("the expected output");
        assert_eq!(out(&output), expected, "{name}");
        assert_eq!(output.status.code(), Some(0), "{name}: {}", err(&output));
    }
}

#[test]
fn the_shipped_mistakes_are_reported_and_change_nothing() {
    let output = notebook().arg(script("mistakes.rhai")).output().expect("the notebook runs");
    let expected = fs::read_to_string(script("mistakes.out")).expect("the expected output");
    let (errors, values): (Vec<&str>, Vec<&str>) = expected.lines().partition(|line| line.starts_with("error: "));
    assert_eq!(out(&output).lines().collect::<Vec<_>>(), values);
    assert_eq!(err(&output).lines().collect::<Vec<_>>(), errors);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn several_files_are_several_sessions_with_their_output_prefixed() {
    let files = ["primes.rhai", "adventure.rhai"].map(script);
    let output = notebook().args(files).output().expect("the notebook runs");
    for name in ["primes", "adventure"] {
        let prefix = format!("[{name}] ");
        let printed = out(&output);
        let own: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect();
        let expected = fs::read_to_string(script(&format!("{name}.out"))).expect("the expected output");
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
    // Each line shows that its cell runs, because output appears during the cell.
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
    // The input stays open. A wait for the child would close it, and the end of the input would end the program too.
    let input = child.stdin.take();
    interrupt(&child);
    assert_eq!(child.wait().expect("the notebook ends").code(), Some(130));
    drop(input);
}

#[test]
fn the_prompt_opens_switches_lists_reads_exports_resumes_and_archives() {
    let folder = Folder::new();
    let json = folder.text("history.json");
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
    assert!(printed.contains("= 12\n"), "the resumed kernel has its values: {printed}");
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
    let kept = fs::read_to_string(&json).expect("the export");
    fs::write(&json, kept.replacen("\"format_version\": 1", "\"format_version\": 9", 1)).expect("a newer file");
    let output = with_input(&["--prompt"], &format!(":resume {json}\n:resume {json}.none\n:limit nothing\n:bogus\n"));
    let errors = err(&output);
    for part in ["format version 9", "No such file", "'nothing' is not a number", "unknown command ':bogus'"] {
        assert!(errors.contains(part), "'{part}' in {errors}");
    }
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
    // How much of the output arrives before the wait depends on timing.
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
fn a_failed_cell_changes_no_variable_that_closures_share() {
    let cells = [
        "let x = 1; let f = || x; let g = || { x += 1; x }; f.call()",
        "x = 99; throw \"no\"",
        "g.call(); g.call(); nonsense()",
        "let x = 7; let f = 8; throw \"no\"",
        "[x, f.call()]",
        // After the roll-back the closures still share the variable, in both directions.
        "x = 5; f.call()",
        "g.call(); [x, f.call()]",
        // These values are nested, and several closures share one of them.
        "let m = #{ list: [1] }; let h = || m; let k = |n| { m.list.push(n); m.list.len() }; k.call(2)",
        "m.list.push(3); m.more = f; k.call(4); x = 0; throw \"no\"",
        "[m, h.call(), x]",
        "k.call(5); [m, h.call()]",
        // This value contains itself.
        "let circle = 0; let inside = || circle; circle = #{ inside: inside, n: 1 }; circle.n",
        "circle.n = 2; circle.inside.call().n = 3; throw \"no\"",
        "circle.n + inside.call().n",
        // A constant stays as it is, also when it is captured.
        "const K = [1]; let c = || K; c.call()",
        "let d = || { K += 2; }; d.call()",
        "c.call()",
    ];
    let output = with_input(&[], &cells.join("\n// %%\n"));
    let expected = [
        "= 1",
        "= [1, 1]",
        "= 5",
        "= [6, 6]",
        "= 2",
        r##"= [#{"list": [1, 2]}, #{"list": [1, 2]}, 6]"##,
        r##"= [#{"list": [1, 2, 5]}, #{"list": [1, 2, 5]}]"##,
        "= 1",
        "= 2",
        "= [1]",
        "= [1]",
    ];
    assert_eq!(out(&output).lines().collect::<Vec<_>>(), expected, "{}", err(&output));
    assert_eq!(err(&output).lines().count(), 5, "{}", err(&output));
}

#[test]
fn an_interrupted_cell_changes_no_variable_that_closures_share() {
    let mut notebook = program::Program::start(notebook().arg("--prompt"));
    notebook.type_line("let x = 1; let f = || x; f.call()");
    notebook.out.expect("= 1\n");
    notebook.type_line("x = 99; print(f.call()); loop {}");
    notebook.out.expect("99\n");
    notebook.interrupt();
    notebook.err.expect("interrupted\n");
    notebook.type_line("x + f.call()");
    notebook.out.expect("= 2\n");
    assert!(notebook.end().success());
}

/// Cells whose memory grows without a limit, each with its error message.
#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_a_cell_is_bounded_whatever_grows_in_it() {
    let variables: String = (0..10_001).map(|number| format!("let v{number} = 0; ")).collect();
    let functions: String = (0..1_001).map(|number| format!("fn f{number}() {{}} ")).collect();
    let cells: [(&str, &str); 14] = [
        ("let f = |a, b| a; loop { f = f.curry(f).curry(f); }", "more than"),
        ("let f = || 1; loop { let g = f; f = || g.call(); }", "nested more than 500 deep"),
        ("fn wrap(g) { || g } let f = 1; loop { f = wrap(f); }", "nested more than 500 deep"),
        ("let a = []; loop { a = [a]; }", "nested more than 500 deep"),
        ("let m = #{}; loop { m = #{ m: m }; }", "nested more than 500 deep"),
        ("let s = \"s\"; loop { s += s; }", "Length of string too large"),
        ("let s = \"\"; s.pad(1000000, 's'); s.replace(\"s\", s);", "Length of string too large"),
        ("let s = \"\"; s.pad(1000000, 's'); s.replace('s', s);", "Length of string too large"),
        ("let a = [1]; loop { a += a; }", "Size of array/BLOB too large"),
        ("let b = blob(1000); loop { b += b; }", "Size of array/BLOB too large"),
        ("let m = #{}; let n = 0; loop { m[`n${n}`] = blob(1000000); n += 1; }", "more than 128 MB"),
        (&variables, "Too many variables"),
        (&functions, "exceeds maximum"),
        // No variable refers to these cycles any more, and they are never freed.
        ("loop { let a = []; let b = blob(100000); let f = || [a, b]; a = f; }", "the kernels take more than 300 MB"),
    ];
    for (cell, told) in cells {
        let mut notebook = program::Program::start(notebook().args(["--prompt", "--memory", "300"]));
        notebook.type_line(cell);
        notebook.err.expect(told);
        notebook.type_line("print(\"go\" + \"es on\")");
        notebook.out.expect("goes on\n");
        let status = fs::read_to_string(format!("/proc/{}/status", notebook.id())).expect("the status of the process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak memory");
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(peak < 700 << 10, "{cell}: {peak} kB");
        assert!(notebook.end().success());
    }
}

#[test]
fn long_output_waits_until_it_is_shown_and_is_kept_in_part() {
    let folder = Folder::new();
    let json = folder.text("history.json");
    let mut notebook = program::Program::start(notebook().arg("--prompt"));
    notebook.type_line("let n = 0; while n < 20000 { print(n); n += 1; } n &");
    notebook.type_line(":wait");
    let expected: String = (0..20_000).map(|number| format!("[main] {number}\n")).collect();
    let shown = notebook.out.expect("[main] = 20000\n");
    assert!(shown.ends_with(&expected), "every line, in order");
    notebook.type_line("let a = []; a.pad(100000, 1); a");
    notebook.out.expect("… (cut off)\n");
    notebook.type_line(&format!(":export {json}"));
    notebook.out.expect("2 cells of 'main' are in");
    let length = fs::metadata(&json).expect("the export").len();
    assert!((100 << 10..200 << 10).contains(&length), "{length}");
    assert!(notebook.end().success());
}

#[test]
fn a_byte_order_mark_and_a_shebang_line_are_accepted() {
    let script = "\u{feff}#!/usr/bin/env notebook\nlet a = 40;\n// %%\na + 2\n";
    let output = with_input(&[], script);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("= 42\n", ""));
    let output = with_input(&[], "\u{feff}// %% begins\n40 + 2");
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("= 42\n", ""));
    let output = with_input(&[], "#!/usr/bin/env notebook\nnonsense()");
    assert!(err(&output).contains("(line 2, position 1)"), "lines are counted as in the file: {}", err(&output));

    let folder = Folder::new();
    let (script_file, history) = (folder.path("bom.rhai"), folder.path("bom.json"));
    fs::write(&script_file, script).expect("a script");
    let output = notebook().arg(&script_file).output().expect("the notebook runs");
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("= 42\n", ""));
    // Here the cells of a history begin like that, and so does its file.
    let json = history.to_str().expect("a plain path");
    let output = with_input(&["--prompt"], &format!("let a = 40;\n:export {json}\n"));
    assert!(output.status.success(), "{}", err(&output));
    let kept = fs::read_to_string(&history).expect("the export").replace("let a", "\u{feff}#! x\\nlet a");
    fs::write(&history, format!("\u{feff}{kept}")).expect("a history");
    let output = with_input(&["--prompt"], &format!(":resume {json} again\na + 2\n"));
    assert!(out(&output).contains("= 42\n"), "{}{}", out(&output), err(&output));
}

#[test]
fn the_help_names_the_limits() {
    let output = with_input(&["--prompt"], ":help\n");
    for part in ["native function", "nested 500 deep", "128 MB", "--memory"] {
        assert!(out(&output).contains(part), "{part}");
    }
}

#[test]
fn bad_arguments_are_refused_before_the_first_cell() {
    for args in [
        &["--limit"][..],
        &["--limit", "-1"],
        &["--limit", "0"],
        &["--memory", "0"],
        &["--nonsense"],
        &["/no/such/file"],
    ] {
        let output = notebook().args(args).stdin(Stdio::null()).output().expect("the notebook runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).starts_with("notebook: "), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
}
