//! A server for the unit tests of the client: it accepts clients and turns, and does nothing for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::core::Core;
use super::sender::Job;
use crate::cluster::config::EngineConfig;
use crate::cluster::engine::Engine;
use crate::cluster::scripts;
use crate::sync::{unbounded, Arc, Receiver};

/// A client without threads, over a server of its own.
pub(super) fn core() -> (Arc<Core>, Receiver<Job>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    let engine = Engine::open(&url, EngineConfig::new()).unwrap();
    let (jobs, queue) = unbounded();
    (Arc::new(Core::new(engine, jobs).unwrap()), queue)
}

/// Answers the commands of a connection until it ends.
fn serve(stream: &TcpStream) -> std::io::Result<()> {
    let mut commands = BufReader::new(stream.try_clone()?);
    let mut turns = 0;
    loop {
        let mut words = Vec::new();
        for _ in 0..number(&mut commands)? {
            let mut word = vec![0; number(&mut commands)? + 2];
            commands.read_exact(&mut word)?;
            words.push(String::from_utf8_lossy(&word).trim_end().to_owned());
        }
        turns += u32::from(is_call(&words, &scripts::BEGIN));
        (&*stream).write_all(answer(&words, turns).as_bytes())?;
    }
}

/// Reads a line with a mark and a number.
fn number(commands: &mut impl BufRead) -> std::io::Result<usize> {
    let mut line = String::new();
    commands.read_line(&mut line)?;
    let number = line.trim_end().get(1..).and_then(|number| number.parse().ok());
    number.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

fn is_call(words: &[String], script: &scripts::Script) -> bool {
    words[0] == "EVALSHA" && words[1] == script.digest()
}

fn answer(words: &[String], turns: u32) -> String {
    let info = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\n";
    if words[0] == "INFO" {
        format!("${}\r\n{info}\r\n", info.len())
    } else if is_call(words, &scripts::MEET) {
        "*2\r\n+ok\r\n+id\r\n".into()
    } else if is_call(words, &scripts::ENROL) {
        "*1\r\n+ok\r\n".into()
    } else if is_call(words, &scripts::BEGIN) {
        format!("*2\r\n+begun\r\n+{turns}\r\n")
    } else {
        "+OK\r\n".into()
    }
}
