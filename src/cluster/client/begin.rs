//! The start of turns and builds.

use crate::cluster::engine::{unexpected, Call};
use crate::cluster::error::EngineError;
use crate::cluster::messages::Order;
use crate::cluster::scripts;
use crate::cluster::wire::Reply;
use crate::error::{AgentError, BuildError, SessionError};
use crate::model::{AgentEvent, RequestId, SessionId, TurnId};
use crate::service::{CreateSessionRequest, RefusedTurn, SessionSpec, StartTurnRequest, WhenBusy};
use crate::sync::{room_for_a_thread, unbounded, Arc, Builder, Sender};
use crate::time::clock::Clock;
use crate::turn::handle::{Outcome as Slot, TurnHandle};

use super::core::{engine_failed, Core, Outcome};
use super::feed::number;
use super::feeds::Reader;
use super::known::Known;
use super::requests::Request;
use super::sender::{Job, QueueLook};
use super::turn_events::{FeedMessage, TurnEvents};
use super::verdict::Ended;

/// A request that the engine has accepted.
pub(super) struct Accepted {
    request: Arc<Request>,
    pub(super) outcome: Arc<Slot>,
    turn: TurnId,
    /// To the thread that gives the events out.
    events: Option<Sender<FeedMessage>>,
}

/// What the engine says to a request.
enum Answer {
    /// It is in flight, with this turn.
    Begun(TurnId),
    /// It has ended already: the call was repeated.
    Ended(Ended),
}

/// Why a request has no turn.
enum NotBegun {
    /// Nothing was begun.
    Refused(SessionError),
    /// It may be in flight.
    Unknown,
}

impl Core {
    pub(super) fn begin(
        self: &Arc<Self>,
        id: SessionId,
        mut request: StartTurnRequest,
    ) -> Result<TurnHandle, Box<RefusedTurn>> {
        let order = match json(id, &Order::turn(&request)) {
            Ok(order) => order,
            Err(error) => return Err(Box::new(RefusedTurn::new(error, request))),
        };
        let when_busy = match request.when_busy {
            WhenBusy::Refuse => "refuse",
            WhenBusy::Queue => "queue",
            WhenBusy::Interrupt => "interrupt",
        };
        let submitted = self.submit(id, request.event_tx.is_some(), |of, name| {
            let call = Call::new(&scripts::BEGIN).arg(id.to_string()).arg(of.request.to_string()).arg(name);
            call.arg(of.known.answers().to_string()).arg(when_busy).arg(order)
        });
        match submitted {
            Ok(accepted) => {
                if request.when_busy != WhenBusy::Refuse {
                    self.look_for_queue(&accepted);
                }
                Ok(self.started(accepted, request.event_tx.take(), &request))
            }
            Err(error) => Err(Box::new(RefusedTurn::new(error, request))),
        }
    }

    pub(super) fn begin_session(self: &Arc<Self>, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        let CreateSessionRequest { session, mut turn } = request;
        let id = id_of(&session);
        check_spec(id, &session)?;
        let order = json(id, &Order::session(&session, Some(&turn)))?;
        let accepted = self.submit(id, turn.event_tx.is_some(), |of, name| open_call(of, name, "1", order))?;
        Ok(self.started(accepted, turn.event_tx.take(), &turn))
    }

    /// Begins the build of a new session without a turn.
    pub(super) fn open(self: &Arc<Self>, spec: &SessionSpec) -> Result<(SessionId, Accepted), SessionError> {
        let id = id_of(spec);
        check_spec(id, spec)?;
        let order = json(id, &Order::session(spec, None))?;
        self.submit(id, false, |of, name| open_call(of, name, "0", order)).map(|accepted| (id, accepted))
    }

    /// Begins another build of a faulted session.
    pub(super) fn begin_restart(self: &Arc<Self>, id: SessionId) -> Result<Accepted, SessionError> {
        let order = json(id, &Order { spec: None, turn: None })?;
        self.submit(id, false, |of, name| {
            let call = Call::new(&scripts::RESTART).arg(id.to_string()).arg(of.request.to_string());
            call.arg(name).arg(order)
        })
    }

