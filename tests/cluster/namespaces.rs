//! A network of namespaces: one for the server and one for each player, joined to it by a pair of virtual interfaces.
//!
//! A cut loses packets and ends no connection. Behind it the systems send again what was lost: requests and answers
//! arrive late, also from connections that their programs have given up. A [proxy](crate::proxy) cannot do that.
//!
//! All interfaces, addresses and routes are inside of the namespaces, so those of the machine stay as they are. It takes
//! the program `ip` and the rights of root. Where they are missing, each of these tests says so in one line and proves
//! nothing. With the environment variable `TURNWISE_REQUIRE_NAMESPACES` that is a failure.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use turnwise::SessionId;

use crate::players::{say, told, End, Heard, Player};
use crate::server::Server;
use crate::support::*;

/// Begins the names of namespaces. The id of the process follows.
const NAME: &str = "turnwise";
/// The settings of a server that its namespace makes reachable for others. The test itself uses the socket.
const SETTINGS: [&str; 6] = ["--bind", "0.0.0.0", "--protected-mode", "no", "--unixsocket", "socket"];

/// The namespaces. They are removed when the value is dropped, with the processes that are left in them.
pub(crate) struct Namespaces {
    /// In front of the names.
    prefix: String,
    players: usize,
}

/// What gets lost between the server and one player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Both,
    /// Requests reach the server, and its answers get lost.
    Answers,
    /// Nothing reaches the server, and what it sends arrives.
    Requests,
}

/// A cut. Its drop heals it.
#[must_use]
pub(crate) struct Healing(String);

