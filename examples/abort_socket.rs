//! A cancel hook that shuts a socket down: an interrupt ends a turn that waits for a server.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let agent = agent_fn(move |_, turn| {
        let mut socket = TcpStream::connect(address)?;
        let aborted = socket.try_clone()?;
        let _hook = turn.cancel_token().on_cancel(move || drop(aborted.shutdown(Shutdown::Both)));
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        turn.check()?; // rather than the error that the shutdown causes
        read?;
        Ok(turn.finish(answer))
    });
    let service = EphemeralSessionService::new(agent, 1);

    let turn = service.begin_session(CreateSessionRequest::new("ask a server that never answers"))?;
    let id = turn.session_id();
    let _silent = listener.accept()?;
    turn.interrupt();
    let error = turn.wait().err().ok_or("the turn was not interrupted")?;
    println!("{}", error.cancel_reason().ok_or(error)?);

    let turn = service.begin_turn(id, StartTurnRequest::new("ask a server that answers"))?;
    let (mut server, _) = listener.accept()?;
    server.write_all(b"hello")?;
    drop(server);
    println!("{}", turn.wait()?.text);
    Ok(())
}
