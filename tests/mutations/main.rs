//! Proof that the tests can fail: deliberate breakages of the protocols, each with the tests of which one has to fail.
//!
//! `cargo test --test mutations` checks that the table fits the source. This command breaks a copy of the library, one
//! mutation at a time, and runs the tests of that mutation. It takes minutes:
//!
//! `cargo test --release --test mutations -- --ignored --nocapture`
//!
//! `TURNWISE_MUTATION=<part of a name>` selects mutations.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use table::{Mutation, Proof, MUTATIONS};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The mutated text of the file, or the reason why the mutation does not fit the file.
fn mutated(mutation: &Mutation) -> Result<String, String> {
    let text = fs::read_to_string(root().join(mutation.file)).expect("a source file");
    mutation.edits.iter().try_fold(text, |text, (from, to)| match text.matches(from).count() {
        1 => Ok(text.replace(from, to)),
        count => Err(format!("'{}': {count} times in {}: {from}", mutation.name, mutation.file)),
    })
}

#[test]
fn every_mutation_fits_the_source() {
    let misfits: Vec<String> = MUTATIONS.iter().filter_map(|mutation| mutated(mutation).err()).collect();
    assert!(misfits.is_empty(), "{misfits:#?}");
    assert!(MUTATIONS.len() >= 95, "{} mutations", MUTATIONS.len());
}

#[test]
#[ignore = "takes minutes"]
fn every_mutation_is_noticed() {
    let wanted = std::env::var("TURNWISE_MUTATION").unwrap_or_default();
    let copy = root().join("target/mutations");
    let mut unnoticed = Vec::new();
    let is_wanted =
        |mutation: &&Mutation| [mutation.name, &mutation.proof.to_string()].iter().any(|text| text.contains(&wanted));
    let wanted: Vec<&Mutation> = MUTATIONS.iter().filter(is_wanted).collect();
    lay_out(&copy).expect("a copy of the package");
    for proof in wanted.iter().map(|mutation| mutation.proof).collect::<BTreeSet<Proof>>() {
        let output = run(&copy, proof);
        assert!(output.status.success(), "{proof} fails without any mutation:\n{}", text_of(&output));
    }
    for mutation in wanted {
        lay_out(&copy).expect("a copy of the package");
        fs::write(copy.join(mutation.file), mutated(mutation).expect("the mutation fits the source"))
            .expect("the mutated file");
        let verdict = judge(&run(&copy, mutation.proof));
        println!("{:<8} {:<14} {}", verdict, mutation.proof.to_string(), mutation.name);
        if verdict != NOTICED {
            unnoticed.push((verdict, mutation.name));
        }
    }
    assert!(unnoticed.is_empty(), "no test noticed these mutations: {unnoticed:#?}");
}

const NOTICED: &str = "noticed";

/// The verdict on a mutation. A mutation that does not compile, or whose filter matches no test, proves nothing.
fn judge(output: &Output) -> &'static str {
    let text = text_of(output);
    let ran = text.lines().any(|line| line.starts_with("running ") && line != "running 0 tests");
    if text.contains("could not compile") {
        "NO BUILD"
    } else if !ran {
        "NO TEST"
    } else if output.status.success() {
        "SURVIVED"
    } else {
        NOTICED
    }
}

fn text_of(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Runs the tests that have to notice a mutation. A watchdog or the model checker ends a test that hangs. `timeout`
/// ends a run that neither of them ends.
fn run(package: &Path, proof: Proof) -> Output {
    let mut command = Command::new("timeout");
    command.args(["600", "cargo", "test", "--quiet"]).current_dir(package).env("RUST_BACKTRACE", "0");
    let (flags, folder, filter) = match proof {
        Proof::Contract(filter) => {
            command.args(["--all-features", "--test", "contract"]);
            ("", "contract", filter)
        }
        Proof::Acp(filter) => {
            command.args(["--all-features", "--lib", "--test", "acp"]);
            ("", "contract", filter)
        }
        Proof::Store(filter) => {
            command.args(["--all-features", "--test", "store"]);
            ("", "contract", filter)
        }
        Proof::Cluster(filter) => {
            command.args(["--all-features", "--test", "cluster"]);
            command.env("TURNWISE_REQUIRE_REDIS", "1").env("TURNWISE_REQUIRE_NAMESPACES", "1");
            ("", "contract", filter)
        }
        Proof::Unit(filter) => {
            command.args(["--all-features", "--lib"]);
            ("", "contract", filter)
        }
        Proof::History => {
            command.args(["--all-features", "--test", "history"]);
            ("", "contract", "histories_are_explained")
        }
        Proof::Shuttle(filter) => {
            command.args(["--release", "--features", "redis", "--lib"]).env("TURNWISE_SCHEDULES", "2000");
            ("--cfg turnwise_shuttle", "shuttle", filter)
        }
        Proof::Loom(filter) => {
            command.args(["--release", "--lib"]);
            ("--cfg turnwise_loom", "loom", filter)
        }
    };
    let target = root().join("target/mutated").join(folder);
    command
        .env("RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .arg("--target-dir")
        .arg(target)
        .args(["--", filter]);
    if matches!(proof, Proof::Shuttle(_) | Proof::Loom(_)) {
        // The filter may match unit tests too. They fail outside of a model, mutated or not.
        command.args(["--skip", "tests::"]);
    }
    command.output().expect("cargo runs")
}

/// Copies the unchanged package into another folder.
fn lay_out(copy: &Path) -> io::Result<()> {
    fs::create_dir_all(copy)?;
    for part in ["Cargo.toml", "Cargo.lock", "README.md", "docs", "src", "tests", "benches", "examples"] {
        copy_all(&root().join(part), &copy.join(part))?;
    }
    Ok(())
}

/// Writes only the files that differ, so that little is compiled again.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        // A file that was moved or removed since the last run would be compiled too.
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            let (path, is_folder) = (entry.path(), entry.file_type()?.is_dir());
            if entry.file_name() != "target" && !from.join(entry.file_name()).exists() {
                if is_folder {
                    fs::remove_dir_all(path)?
                } else {
                    fs::remove_file(path)?
                }
            }
        }
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_name() != "target" {
                copy_all(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        return Ok(());
    }
    let content = fs::read(from)?;
    if fs::read(to).ok().as_ref() != Some(&content) {
        fs::write(to, content)?;
    }
    Ok(())
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Acp(filter) => write!(f, "acp {filter}"),
            Self::Contract(filter) => write!(f, "contract {filter}"),
            Self::Store(filter) => write!(f, "store {filter}"),
            Self::Cluster(filter) => write!(f, "cluster {filter}"),
            Self::Unit(filter) => write!(f, "unit {filter}"),
            Self::History => write!(f, "history"),
            Self::Shuttle(filter) => write!(f, "shuttle {filter}"),
            Self::Loom(filter) => write!(f, "loom {filter}"),
        }
    }
}