impl Namespaces {
    /// Makes the namespaces for a server and some players. `None` where that is not possible.
    pub(crate) fn new(players: usize) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = Self { prefix: format!("{NAME}-{}-{number}", std::process::id()), players };
        if let Err(reason) = own.set_up() {
            assert!(std::env::var_os("TURNWISE_REQUIRE_NAMESPACES").is_none(), "no network namespaces: {reason}");
            eprintln!("nothing is proven here: no network namespaces: {reason}");
            return None;
        }
        Some(own)
    }

    fn set_up(&self) -> Result<(), String> {
        let server = self.server();
        ip(&format!("netns add {server}"))?;
        for at in 0..self.players {
            let (player, [to_server, to_player]) = (self.player(at), addresses(at));
            ip(&format!("netns add {player}"))?;
            ip(&format!("-n {server} link add p{at} type veth peer name server netns {player}"))?;
            ip(&format!("-n {server} address add {to_server}/30 dev p{at}"))?;
            ip(&format!("-n {player} address add {to_player}/30 dev server"))?;
            ip(&format!("-n {server} link set p{at} up"))?;
            ip(&format!("-n {player} link set server up"))?;
        }
        // Otherwise a system may drop what comes from an address to which it has no route.
        let accept_all = "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do \
                          test \"$(cat $file)\" = 0 || echo 0 > $file || exit 1; done";
        for name in self.names() {
            succeed(Command::new("ip").args(["netns", "exec", &name, "sh", "-c", accept_all]))?;
        }
        Ok(())
    }

    /// Starts a server in its namespace. `None` where `redis-server` is not installed.
    pub(crate) fn start_server(&self) -> Option<Server> {
        Server::start_in(&exec(&self.server()), &SETTINGS)
    }

    /// The command that runs another one in the namespace of a player.
    pub(crate) fn exec(&self, player: usize) -> Vec<String> {
        exec(&self.player(player))
    }

    /// The address of the server for a player.
    pub(crate) fn address(&self, server: &Server, player: usize) -> String {
        format!("{}:{}", addresses(player)[0], server.port())
    }

    /// Cuts a player off, until the returned value is dropped.
    pub(crate) fn cut(&self, player: usize, how: Cut) -> Healing {
        let [to_server, to_player] = addresses(player);
        let (begin, end) = match how {
            // The carrier of the player is gone too, and its routes stay: it sends, and nothing comes back.
            Cut::Both => {
                let link = format!("-n {} link set p{player}", self.server());
                (format!("{link} down"), format!("{link} up"))
            }
            Cut::Answers => blackhole(&self.server(), &to_player),
            Cut::Requests => blackhole(&self.player(player), &to_server),
        };
        ip(&begin).expect("a cut");
        Healing(end)
    }

    /// Waits until the system has delivered all that a player has sent, also over connections that it has closed.
    pub(crate) fn wait_until_all_is_delivered(&self, player: usize) {
        let deadline = Instant::now() + LONG;
        let connections = exec(&self.player(player)).join(" ") + " cat /proc/net/tcp";
        // The fifth word of a line is `sent:received`, each a number of bytes that wait.
        let waits = |line: &str| line.split_whitespace().nth(4).is_some_and(|queues| !queues.starts_with("00000000:"));
        while ip(connections.trim_start_matches("ip ")).expect("a table").lines().skip(1).any(waits) {
            assert!(Instant::now() < deadline, "something is never delivered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn server(&self) -> String {
        format!("{}-server", self.prefix)
    }

    fn player(&self, at: usize) -> String {
        format!("{}-player{at}", self.prefix)
    }

    fn names(&self) -> Vec<String> {
        std::iter::once(self.server()).chain((0..self.players).map(|at| self.player(at))).collect()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.names().iter().for_each(|name| remove(name));
    }
}

impl Drop for Healing {
    fn drop(&mut self) {
        let healed = ip(&self.0);
        assert!(healed.is_ok() || std::thread::panicking(), "{healed:?}");
    }
}

/// The addresses of the server and of a player in the network that both share.
fn addresses(player: usize) -> [String; 2] {
    assert!(player < 64, "there are 64 networks of four addresses");
    [1, 2].map(|last| format!("10.88.0.{}", 4 * player + last))
}

/// The commands that begin and end the loss of what a namespace sends to an address.
fn blackhole(namespace: &str, to: &str) -> (String, String) {
    let route = |verb: &str| format!("-n {namespace} route {verb} blackhole {to}/32");
    (route("add"), route("del"))
}

fn exec(namespace: &str) -> Vec<String> {
    ["ip", "netns", "exec", namespace].map(str::to_owned).to_vec()
}

fn ip(args: &str) -> Result<String, String> {
    succeed(Command::new("ip").args(args.split(' ')))
}

/// Runs a command. Returns its output, or the reason why it has failed.
fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Removes a namespace, after the processes in it. What is not there is no error.
fn remove(name: &str) {
    let left = ip(&format!("netns pids {name}")).unwrap_or_default();
    let left: Vec<&str> = left.split_whitespace().collect();
    if !left.is_empty() {
        let _ = succeed(Command::new("kill").arg("-KILL").args(left));
    }
    let _ = ip(&format!("netns delete {name}"));
}

/// Removes the namespaces of processes that were killed before they could do so.
fn remove_leftovers() {
    let all = ip("netns list").unwrap_or_default();
    let names = all.lines().filter_map(|line| line.split(' ').next());
    let is_leftover = |name: &&str| {
        let id =
            name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
        id.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
    };
    names.filter(is_leftover).for_each(remove);
}

/// Counts at the server over one connection, until the process is killed.
fn count(address: &str) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let mut answers = BufReader::new(stream.try_clone().expect("the connection")).lines();
    loop {
        stream.write_all(b"INCR counter\r\n").expect("the connection goes on");
        let answer = answers.next().expect("the connection goes on").expect("an answer");
        say(SessionId::new(), "count", Some(End::Answered(answer.trim_start_matches(':').parse().expect("a number"))));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn c88_a_connection_goes_on_behind_each_cut_and_loses_nothing() {
    if let Some([address]) = told().as_deref() {
        return count(address);
    }
    const SILENCE: Duration = Duration::from_millis(200);
    let Some(namespaces) = Namespaces::new(1) else { return };
    let Some(server) = namespaces.start_server() else { return };
    let (sender, mut heard) = Heard::new();
    let test = "namespaces::c88_a_connection_goes_on_behind_each_cut_and_loses_nothing";
    let _player = Player::start(&namespaces.exec(0), test, &namespaces.address(&server, 0), &sender);
    for (how, behind) in [(Cut::Answers, [1, 1]), (Cut::Requests, [0, 0]), (Cut::Both, [0, 1])] {
        heard.wait_for_results(10);
        let cut = namespaces.cut(0, how);
        let deadline = Instant::now() + LONG;
        // How many requests have reached the server without an answer. Lines of the player may come late.
        while {
            let last = heard.wait_for_silence(SILENCE);
            let answer = server.command_over_socket(&["GET", "counter"]);
            let counter: u64 = answer.lines().nth(1).and_then(|line| line.parse().ok()).expect("a number");
            !counter.checked_sub(last).is_some_and(|unanswered| behind.contains(&unanswered))
        } {
            assert!(Instant::now() < deadline, "{how:?} loses something else");
        }
        drop(cut);
    }
    heard.wait_for_results(10);
    let numbers = heard.numbers();
    assert!(numbers.iter().zip(1..).all(|(number, expected)| *number == expected), "{numbers:?}");
}

#[test]
fn c88_namespaces_are_removed_with_the_processes_in_them() {
    let Some(namespaces) = Namespaces::new(1) else { return };
    let names = namespaces.names();
    let prefix = namespaces.exec(0);
    let mut sleeper = crate::server::behind(&prefix, "sleep").arg("1000").spawn().expect("a process");
    while ip(&format!("netns pids {}", names[1])).unwrap().trim().is_empty() {
        std::thread::yield_now();
    }
    drop(namespaces);
    assert!(!sleeper.wait().unwrap().success());
    let left = ip("netns list").unwrap();
    assert!(!names.iter().any(|name| left.contains(name)), "{left}");
    // As if a process had been killed that is gone by now: no process has an id this high.
    let leftover = format!("{NAME}-{}-0-server", u32::MAX);
    ip(&format!("netns add {leftover}")).unwrap();
    drop(Namespaces::new(0));
    assert!(!ip("netns list").unwrap().contains(&leftover));
}