    /// Makes a request, and sends its call.
    fn submit(
        self: &Arc<Self>,
        id: SessionId,
        has_feed: bool,
        call: impl FnOnce(&Request, &[u8]) -> Call,
    ) -> Result<Accepted, SessionError> {
        let (events, messages) = has_feed.then(unbounded).unzip();
        let (request, outcome) = Request::new(id, self.known.get(id), events.clone(), Clock::System.now());
        if let Some(messages) = messages {
            let reader = TurnEvents::new(Arc::clone(self), Arc::clone(&request), messages);
            let builder = Builder::new().name("turnwise-events".into());
            let spawned = room_for_a_thread().and_then(|()| builder.spawn(move || reader.run()));
            if let Err(source) = spawned {
                return Err(SessionError::Spawn { source: Arc::new(source) });
            }
        }
        if let Some(events) = &events {
            self.feeds.enter(request.request.to_string(), Reader::Turn(events.clone()));
        }
        if let Err(closed) = self.requests.enter(&request) {
            self.discard(&request);
            return Err(closed.error(id));
        }
        let name = self.name();
        let (answer, is_repeated) = self.engine.write_and_tell(call(&request, name.as_bytes()));
        let turn = match self.read_answer(&request, answer.as_deref(), is_repeated) {
            Ok(Answer::Begun(turn)) => turn,
            Ok(Answer::Ended(ended)) => {
                let turn = ended.turn;
                self.accept(&request, turn, &name);
                if let Some(request) = self.requests.take(request.request) {
                    request.end(&ended);
                }
                return Ok(Accepted { request, outcome, turn, events });
            }
            Err(NotBegun::Refused(error)) => {
                self.discard(&request);
                return Err(error);
            }
            Err(NotBegun::Unknown) => return Err(self.leave(&request, events)),
        };
        self.accept(&request, turn, &name);
        Ok(Accepted { request, outcome, turn, events })
    }

    /// The head of [`requests`](super::requests) has the reason for the second look at the name.
    fn accept(&self, request: &Arc<Request>, turn: TurnId, name: &Arc<str>) {
        request.accept(turn, &self.jobs);
        if self.name() != *name {
            self.ask_for(request);
        }
    }

    /// Takes back a request that was not begun.
    fn discard(&self, request: &Request) {
        self.requests.take(request.request);
        self.feeds.remove(&request.request.to_string());
        request.abandon();
    }

    /// Leaves a request that may have been begun. It stays in the table, so that a turn which waits for the credit of its
    /// feed is found and goes on. If the engine has never seen it, the question refuses it.
    fn leave(&self, request: &Arc<Request>, events: Option<Sender<FeedMessage>>) -> SessionError {
        request.accept(TurnId::new(0), &self.jobs);
        if let Some(events) = events {
            let _ = events.send(FeedMessage::Begin { receiver: None, turn: TurnId::new(0) });
        }
        self.ask_for(request);
        request.unknown()
    }

    fn read_answer(
        &self,
        request: &Request,
        answer: Result<&Reply, &EngineError>,
        is_repeated: bool,
    ) -> Result<Answer, NotBegun> {
        let id = request.id;
        let error = match answer {
            Ok(reply) => return begun(reply, id, request.request, &request.known),
            Err(EngineError::Replaced) => {
                return Err(NotBegun::Refused(engine_failed(Some(id), EngineError::Replaced)))
            }
            Err(error) if error.is_passing() => return Err(NotBegun::Unknown),
            // A question would leave a tombstone, on a server that may be full.
            Err(error) if !is_repeated => return Err(NotBegun::Refused(engine_failed(Some(id), error.clone()))),
            Err(error) => error,
        };
        // The engine has refused the call. That was a repeat, so an earlier one may have been run.
        match self.outcome(id, request.request, true) {
            Ok(Outcome::Running(turn)) => Ok(Answer::Begun(TurnId::new(turn))),
            Ok(Outcome::Ended(ended)) => Ok(Answer::Ended(ended)),
            Ok(Outcome::NeverSeen) => Err(NotBegun::Refused(engine_failed(Some(id), error.clone()))),
            Err(_) => Err(NotBegun::Unknown),
        }
    }

