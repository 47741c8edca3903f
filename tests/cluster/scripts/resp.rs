//! A client of the server for these tests alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Call;
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

/// The field that stands for the time to live of a key, in tens of minutes, rounded up.
pub(crate) const EXPIRES: &str = "(expires)";

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

/// The text of a script, without the common part.
pub(crate) fn text_of(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.lua"))).expect("a script")
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let common = text_of("common");
        let mut scripts = BTreeMap::new();
        for name in all_scripts() {
            let text = text_of(&name);
            let (flags, rest) = text.split_once('\n').expect("a line of flags");
            assert!(flags.starts_with("#!lua"), "{name}: {flags}");
            scripts.insert(name, format!("{flags}\n{common}{rest}"));
        }
        scripts.insert("found".into(), text_of("found"));
        let mut client = Self { stream: BufReader::new(stream), digests: BTreeMap::new() };
        for (name, text) in scripts {
            let digest = client.command(&["SCRIPT", "LOAD", &text]).text().to_owned();
            client.digests.insert(name, digest);
        }
        client
    }

    pub(crate) fn command(&mut self, parts: &[&str]) -> Value {
        self.send(parts);
        self.answer()
    }

    fn send(&mut self, parts: &[&str]) {
        let mut text = format!("*{}\r\n", parts.len());
        parts.iter().for_each(|part| text.push_str(&format!("${}\r\n{part}\r\n", part.len())));
        self.stream.get_mut().write_all(text.as_bytes()).expect("the command is sent");
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
        self.send_script(namespace, id, name, args);
        self.answer()
    }

    /// Makes calls, one behind another, and returns their answers.
    pub(crate) fn calls(&mut self, namespace: &str, id: &str, calls: &[Call]) -> Vec<Value> {
        calls.iter().for_each(|call| self.send_script(namespace, id, call.script, &call.args));
        calls.iter().map(|_| self.answer()).collect()
    }

    fn send_script(&mut self, namespace: &str, id: &str, name: &str, args: &[String]) {
        let (script, prefix) = (self.digests[name].clone(), format!("{namespace}:"));
        let head = ["EVALSHA", &script, "1", &prefix, id];
        let parts: Vec<&str> = head.into_iter().chain(args.iter().map(String::as_str)).collect();
        self.send(&parts);
    }

    /// Ends the lease of a worker ('w') or of a client ('c'), which no script does. The keys of a client end with it.
    pub(crate) fn end_lease(&mut self, namespace: &str, kind: &str, name: &str) {
        let key = format!("{namespace}:{kind}:{name}");
        let lease = format!("{key}:l");
        match kind {
            "w" => self.command(&["DEL", &lease]),
            _ => self.command(&["DEL", &lease, &key, &format!("{key}:f")]),
        };
    }

    /// The keys of a namespace: the fields of hashes, the members of sets and lists. Of the others only the name. With
    /// the time to live of those that expire.
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
            let kind = self.command(&["TYPE", &key]).text().to_owned();
            let held = match kind.as_str() {
                "hash" => self.command(&["HGETALL", &key]),
                "set" => self.command(&["SMEMBERS", &key]),
                "zset" => self.command(&["ZRANGE", &key, "0", "-1"]),
                _ => Value::List(Vec::new()),
            };
            let words: Vec<&str> = held.list().iter().map(Value::text).collect();
            let mut fields: BTreeMap<String, String> = match kind.as_str() {
                "hash" => words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect(),
                _ => words.iter().map(|word| ((*word).to_owned(), String::new())).collect(),
            };
            // Far more time than a plan takes.
            let ttl: i64 = self.command(&["PTTL", &key]).text().parse().expect("a time to live");
            if ttl >= 0 {
                fields.insert(EXPIRES.into(), ttl.unsigned_abs().div_ceil(600_000).to_string());
            }
            dump.insert(name, fields);
        }
        dump
    }

    /// The streams of a namespace, with the words of each entry.
    pub(crate) fn streams(&mut self, namespace: &str) -> BTreeMap<String, Vec<Vec<String>>> {
        let prefix = format!("{namespace}:");
        let keys = self.command(&["KEYS", "*"]);
        let mut streams = BTreeMap::new();
        for key in keys.list().iter().map(Value::text) {
            if self.command(&["TYPE", key]).text() == "stream" {
                let entries = self.command(&["XRANGE", key, "-", "+"]);
                let words = |entry: &Value| entry.list()[1].list().iter().map(|word| word.text().to_owned()).collect();
                let name = key.strip_prefix(&prefix).expect("a key of the namespace").to_owned();
                streams.insert(name, entries.list().iter().map(words).collect());
            }
        }
        streams
    }
}
