//! The header that is checked in is the one that cbindgen generates.

use std::path::Path;
use std::{env, fs};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("the configuration");
    // The generator follows the modules of the crate.
    let builder = cbindgen::Builder::new().with_config(config).with_src(root().join("src/lib.rs"));
    let mut header = Vec::new();
    builder.generate().expect("the bindings").write(&mut header);
    String::from_utf8(header).expect("text")
}

/// `TURNWISE_WRITE_HEADER=1` writes the header instead.
#[test]
fn c90_the_header_is_current() {
    let path = root().join("include/turnwise.h");
    let generated = generated();
    if env::var_os("TURNWISE_WRITE_HEADER").is_some() {
        fs::write(&path, &generated).expect("the header");
    }
    let checked_in = fs::read_to_string(&path).expect("the header");
    assert!(checked_in == generated, "include/turnwise.h is not current: run with TURNWISE_WRITE_HEADER=1");
}

#[test]
fn c90_every_exported_function_is_in_the_header() {
    let header = fs::read_to_string(root().join("include/turnwise.h")).expect("the header");
    let mut exported = 0;
    for file in fs::read_dir(root().join("src/abi")).expect("a folder").flatten() {
        let text = fs::read_to_string(file.path()).expect("source text");
        for part in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a function");
            assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
            exported += 1;
        }
    }
    assert!(exported > 40, "the functions were not found");
}
