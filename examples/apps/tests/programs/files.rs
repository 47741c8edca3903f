//! Files that are written as a whole or not at all.

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::process::Command;

use crate::folder::Folder;
use crate::program::{command, Program};

use turnwise_apps::save::save;

#[test]
fn a_saved_file_replaces_the_old_one_and_keeps_its_permissions() {
    let folder = Folder::new();
    let file = folder.path("file");
    save(&file, b"first").expect("a new file");
    let usual = folder.path("usual");
    fs::write(&usual, "").expect("a file");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(&file), mode(&usual), "a new file has the system's default permissions");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("this process owns the file");
    let first = fs::metadata(&file).expect("the file").ino();
    let open = fs::File::open(&file).expect("the file");
    save(&file, b"second").expect("replaced");
    assert_eq!(fs::read(&file).expect("the file"), b"second");
    assert_eq!(mode(&file), 0o640);
    // A reader that has opened the old file can still read all of it.
    assert_eq!(std::io::read_to_string(open).expect("the old file"), "first");
    assert_ne!(fs::metadata(&file).expect("the file").ino(), first);
    assert_eq!(folder.names(), ["file", "usual"]);
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let folder = Folder::new();
    fs::create_dir(folder.path("far")).expect("a folder");
    fs::write(folder.path("far/file"), "old").expect("a file");
    symlink("far/link", folder.path("link")).expect("a link");
    symlink("file", folder.path("far/link")).expect("a link");
    save(&folder.path("link"), b"new").expect("saved");
    assert_eq!(fs::read(folder.path("far/file")).expect("the file"), b"new");
    assert!(fs::symlink_metadata(folder.path("link")).expect("the link").is_symlink());
    symlink("not/yet", folder.path("dangling")).expect("a link");
    save(&folder.path("dangling"), b"new").expect_err("there is no such folder");
    fs::create_dir(folder.path("not")).expect("a folder");
    save(&folder.path("dangling"), b"new").expect("saved");
    assert_eq!(fs::read(folder.path("not/yet")).expect("the file"), b"new");
    symlink("circle", folder.path("circle")).expect("a link");
    save(&folder.path("circle"), b"new").expect_err("the link leads to itself");
    assert_eq!(folder.names(), ["circle", "dangling", "far", "link", "not"]);
}

#[test]
fn a_file_that_is_not_regular_is_written_to() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe)
    });
    save(&pipe, b"through").expect("written");
    assert_eq!(reader.join().expect("no panic").expect("text"), "through");
    assert_eq!(folder.names(), ["pipe"]);
    save(&folder.path(""), b"").expect_err("a folder");
    // First standard output is a pipe, and then a file that the shell has opened.
    let export = |redirect: &str| {
        let line = format!("printf '1\\n:export /dev/stdout\\n' | \"$0\" --prompt {redirect}");
        let program = command("notebook").get_program().to_owned();
        Command::new("sh").args(["-c", &line]).arg(program).output().expect("a shell")
    };
    let printed = String::from_utf8(export("").stdout).expect("text");
    assert!(printed.contains("\"format_version\"") && printed.ends_with("are in /dev/stdout\n"), "{printed}");
    let file = folder.path("out");
    assert!(export(&format!(">> '{}'", file.display())).status.success());
    let printed = fs::read_to_string(&file).expect("the file");
    assert!(printed.contains("\"format_version\"") && printed.ends_with("are in /dev/stdout\n"), "{printed}");
}

/// The limit of file sizes stands for a full disk.
#[test]
fn an_export_that_fails_leaves_the_old_file() {
    let folder = Folder::new();
    let file = folder.path("history.json");
    let path = file.to_str().expect("a plain path");
    let line = "trap '' XFSZ; ulimit -f 4; exec \"$0\" --prompt";
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).arg(command("notebook").get_program());
    let mut notebook = Program::start(&mut shell);
    notebook.type_line("let a = 1;");
    notebook.type_line(&format!(":export {path}"));
    notebook.out.expect("1 cells of 'main' are in");
    let first = fs::read_to_string(&file).expect("the export");
    notebook.type_line(&format!("\"{}\".len()", "x".repeat(8_000)));
    notebook.out.expect("= 8000\n");
    notebook.type_line(&format!(":export {path}"));
    notebook.err.expect(&format!("error: {path}: File too large"));
    assert!(notebook.end().success());
    assert_eq!(fs::read_to_string(&file).expect("the export"), first);
    assert_eq!(folder.names(), ["history.json"]);
}
