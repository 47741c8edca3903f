//! Checks that every row of `docs/CONTRACT.md` has a test, and that every numbered test has a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders whose tests may have the number of a row in their names. Unit tests count too.
const FOLDERS: [&str; 9] = [
    "tests/acp",
    "tests/contract",
    "tests/cluster",
    "tests/store",
    "tests/models",
    "tests/faults",
    "tests/schedules",
    "tests/spans",
    "src",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contract() -> String {
    fs::read_to_string(root().join("docs/CONTRACT.md")).expect("the contract")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The number in `text`, if all of it is the name of a row: `c` or `C`, then digits.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix(['c', 'C'])?;
    (digits.len() >= 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The names of the functions in `text` that are tests.
fn tests_in(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if std::mem::take(&mut is_test) {
                names.extend(rest.split('(').next());
            }
        }
    }
    names
}

/// The rows that a test proves: the numbers at the beginning of its name, one or several.
fn rows_of(test: &str) -> impl Iterator<Item = u32> + '_ {
    test.split('_').map_while(number)
}

/// The tests of each row, by number.
fn tested() -> BTreeMap<u32, Vec<String>> {
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| rust_files(&root().join(folder), &mut files));
    let mut tested: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("source text");
        for test in tests_in(&text) {
            for row in rows_of(test) {
                tested.entry(row).or_default().push(format!("{}: {test}", file.display()));
            }
        }
    }
    assert!(tested.len() > 40, "the numbered tests were not found");
    tested
}

/// The names of the anchors in `text`, in order.
fn anchors(text: &str) -> impl Iterator<Item = &str> {
    text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// The rows of the contract that have a number, by number.
fn rows() -> BTreeSet<u32> {
    anchors(&contract()).filter_map(number).collect()
}

#[test]
fn every_row_has_a_test() {
    let tested = tested();
    let without: Vec<u32> = rows().into_iter().filter(|row| !tested.contains_key(row)).collect();
    assert!(
        without.is_empty(),
        "rows of docs/CONTRACT.md without a test whose name begins with the number: {without:?}"
    );
}

#[test]
fn every_numbered_test_has_a_row() {
    let rows = rows();
    let tested = tested();
    let without: Vec<&String> =
        tested.iter().filter(|(row, _)| !rows.contains(row)).flat_map(|(_, tests)| tests).collect();
    assert!(without.is_empty(), "tests whose number is no row of docs/CONTRACT.md: {without:#?}");
}

#[test]
fn a_row_has_a_line_and_a_number_of_its_own() {
    let text = contract();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let mut anchors = anchors(line);
        let Some(anchor) = anchors.next() else { continue };
        assert!(anchors.next().is_none(), "two rows in a line: {line}");
        assert!(seen.insert(anchor), "two rows have the anchor '{anchor}'");
        if number(anchor).is_some() {
            let title = format!("</a>**{}", anchor.to_uppercase());
            assert!(line.contains(&title), "the title of the row '{anchor}' has another number: {line}");
            assert!(text.contains(&format!("(#{anchor})")), "the index has no '{anchor}'");
        }
    }
}

#[test]
fn links_and_files_in_the_contract_exist() {
    let text = contract();
    let headings = text.lines().filter_map(|line| line.strip_prefix("## ")).map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    });
    let targets: BTreeSet<String> = headings.chain(anchors(&text).map(str::to_owned)).collect();
    for link in text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(targets.contains(link), "a link has no target: #{link}");
    }
    for file in text.split('`').filter(|part| part.starts_with("tests/") && part.ends_with(".rs")) {
        assert!(root().join(file).is_file(), "{file} does not exist");
    }
}
