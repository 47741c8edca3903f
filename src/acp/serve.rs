//! The threads of a connection, from its start to its end.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::time::Duration;

use super::config::{AcpConfig, AcpError};
use super::dispatch::Connection;
use super::frame::{Frame, LineReader};
use super::link::Link;
use super::outbox::outbox;
use super::service::AcpService;
use crate::model::SessionId;
use crate::panics::record;
use crate::sync::{at_or_never, bounded, select, Arc, Builder, Instant, Receiver, Sender, Weak};

/// Speaks the Agent Client Protocol with one client, until the connection ends.
///
/// The connection ends when `input` ends or `output` is closed. Then all prompts of the client are cancelled, its
/// sessions keep what they had committed, and the service is shut down ([`AcpConfig::keep_service`] leaves it running).
///
/// `input` and `output` are used by threads of their own, and dropped with them. A thread that waits for input when the
/// output fails cannot be stopped. It ends with the next line, or with the process.
///
/// ```
/// use std::io::{pipe, BufRead, BufReader, Write};
/// use turnwise::acp::{serve, AcpClients, AcpConfig};
/// use turnwise::{agent_fn, EphemeralSessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
/// let ((input, mut to_agent), (from_agent, output)) = (pipe()?, pipe()?);
/// let serving = std::thread::spawn(move || serve(service, AcpConfig::new(AcpClients::new()), input, output));
///
/// writeln!(to_agent, r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":1}}}}"#)?;
/// let answer = BufReader::new(from_agent).lines().next().expect("an answer")?;
/// assert!(answer.contains(r#""protocolVersion":1"#) && answer.contains(r#""loadSession":true"#));
/// drop(to_agent); // the end of the client
/// serving.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`AcpError::Input`] and [`AcpError::Output`] if the connection has failed, [`AcpError::Stuck`] if sessions have not
/// ended in time, [`AcpError::Thread`] if the connection could not start.
///
/// # Blocking
/// Until the end of the client, and then at most for [`AcpConfig::grace`], also if a cancel hook of an agent does not
/// return.
pub fn serve<S, R, W>(service: S, config: AcpConfig, input: R, output: W) -> Result<(), AcpError>
where
    S: AcpService,
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let (outbox, writer) = outbox(config.unread_updates, config.max_requests);
    let link = Arc::new(Link::new(outbox));
    let (running, threads) = bounded(0);
    let grace = config.grace;
    let reader = LineReader::new(input, config.max_line);
    let connection = Arc::new(Connection::new(service, config, link, running));

    let writing = spawn("acp-writer", move || writer.run(output))?;
    let weak = Arc::downgrade(&connection);
    let reading = spawn("acp-reader", move || read_lines(reader, &weak))?;
    let ended = wait_for_end(&reading, &writing);

    let deadline = Instant::now().checked_add(grace);
    connection.end();
    let result = finish(&connection, &threads, deadline, grace);
    connection.link.outbox.end();
    let (read, written) = match ended {
        // What the client has not read by then is lost with the client.
        Ended::Input(read) => (read, wait(&writing, deadline)),
        Ended::Output(written) => (Ok(()), Some(written)),
    };
    read?;
    match written {
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(AcpError::Output(error)),
        _ => result,
    }
}

/// What has ended first.
enum Ended {
    Input(Result<(), AcpError>),
    Output(io::Result<()>),
}

fn wait_for_end(reading: &Receiver<Result<(), AcpError>>, writing: &Receiver<io::Result<()>>) -> Ended {
    // A thread that has panicked has dropped its sender. Only the host's own reader or writer can panic there.
    let panicked = || Err(io::Error::other("the host's reader or writer panicked"));
    select! {
        recv(reading) -> result => Ended::Input(result.unwrap_or_else(|_| panicked().map_err(AcpError::Input))),
        recv(writing) -> result => Ended::Output(result.unwrap_or_else(|_| panicked())),
    }
}

/// Passes lines to the connection until the input or the connection ends.
fn read_lines<S: AcpService>(
    mut reader: LineReader<impl Read>,
    connection: &Weak<Connection<S>>,
) -> Result<(), AcpError> {
    loop {
        let goes_on = match reader.next().map_err(AcpError::Input)? {
            Frame::Line(line) => Connection::receive_weakly(connection, Some(line))?,
            Frame::TooLong => Connection::receive_weakly(connection, None)?,
            Frame::End => false,
        };
        if !goes_on {
            return Ok(());
        }
    }
}

/// Waits for the threads of the connection, and shuts the service down.
fn finish<S: AcpService>(
    connection: &Arc<Connection<S>>,
    threads: &Receiver<Infallible>,
    deadline: Option<Instant>,
    grace: Duration,
) -> Result<(), AcpError> {
    // Half of the time is for turns that end by themselves once they are cancelled: their answers are still written.
    let half = Instant::now().checked_add(grace / 2);
    wait(threads, half);
    if connection.config.keep_service {
        return Ok(());
    }
    // A tenth is left for the writer, and another one for what follows the shutdown.
    let left = deadline.map_or(grace, |deadline| deadline - Instant::now()).saturating_sub(grace / 5);
    let sessions = shut_down(connection, left, grace / 20);
    wait(threads, Instant::now().checked_add(grace / 20));
    if sessions.is_empty() {
        return Ok(());
    }
    record!(Warn, "turnwise::acp", "{} sessions have not ended in time", sessions.len());
    Err(AcpError::Stuck { sessions })
}

/// Shuts the service down, on a thread of its own: a cancel hook of a turn may not return. Returns the sessions that have
/// not ended by `timeout`, after which the thread has `margin` to return.
fn shut_down<S: AcpService>(connection: &Arc<Connection<S>>, timeout: Duration, margin: Duration) -> Vec<SessionId> {
    let of_thread = Arc::clone(connection);
    let stuck = match spawn("acp-shutdown", move || of_thread.service.shutdown(timeout).stuck) {
        Ok(stuck) => wait(&stuck, Instant::now().checked_add(timeout.saturating_add(margin))),
        Err(_) => return connection.service.shutdown(timeout).stuck,
    };
    // The first shutdown cancels every turn before it runs a hook. So no hook is left for this one, and it only tells
    // which sessions have not ended.
    stuck.unwrap_or_else(|| connection.service.shutdown(Duration::ZERO).stuck)
}

/// Waits for a message or a disconnection until the deadline.
fn wait<T>(from: &Receiver<T>, deadline: Option<Instant>) -> Option<T> {
    select! {
        recv(from) -> message => message.ok(),
        recv(at_or_never(deadline)) -> _ => None,
    }
}

/// Starts a thread. Its result arrives in the channel.
fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<Receiver<T>, AcpError> {
    let (sender, result): (Sender<T>, _) = bounded(1);
    let run = move || drop(sender.send(body()));
    Builder::new().name(name.to_owned()).spawn(run).map_err(AcpError::Thread)?;
    Ok(result)
}
