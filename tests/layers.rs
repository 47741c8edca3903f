//! Checks that only `src/sync.rs` names primitives, and that imports between layers point one way.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A file may use its own layer and those below it.
const LAYERS: [&str; 27] = [
    "sync",
    "model",
    "error",
    "panics",
    "spans",
    "ids",
    "wait",
    "time",
    "cancel",
    "permits",
    "reentrancy",
    "exiting_threads",
    "timers",
    "subscription",
    "inbox",
    "comms",
    "status",
    "turn",
    "service",
    "context",
    "agent",
    "session",
    "ephemeral",
    "store",
    "cluster",
    "acp",
    "testkit",
];
/// Outside of the layers: the crate's root, and the texts of the guide.
const TOP: [&str; 2] = ["lib", "guide"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.file_stem().is_some_and(|name| name == "tests") {
                // Tests may use any layer and any primitive.
            } else if path.is_dir() {
                walk(&path, found);
            } else {
                let text = fs::read_to_string(&path).expect("source text");
                // Unit tests at the end of a file are left out too.
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(&text).to_owned();
                found.push((path, code));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the source files were not found");
    found
}

fn layer_of(path: &Path) -> String {
    let src = path.ancestors().find(|folder| folder.ends_with("src")).expect("a source file");
    let first = path.strip_prefix(src).expect("below src").components().next().expect("a name");
    Path::new(first.as_os_str()).with_extension("").to_string_lossy().into_owned()
}

/// The lines of `text` without their comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or(line))
}

#[test]
fn threads_atomics_locks_and_channels_are_named_in_sync_only() {
    let primitives = [
        "std::thread",
        "std::sync",
        "parking_lot",
        "crossbeam_channel",
        "core::sync",
        "Instant::now",
        "std::time::Instant",
    ];
    for (path, text) in sources() {
        let layer = layer_of(&path);
        for line in code_lines(&text) {
            for primitive in primitives {
                let allowed = layer == "sync"
                    // The re-exports for users.
                    || ["pub use crossbeam_channel;", "pub use sync::channels as crossbeam_channel;"].contains(&line)
                    // A call of `Instant::now` is allowed. Only its import names the primitive.
                    || (primitive == "Instant::now" && !line.contains("std::"));
                assert!(allowed || !line.contains(primitive), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn imports_point_one_way() {
    let rank = |layer: &str| LAYERS.iter().position(|other| *other == layer);
    for (path, text) in sources() {
        let layer = layer_of(&path);
        if TOP.contains(&layer.as_str()) {
            continue;
        }
        let own = rank(&layer).unwrap_or_else(|| panic!("{} belongs to no layer", path.display()));
        for line in code_lines(&text) {
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let used = rank(&name).unwrap_or_else(|| panic!("{}: {line}", path.display()));
                assert!(used <= own, "{}: '{layer}' must not use '{name}': {line}", path.display());
            }
        }
    }
}
