//! The programs in `tests/c`: compiled without a warning, and run alone, under valgrind, and with the sanitizers of gcc.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{has, libraries, root, run};
use tempfile::TempDir;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The libraries of the system that a Rust static library needs.
const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

enum Link {
    Shared,
    /// With AddressSanitizer and UndefinedBehaviorSanitizer.
    StaticSanitized,
}

/// Compiles a program of `tests/c` or of the examples.
fn compile(source: &str, link: &Link, folder: &Path) -> PathBuf {
    let is_cpp = source.ends_with(".cpp");
    let program = folder.join("program");
    let mut command = Command::new(if is_cpp { "g++" } else { "gcc" });
    command.args(WARNINGS).args(["-g", "-O1", "-pthread", "-D_GNU_SOURCE"]);
    command.arg(if is_cpp { "-std=c++17" } else { "-std=c11" });
    for include in ["include", "tests/c"] {
        command.arg("-I").arg(root().join(include));
    }
    if matches!(link, Link::StaticSanitized) {
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]);
    }
    command.arg(root().join(source)).arg("-o").arg(&program);
    match link {
        Link::Shared => {
            // Before the search path of cargo, which has libraries of earlier builds.
            let rpath = format!("-Wl,--disable-new-dtags,-rpath,{}", libraries().display());
            command.arg("-L").arg(libraries()).arg("-lturnwise").arg(rpath);
        }
        Link::StaticSanitized => {
            command.arg(libraries().join("libturnwise.a")).args(SYSTEM);
        }
    }
    run(&mut command);
    program
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Compiles and runs a program alone and under the tools. Returns what it has printed, the same each time.
fn check(source: &str, compiler: &str) -> String {
    if !has(compiler) {
        return String::new();
    }
    let (of_program, of_data) = (folder(), folder());
    let program = compile(source, &Link::Shared, of_program.path());
    let alone = run(Command::new(&program).arg(of_data.path()));
    if has("valgrind") {
        let of_data = folder();
        let mut valgrind = Command::new("valgrind");
        // Some blocks are reachable only through pointers into them, which valgrind calls possibly lost.
        valgrind.args(["-q", "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
        assert_eq!(run(valgrind.arg("--error-exitcode=99").arg(&program).arg(of_data.path())), alone);
    }
    let (of_program, of_data) = (folder(), folder());
    let program = compile(source, &Link::StaticSanitized, of_program.path());
    assert_eq!(run(Command::new(program).arg(of_data.path())), alone);
    alone
}

#[test]
fn c90_every_call_works_from_c() {
    check("tests/c/calls.c", "gcc");
}

#[test]
fn c91_c92_c93_c94_misuse_is_an_error_code() {
    check("tests/c/misuse.c", "gcc");
}

#[test]
fn c95_a_host_polls_the_descriptor() {
    check("tests/c/loop.c", "gcc");
}

#[test]
fn c90_every_call_works_from_cpp() {
    check("tests/c/wrapper.cpp", "g++");
}

#[test]
fn c95_the_game_never_waits_for_an_agent() {
    let told = check("game.c", "gcc");
    assert!(told.is_empty() || told == "the cave: you go in.\nthe tower: you go away.\n", "{told}");
}
