//! The connection of the current request, which an interrupt can close.
//!
//! A read from a socket ends when another thread shuts the socket down. So this connector for the HTTP client keeps a
//! second handle to the socket that it opens. No thread polls, and an interrupt takes effect at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{bounded, select};
use turnwise::{CancelHook, CancelToken};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a write waits for room before it checks for an early answer.
const STALL: Duration = Duration::from_millis(100);

/// Opens the sockets for the requests of one session, which makes one request at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<Option<Request>>>);

#[derive(Debug)]
struct Request {
    cancel: CancelToken,
    socket: Option<TcpStream>,
    /// The deadline of reads and writes. `None` if it is too far away for an `Instant`.
    deadline: Option<Instant>,
}

/// A guard: until it is dropped, a cancel of the turn closes the socket.
#[must_use]
pub(crate) struct Closing {
    _hook: CancelHook,
    wire: Wire,
}

impl Wire {
    /// Begins a request of the turn with this token.
    pub(crate) fn close_on(&self, cancel: &CancelToken) -> Closing {
        *self.request() = Some(Request { cancel: cancel.clone(), socket: None, deadline: None });
        let wire = self.clone();
        let hook = cancel.on_cancel(move || wire.shut_down());
        Closing { _hook: hook, wire: self.clone() }
    }

    /// Sets the deadline of all reads and writes from now on. Input does not extend it.
    pub(crate) fn give_up_after(&self, duration: Duration) {
        if let Some(request) = &mut *self.request() {
            request.deadline = Instant::now().checked_add(duration);
        }
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn deadline(&self) -> Option<Instant> {
        self.request().as_ref().and_then(|request| request.deadline)
    }

    /// How long a read may wait. `None` means without a limit.
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline() else { return Ok(None) };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }

    fn request(&self) -> MutexGuard<'_, Option<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&self) {
        if let Some(Request { socket: Some(socket), .. }) = &*self.request() {
            // This fails if the server has closed the socket already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn open(&self, host: String, port: u16) -> io::Result<TcpStream> {
        let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let cancel = self.request().as_ref().map(|request| request.cancel.clone()).ok_or_else(aborted)?;
        let socket = connect(host, port, &cancel)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(STALL))?;
        if let Some(request) = &mut *self.request() {
            request.socket = Some(socket.try_clone()?);
        }
        // This check comes after the store. A cancel before it has found no socket, and a cancel after it finds this
        // one.
        cancel.check().map_err(|_| aborted())?;
        Ok(socket)
    }
}

/// Resolves the name and connects on another thread, because both may take long and no socket exists yet that an
/// interrupt could shut down. An interrupt does not wait for that thread, which ends when the system has answered.
fn connect(host: String, port: u16, cancel: &CancelToken) -> io::Result<TcpStream> {
    let (done, connected) = bounded(1);
    // After an interrupt the receiver is dropped, and the send fails.
    let connect = move || _ = done.send(connect_to_any(&host, port));
    thread::Builder::new().name("connect".into()).spawn(connect)?;
    select! {
        recv(connected) -> result => result.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into())),
        recv(cancel.cancelled()) -> _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn connect_to_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Drop for Closing {
    fn drop(&mut self) {
        *self.wire.request() = None;
    }
}

impl<In: Transport> Connector<In> for Wire {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<Socket>, ureq::Error> {
        let (host, is_secure) = (details.uri.host().unwrap_or_default(), details.uri.scheme_str() == Some("https"));
        let port = details.uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        // An IPv6 address is in brackets.
        let socket = self.open(host.trim_matches(|c| c == '[' || c == ']').to_owned(), port)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        let may_be_early = !is_secure;
        Ok(Some(Socket { socket, buffers, wire: self.clone(), may_be_early, unsent: None }))
    }
}

/// The transport of the HTTP client. Its deadline is that of the [`Wire`]. The turn's own deadline closes it, as an
/// interrupt does.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: TcpStream,
    buffers: LazyBuffers,
    wire: Wire,
    /// Input that arrives before the whole request is sent is an answer. With encryption it may belong to the
    /// handshake.
    may_be_early: bool,
    /// The error that stopped the request. A server may answer before it has read the whole request, and then close the
    /// connection. That answer has more information than the error.
    unsent: Option<io::Error>,
}

impl Socket {
    fn write(&mut self, amount: usize) -> io::Result<()> {
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_stalled(&error) => {
                    self.wire.time_left()?;
                    if self.may_be_early && has_input(&self.socket)? {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(self.wire.time_left()?)?;
            match self.socket.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_stalled(&error) => {}
                read => return read,
            }
        }
    }
}

/// Whether a timeout has passed. Systems have two names for that error.
fn is_stalled(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether the socket has input, or its end.
fn has_input(socket: &TcpStream) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false)?;
    Ok(peeked.map_or_else(|error| !is_stalled(&error), |_| true))
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        if self.unsent.is_some() {
            return Ok(());
        }
        match self.write(amount) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                self.unsent = Some(error);
                Ok(())
            }
            written => Ok(written?),
        }
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        match (self.read(), &mut self.unsent) {
            (Ok(0) | Err(_), unsent @ Some(_)) => {
                Err(unsent.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()).into())
            }
            (read, _) => {
                let read = read?;
                self.buffers.input_appended(read);
                Ok(read > 0)
            }
        }
    }

    /// The client asks this before it reuses a connection. This program reuses none.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// A resolver that leaves the resolution of names to the [`Wire`], where it can be interrupted.
#[derive(Debug)]
pub(crate) struct Later;

impl Resolver for Later {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
