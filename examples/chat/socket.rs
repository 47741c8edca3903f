//! The connection of the request that is under way, where an interrupt can close it.
//!
//! A read from a socket ends when another thread shuts the socket down; so what the HTTP client needs is a connector that keeps
//! a second handle to the socket that it opens. Nothing has to be polled, and there is no time limit between an interrupt and
//! its effect.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, select};
use turnwise::{CancelHook, CancelToken};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens sockets for one session's requests, of which there is one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Arc<Mutex<Option<Call>>>);

#[derive(Debug)]
struct Call {
    cancel: CancelToken,
    socket: Option<TcpStream>,
}

/// For as long as there is one, the turn's cancellation closes the socket.
#[must_use]
pub(crate) struct Closing {
    _hook: CancelHook,
    line: Line,
}

impl Line {
    /// The next request is that of the turn with this token.
    pub(crate) fn close_on(&self, cancel: &CancelToken) -> Closing {
        *self.call() = Some(Call { cancel: cancel.clone(), socket: None });
        let line = self.clone();
        let hook = cancel.on_cancel(move || line.shut_down());
        Closing { _hook: hook, line: self.clone() }
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&self) {
        if let Some(Call { socket: Some(socket), .. }) = &*self.call() {
            // It fails where the server has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn open(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let cancel = self.call().as_ref().map(|call| call.cancel.clone()).ok_or_else(aborted)?;
        let socket = connect(addresses, &cancel)?;
        socket.set_nodelay(true)?;
        if let Some(call) = &mut *self.call() {
            call.socket = Some(socket.try_clone()?);
        }
        // Only now: a cancellation before has found no socket to shut down, one from now on finds this one.
        cancel.check().map_err(|_| aborted())?;
        Ok(socket)
    }
}

/// Connects on a thread of its own: there is no socket yet that could be shut down, and the system may take its time.
fn connect(addresses: &[SocketAddr], cancel: &CancelToken) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for &address in addresses {
        let (done, connected) = bounded(1);
        // Nobody may be waiting for it any more.
        let connect = move || _ = done.send(TcpStream::connect_timeout(&address, PATIENCE));
        thread::Builder::new().name("connect".into()).spawn(connect)?;
        select! {
            recv(connected) -> result => match result {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            },
            recv(cancel.cancelled()) -> _ => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
    Err(last)
}

impl Drop for Closing {
    fn drop(&mut self) {
        *self.line.call() = None;
    }
}

impl<In: Transport> Connector<In> for Line {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<Socket>, ureq::Error> {
        let socket = self.open(&details.addrs)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Socket { socket, buffers }))
    }
}

/// What the HTTP client reads from and writes to. It has no time limits of its own: the turn's ends it like an interrupt.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        Ok(self.socket.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let read = loop {
            match self.socket.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// Asked before a connection is used again, which none is.
    fn is_open(&mut self) -> bool {
        false
    }
}
