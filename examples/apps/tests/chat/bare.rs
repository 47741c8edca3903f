//! A plain TCP server, for answers that no HTTP server would give.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

/// A listener with one act for each connection, one after the other.
pub(crate) struct Bare {
    pub(crate) url: String,
    thread: Option<JoinHandle<()>>,
}

type Act = Box<dyn FnOnce(TcpStream) + Send>;

impl Bare {
    pub(crate) fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let thread = thread::spawn(move || {
            for act in acts {
                act(listener.accept().expect("a connection").0);
            }
        });
        Self { url, thread: Some(thread) }
    }

    /// Waits until all connections have been answered.
    pub(crate) fn end(mut self) {
        let thread = self.thread.take().expect("`end` is called once");
        thread.join().expect("the server works");
    }
}

/// Sends these bytes before the request is read, and closes the connection when `open` is disconnected. The unread part
/// of the request resets the connection.
pub(crate) fn answer_early(bytes: impl Into<Vec<u8>>, open: Receiver<()>) -> Act {
    let bytes = bytes.into();
    Box::new(move |mut connection| {
        let mut first = [0; 16];
        connection.read_exact(&mut first).expect("a request");
        connection.write_all(&bytes).expect("the program reads");
        let _ = open.recv();
    })
}
