//! A client of the server for these tests alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::server::Server;

/// An answer. Numbers are words, and no value is an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Word(String),
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn word(text: impl Into<String>) -> Self {
        Self::Word(text.into())
    }

    pub(crate) fn words<T: Into<String>>(words: impl IntoIterator<Item = T>) -> Self {
        Self::List(words.into_iter().map(|word| Self::Word(word.into())).collect())
    }

    pub(crate) fn ok() -> Self {
        Self::words(["ok"])
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Word(text) => text,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn list(&self) -> &[Value] {
        match self {
            Self::List(list) => list,
            other => panic!("{other:?}"),
        }
    }
}

/// A key of the namespace with what it holds, as far as a model can tell.
pub(crate) type Dump = BTreeMap<String, BTreeMap<String, String>>;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// By the names of the scripts.
    digests: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/scripts")
}

/// The names of the scripts that begin with the common part.
pub(crate) fn all_scripts() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the scripts").flatten();
    let names = files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".lua").map(str::to_owned));
    let names: Vec<String> = names.filter(|name| !["common", "found", "meet"].contains(&name.as_str())).collect();
    assert!(names.len() > 20);
    names
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let common = fs::read_to_string(folder().join("common.lua")).expect("the common part");
        let mut scripts = BTreeMap::new();
        for name in all_scripts() {
            let text = fs::read_to_string(folder().join(format!("{name}.lua"))).expect("a script");
            let (flags, rest) = text.split_once('\n').expect("a line of flags");
            assert!(flags.starts_with("#!lua"), "{name}: {flags}");
            scripts.insert(name, format!("{flags}\n{common}{rest}"));
        }
        let found = fs::read_to_string(folder().join("found.lua")).expect("a script");
        scripts.insert("found".into(), found);
        let mut client = Self { stream: BufReader::new(stream), digests: BTreeMap::new() };
        for (name, text) in scripts {
            let digest = client.command(&["SCRIPT", "LOAD", &text]).text().to_owned();
            client.digests.insert(name, digest);
        }
        client
    }

    pub(crate) fn command(&mut self, parts: &[&str]) -> Value {
        let mut text = format!("*{}\r\n", parts.len());
        parts.iter().for_each(|part| text.push_str(&format!("${}\r\n{part}\r\n", part.len())));
        self.stream.get_mut().write_all(text.as_bytes()).expect("the command is sent");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" | ":" => Value::word(rest),
            "$" if rest == "-1" => Value::List(Vec::new()),
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                self.stream.read_exact(&mut text).expect("a text");
                text.truncate(text.len() - 2);
                Value::Word(String::from_utf8(text).expect("UTF-8"))
            }
            "*" => Value::List((0..rest.parse::<i64>().expect("a length")).map(|_| self.answer()).collect()),
            _ => panic!("the server answers {line}"),
        }
    }

    /// Makes a namespace, and returns its id.
    pub(crate) fn meet(&mut self, namespace: &str) -> String {
        let script = self.digests["found"].clone();
        let id = format!("id of {namespace}");
        let met = self.command(&["EVALSHA", &script, "1", &format!("{namespace}:"), "", "1", &id]);
        assert_eq!(met, Value::words(["ok", &id]));
        id
    }

    pub(crate) fn script(&mut self, namespace: &str, id: &str, name: &str, args: &[String]) -> Value {
        let (script, prefix) = (self.digests[name].clone(), format!("{namespace}:"));
        let head = ["EVALSHA", &script, "1", &prefix, id];
        let parts: Vec<&str> = head.into_iter().chain(args.iter().map(String::as_str)).collect();
        self.command(&parts)
    }

    /// The keys of a namespace: the fields of hashes, the members of sets and lists. Of the others only the name.
    pub(crate) fn dump(&mut self, namespace: &str) -> Dump {
        let prefix = format!("{namespace}:");
        let keys = self.command(&["KEYS", "*"]);
        let keys: Vec<String> = keys.list().iter().map(|key| key.text().to_owned()).collect();
        let mut dump = Dump::new();
        for key in keys {
            let name = key.strip_prefix(&prefix).expect("a key of the namespace").to_owned();
            if name == "meta" {
                continue;
            }
            let held = match self.command(&["TYPE", &key]).text() {
                "hash" => self.command(&["HGETALL", &key]),
                "set" => self.command(&["SMEMBERS", &key]),
                "zset" => self.command(&["ZRANGE", &key, "0", "-1"]),
                _ => Value::List(Vec::new()),
            };
            let words: Vec<&str> = held.list().iter().map(Value::text).collect();
            let is_hash = name.starts_with("s:") && !name.ends_with(":h") || name.starts_with("req:");
            let fields = match is_hash {
                true => words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect(),
                false => words.iter().map(|word| ((*word).to_owned(), String::new())).collect(),
            };
            dump.insert(name, fields);
        }
        dump
    }

    /// The messages that a client was sent, each as its first two words and its kind.
    pub(crate) fn messages(&mut self, namespace: &str, cid: &str) -> Vec<[String; 3]> {
        let entries = self.command(&["XRANGE", &format!("{namespace}:c:{cid}"), "-", "+"]);
        let told = entries.list().iter().skip(1).map(|entry| {
            let fields: Vec<&str> = entry.list()[1].list().iter().map(Value::text).collect();
            let kind = fields.chunks(2).find(|pair| pair[0] == "kind").map_or("", |pair| pair[1]);
            [fields[0], fields[1], kind].map(str::to_owned)
        });
        told.collect()
    }
}
