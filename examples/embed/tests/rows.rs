//! Every row of `CONTRACT.md` has a test, every numbered test has a row, and the files that the rows name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contract() -> String {
    fs::read_to_string(root().join("CONTRACT.md")).expect("the contract")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "py") {
            found.push(path);
        }
    }
}

/// The rows at the beginning of a test's name, without `test_`.
fn rows_of(name: &str) -> impl Iterator<Item = u32> + '_ {
    let parts = name.strip_prefix("test_").unwrap_or(name).split('_');
    parts.map_while(|part| part.strip_prefix('c').and_then(|digits| digits.parse().ok()))
}

#[test]
fn rows_and_tests_belong_together() {
    let text = contract();
    let anchors = text.split("<a id=\"c").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok());
    let rows: BTreeSet<u32> = anchors.collect();
    let mut sources = Vec::new();
    ["src", "tests", "python/tests"].iter().for_each(|folder| files(&root().join(folder), &mut sources));
    let mut tested = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).expect("source text");
        for line in text.lines().map(str::trim_start) {
            let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def test_"));
            tested.extend(name.into_iter().flat_map(rows_of));
        }
    }
    assert_eq!(rows, tested);
    assert_eq!(rows.len(), 10);
}

#[test]
fn the_files_of_the_rows_exist() {
    let text = contract();
    let named = text.split('`').filter(|part| part.ends_with(".rs") || part.ends_with(".py"));
    for file in named {
        assert!(root().join(file).is_file(), "{file} does not exist");
    }
}