    /// Notes whether a turn waits behind others. The engine does not tell when it begins, so the client looks again.
    fn look_for_queue(&self, accepted: &Accepted) {
        let request = &accepted.request;
        // If the engine does not answer, it counts as running.
        if self.is_queued(request.id, accepted.turn).unwrap_or(false) {
            request.set_queued();
            let look = QueueLook::first(Arc::downgrade(request), accepted.turn);
            let _ = self.jobs.send(Job::LookForQueue(look));
        }
    }

    /// Whether a turn waits behind others.
    pub(super) fn is_queued(&self, id: SessionId, turn: TurnId) -> Result<bool, SessionError> {
        let look = self.look(id)?;
        let at = look.and_then(|look| look.flight.iter().position(|other| *other == turn.get()));
        Ok(at.is_some_and(|at| at > 0))
    }

    fn started(&self, accepted: Accepted, receiver: Option<Sender<AgentEvent>>, turn: &StartTurnRequest) -> TurnHandle {
        let Accepted { request, outcome, turn: number, events } = accepted;
        if let Some(events) = events {
            // Fails only if the client has stopped.
            let _ = events.send(FeedMessage::Begin { receiver, turn: number });
        }
        if let Some(at) = turn.timeout.and_then(|timeout| request.since.checked_add(timeout)) {
            let _ = self.jobs.send(Job::Deadline(at, Arc::downgrade(&request)));
        }
        let (key, cancel) = (self.wait_key(&request.known, request.id), request.cancel.clone());
        TurnHandle::new(request.id, number, key, cancel, outcome, Clock::System)
    }
}

fn open_call(request: &Request, name: &[u8], first: &str, order: Vec<u8>) -> Call {
    let call = Call::new(&scripts::OPEN).arg(request.id.to_string()).arg(request.request.to_string());
    call.arg(name).arg(first).arg(order)
}

/// Reads the answer of `open`, `begin` and `restart`.
fn begun(reply: &Reply, id: SessionId, request: RequestId, known: &Known) -> Result<Answer, NotBegun> {
    let words = reply.words().unwrap_or_default();
    let error = match words.as_slice() {
        [b"begun", turn] => match number(turn) {
            Some(turn) => return Ok(Answer::Begun(TurnId::new(turn))),
            None => return Err(NotBegun::Unknown),
        },
        [b"answered", turn, kind, body, answers] => match Ended::new(turn, kind, body, answers) {
            Some(ended) => return Ok(Answer::Ended(ended)),
            None => return Err(NotBegun::Unknown),
        },
        [b"missing"] => SessionError::NotFound { id },
        [b"archived"] => SessionError::Archived { id },
        [b"exists"] => SessionError::AlreadyExists { id },
        [b"sound"] => SessionError::NotFaulted { id },
        // The engine does not say how many sessions its workers have.
        [b"capacity"] => SessionError::CapacityExceeded { active: 0, max: 0 },
        [b"faulted", message] => SessionError::Faulted { id, message: String::from_utf8_lossy(message).into() },
        [b"busy", turn] => {
            let turn = number(turn).filter(|turn| *turn > 0).map(TurnId::new);
            SessionError::Busy { id, turn }
        }
        [b"full", _, limit] => {
            let capacity = number(limit).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
            SessionError::QueueFull { id, capacity }
        }
        [b"shorter", found] => {
            let (seen, found) = (known.answers(), number(found).unwrap_or(0));
            known.forget_answers();
            SessionError::HistoryLost { id, seen, found }
        }
        // Asked for before it came.
        [b"tombstone"] => SessionError::OutcomeUnknown { id, request, turn: None },
        _ => engine_failed(Some(id), unexpected(&scripts::BEGIN)),
    };
    Err(NotBegun::Refused(error))
}

/// The id of a new session.
fn id_of(spec: &SessionSpec) -> SessionId {
    spec.session_id.or_else(|| spec.resume.as_ref().map(|history| history.id())).unwrap_or_else(SessionId::new)
}

