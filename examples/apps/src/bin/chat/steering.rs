//! Lines for the answer that is being written, and whether the agent has taken them in.

use std::{fmt, mem};

use turnwise::crossbeam_channel::TryRecvError;
use turnwise::{
    AgentEvent, InteractionContent, InteractionSubscription, SessionError, SessionId, SessionService, TurnId,
};

use crate::show::{explain, one_line};

/// The lines that were sent to a turn and whose fate is not known.
#[derive(Default)]
pub(crate) struct Steering {
    sent: Vec<Sent>,
}

struct Sent {
    line: String,
    subscription: InteractionSubscription,
    /// The number of the request to the model for which the agent has taken the line in.
    request: Option<u32>,
}

/// The fate of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    TakenIn(String),
    /// The agent has ended its turn without taking the line.
    NotTakenIn(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenIn(line) => write!(f, "taken in: {}", one_line(line)),
            Self::NotTakenIn(line) => write!(f, "not taken in: {}", one_line(line)),
        }
    }
}

impl Steering {
    /// Sends a line to the turn, or to whichever turn of the session is running. The error is a text for the user.
    pub(crate) fn send(
        &mut self,
        service: &impl SessionService,
        session: SessionId,
        turn: Option<TurnId>,
        line: &str,
    ) -> Result<(), String> {
        let sent = service.steer(session, turn, InteractionContent::message(line));
        let subscription = sent.map_err(|error| match error {
            SessionError::NotRunning { .. } => "error: no answer is being written that could take the line in".into(),
            error => explain(&error),
        })?;
        self.sent.push(Sent { line: line.to_owned(), subscription, request: None });
        Ok(())
    }

    /// The lines whose fate has become known since the last call, in the order in which they were sent. Lines that were
    /// taken in for a later request to the model than `request` are left out. At the end of the turn every fate is known.
    ///
    /// The events of the turn may be read later than those of its messages. So a reader of both passes the number of the
    /// last request of which it has read. Otherwise a line would seem to be taken in before the end of an answer.
    pub(crate) fn fates(&mut self, request: u32) -> Vec<Fate> {
        let mut fates = Vec::new();
        self.sent.retain_mut(|sent| {
            let fate = match sent.taken_in_for() {
                Ok(Some(later)) if later > request => return true,
                Ok(None) => return true,
                Ok(Some(_)) => Fate::TakenIn,
                Err(NotTaken) => Fate::NotTakenIn,
            };
            fates.push(fate(mem::take(&mut sent.line)));
            false
        });
        fates
    }
}

/// The message has failed before the agent took it.
struct NotTaken;

impl Sent {
    /// The number of the request for which the agent has taken the line in; `None` if that is not known yet.
    fn taken_in_for(&mut self) -> Result<Option<u32>, NotTaken> {
        if self.request.is_none() {
            // A message that the agent has taken gets the events of the turn. One that it has not taken gets nothing but
            // its failure.
            self.request = match self.subscription.events.try_recv() {
                Err(TryRecvError::Empty) => None,
                Ok(AgentEvent::InteractionFailed { .. }) | Err(TryRecvError::Disconnected) => return Err(NotTaken),
                Ok(AgentEvent::TurnStarted { turn_number }) => Some(turn_number),
                Ok(_) => Some(0),
            };
        }
        Ok(self.request)
    }
}
