//! A network between a process and the server, which a test can cut: in both directions, or in one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU8, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Whole = 0,
    /// Requests reach the server, and its answers get lost.
    NoAnswers = 1,
    /// Nothing gets through, and no connection ends.
    Cut = 2,
}

/// Passes connections on to a port of this machine.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    network: AtomicU8,
    server: AtomicU16,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared { network: AtomicU8::new(0), server: AtomicU16::new(server) });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let port = own.server.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to, is_request) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let shared = Arc::clone(&own);
                    std::thread::spawn(move || pass(from, to, is_request, port, &shared));
                }
            }
        });
        Self { port, shared }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on the network is like that. What gets lost is not sent again: a connection that has lost something is closed
    /// when the network is whole again.
    pub(crate) fn set(&self, network: Network) {
        self.shared.network.store(network as u8, Ordering::SeqCst);
    }

    /// Closes all connections. From now on they lead to another server.
    pub(crate) fn lead_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_request: bool, port: u16, shared: &Shared) {
    let passes = || match shared.network.load(Ordering::SeqCst) {
        0 => true,
        1 => is_request,
        _ => false,
    };
    let mut bytes = vec![0; 1 << 16];
    let mut has_lost = false;
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    while shared.server.load(Ordering::SeqCst) == port {
        if has_lost && passes() {
            break;
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) if has_lost => {}
            Ok(_) if !passes() => has_lost = true,
            Ok(len) => {
                if to.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