/// Refuses what cannot be passed to another process.
fn check_spec(id: SessionId, spec: &SessionSpec) -> Result<(), SessionError> {
    if spec.reservation.is_some() {
        // It is that of a local service.
        return Err(SessionError::InvalidReservation);
    }
    if spec.extension.is_some() {
        let reason = "the extension of a specification cannot be passed to a worker: use labels";
        return Err(SessionError::Build { id, source: BuildError::Agent(AgentError::Config(reason.into())) });
    }
    Ok(())
}

fn json(id: SessionId, order: &Order) -> Result<Vec<u8>, SessionError> {
    serde_json::to_vec(order).map_err(|_| engine_failed(Some(id), EngineError::failed("a request that has no JSON")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::known::KnownSessions;
    use crate::cluster::client::tests::core;

    fn answer(words: &[&str]) -> (Arc<Known>, Result<Answer, NotBegun>) {
        let id = SessionId::new();
        let known = KnownSessions::default().get(id);
        known.note_answers(7);
        let reply = Reply::List(words.iter().map(|word| Reply::Text(word.as_bytes().to_vec())).collect());
        let answer = begun(&reply, id, RequestId::new(), &known);
        (known, answer)
    }

    fn refusal(words: &[&str]) -> SessionError {
        match answer(words).1 {
            Err(NotBegun::Refused(error)) => error,
            _ => panic!("{words:?} is no refusal"),
        }
    }

    #[test]
    fn c84_each_refusal_of_the_engine_is_the_error_of_a_local_service() {
        let code = |words: &[&str]| refusal(words).code();
        assert_eq!(code(&["missing"]), "SESSION_NOT_FOUND");
        assert_eq!(code(&["archived"]), "SESSION_ARCHIVED");
        assert_eq!(code(&["exists"]), "SESSION_ALREADY_EXISTS");
        assert_eq!(code(&["sound"]), "SESSION_NOT_FAULTED");
        assert_eq!(code(&["capacity"]), "CAPACITY_EXCEEDED");
        assert_eq!(code(&["tombstone"]), "OUTCOME_UNKNOWN");
        assert_eq!(code(&["of", "another", "version"]), "STORE_FAILED");
        assert!(matches!(refusal(&["faulted", "boom"]), SessionError::Faulted { message, .. } if &*message == "boom"));
        assert!(matches!(refusal(&["full", "4", "4"]), SessionError::QueueFull { capacity: 4, .. }));
        assert!(matches!(refusal(&["busy", "0"]), SessionError::Busy { turn: None, .. }));
        assert!(matches!(refusal(&["busy", "3"]), SessionError::Busy { turn: Some(turn), .. } if turn.get() == 3));
    }

    #[test]
    fn c84_a_shorter_history_is_an_error_once() {
        let (known, answer) = answer(&["shorter", "5"]);
        assert!(matches!(answer, Err(NotBegun::Refused(SessionError::HistoryLost { seen: 7, found: 5, .. }))));
        assert_eq!(known.answers(), 0);
    }

    #[test]
    fn c84_a_request_that_is_accepted_under_an_old_name_is_asked_for() {
        let ((core, jobs), id) = (core(), SessionId::new());
        let (request, _outcome) = Request::new(id, core.known.get(id), None, Clock::System.now());
        let name = core.name();
        core.accept(&request, TurnId::new(1), &name);
        assert!(jobs.try_recv().is_err());
        core.rename().unwrap();
        core.accept(&request, TurnId::new(1), &name);
        let Ok(Job::Ask(asked)) = jobs.try_recv() else { panic!("nothing is asked for") };
        assert!(asked.upgrade().is_some_and(|asked| Arc::ptr_eq(&asked, &request)));
    }

    #[test]
    fn c84_a_request_that_is_known_already_is_not_begun_twice() {
        assert!(matches!(answer(&["begun", "3"]).1, Ok(Answer::Begun(turn)) if turn.get() == 3));
        let ended = answer(&["answered", "3", "lost", "", "4"]).1;
        assert!(matches!(ended, Ok(Answer::Ended(Ended { turn, answers: 4, .. })) if turn.get() == 3));
    }
}
