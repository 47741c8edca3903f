//! A `redis-server` for one test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server. It is killed, and its folder is removed, when the value is dropped.
pub(crate) struct Server {
    process: Child,
    /// The command in front of that of the server.
    prefix: Vec<String>,
    port: u16,
    folder: PathBuf,
    settings: Vec<String>,
}

/// The settings of an ordinary server: it writes every answered turn to its append-only file before it answers.
const SETTINGS: [&str; 8] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--bind", "127.0.0.1"];
const TIMEOUT: Duration = Duration::from_secs(60);

impl Server {
    /// Starts a server with these settings besides the usual ones. `None` where `redis-server` is not installed.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        Self::start_in(&[], settings)
    }

    /// The same, by a command that runs another one.
    pub(crate) fn start_in(prefix: &[String], settings: &[&str]) -> Option<Self> {
        if !is_installed() {
            assert!(std::env::var_os("TURNWISE_REQUIRE_REDIS").is_none(), "redis-server is not installed");
            eprintln!("nothing is proven here: redis-server is not installed");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("turnwise-redis-{}", turnwise_id()));
        std::fs::create_dir(&folder).expect("a folder for the server");
        let settings: Vec<String> = SETTINGS.iter().chain(settings).map(|&text| text.to_owned()).collect();
        // Another program may take the port before the server does.
        for _ in 0..16 {
            let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("its address").port();
            if let Some(process) = launch(prefix, port, &folder, &settings) {
                return Some(Self { process, prefix: prefix.to_vec(), port, folder, settings });
            }
        }
        panic!("no server starts with {settings:?}");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The socket of a server with the setting `--unixsocket socket`. It needs no network.
    #[cfg(unix)]
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Kills the server, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the server can be killed");
        self.process.wait().expect("the server has ended");
    }

    /// Starts the killed server again, at the same port and with its data.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(&self.prefix, self.port, &self.folder, &self.settings).expect("the server starts again");
    }

    /// Removes the data of the killed server.
    pub(crate) fn remove_data(&self) {
        std::fs::remove_dir_all(&self.folder).expect("the data is removed");
        std::fs::create_dir(&self.folder).expect("a folder for the server");
    }

    /// Stops the process of the server without ending it, or lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// Sends one command on a connection of its own, and returns what the server answers at once.
    pub(crate) fn command(&self, parts: &[&str]) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        ask(stream, parts)
    }

    /// The same over the [socket](Self::socket).
    #[cfg(unix)]
    pub(crate) fn command_over_socket(&self, parts: &[&str]) -> String {
        let stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("the server listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        ask(stream, parts)
    }
}

/// Sends a signal to a process. Returns from `STOP` once the process has stopped.
pub(crate) fn signal(process: u32, name: &str) {
    let process = process.to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &process]).status();
    assert!(status.expect("kill runs").success());
    // The threads of a process go on until one of them has seen the signal.
    while name == "STOP" && !is_stopped(&process) {
        std::thread::yield_now();
    }
}

fn is_stopped(process: &str) -> bool {
    let output = Command::new("ps").args(["-o", "state=", "-p", process]).output().expect("ps runs");
    let state = output.stdout.trim_ascii().first().copied();
    assert!(state.is_some_and(|state| state != b'Z'), "the process has ended");
    state == Some(b'T')
}

/// Sends one command, and returns what the server answers at once.
fn ask(mut stream: impl Read + Write, parts: &[&str]) -> String {
    let mut text = format!("*{}\r\n", parts.len());
    parts.iter().for_each(|part| text.push_str(&format!("${}\r\n{part}\r\n", part.len())));
    // The answer to the second command ends with a word that no other answer has.
    text.push_str("*2\r\n$4\r\nECHO\r\n$10\r\nthat-is-it\r\n");
    stream.write_all(text.as_bytes()).expect("the command is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"that-is-it\r\n") {
        let mut part = [0; 4096];
        let len = stream.read(&mut part).expect("an answer");
        assert!(len > 0, "the server has closed the connection");
        answer.extend_from_slice(&part[..len]);
    }
    String::from_utf8_lossy(&answer).replace("$10\r\nthat-is-it\r\n", "")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// The command of a program, behind one that runs it. Both are one process.
pub(crate) fn behind(prefix: &[String], program: impl AsRef<OsStr>) -> Command {
    let Some((first, rest)) = prefix.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// A name that no other folder has.
fn turnwise_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time of today");
    format!("{}-{}-{}", std::process::id(), now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts a server, and returns once it accepts connections. `None` if it ends before.
fn launch(prefix: &[String], port: u16, folder: &Path, settings: &[String]) -> Option<Child> {
    let mut command = behind(prefix, "redis-server");
    command.args(["--port", &port.to_string(), "--daemonize", "no", "--dir"]).arg(folder).args(settings);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the server starts");
    let mut lines = BufReader::new(process.stdout.take().expect("its output"));
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|len| len > 0) {
        if line.contains("Ready to accept connections") {
            // The server would end at its next line if its output were closed.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return Some(process);
        }
        line.clear();
    }
    let _ = process.wait();
    None
}
