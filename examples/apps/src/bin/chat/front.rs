//! A turn in front: its events, the keys that are pressed meanwhile, and the questions that it asks.

use std::mem;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{never, select, tick, Receiver};
use turnwise::{AgentEvent, PendingInput, RunResult, SessionError, SessionService, TurnHandle, TurnStream};

use crate::agent::why;
use crate::asking;
use crate::draft::{Draft, Typed};
use crate::keyboard::Keyboard;
use crate::keys::Key;
use crate::screen::{Screen, TICK};
use crate::show::explain;
use crate::Service;

/// The label of a line that is for later.
const NEXT: &str = "next> ";
/// The label of a line that answers a question.
const ANSWER: &str = "answer> ";

/// The terminal while turns are in front, one after the other.
pub(crate) struct Front<'a> {
    service: &'a Service,
    pub(crate) screen: Screen,
    pub(crate) draft: Draft,
    reading: Reading,
    keyboard: Option<Keyboard>,
    question: Option<Question>,
    ticks: Receiver<Instant>,
}

/// When keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Input is not from a terminal, or there is no terminal to show it in.
    Never,
    /// The keyboard is left alone except for answers, because other lines have no effect.
    Answers,
    Always,
}

/// A request of the turn in front, or of the one ahead of it in the queue.
struct Question {
    pending: PendingInput,
    /// The line that is being typed was begun before the question was shown, so it is no answer to it.
    has_older_draft: bool,
}

/// The turn in front.
pub(crate) struct Shown<'a> {
    turn: &'a TurnHandle,
    /// Disconnected at the end of the turn.
    events: Receiver<AgentEvent>,
    /// Whether the turn has no receiver of events.
    is_silent: bool,
}

/// What the owner of the front has to act on.
#[derive(Debug)]
pub(crate) enum Next {
    Typed(Typed),
    Ended,
}

impl<'a> Shown<'a> {
    /// A turn with its events.
    pub(crate) fn stream(stream: &'a TurnStream) -> Self {
        Self { turn: stream.handle(), events: stream.events().clone(), is_silent: false }
    }

    /// A turn without a receiver of events.
    pub(crate) fn silent(turn: &'a TurnHandle) -> Self {
        Self { turn, events: never(), is_silent: true }
    }

    pub(crate) fn turn(&self) -> &TurnHandle {
        self.turn
    }
}

enum Happened {
    Event(AgentEvent),
    Key(Key),
    KeyboardClosed,
    Time,
    Ended,
}

impl<'a> Front<'a> {
    pub(crate) fn new(service: &'a Service, reading: Reading, begun: String) -> Self {
        let mut draft = Draft::default();
        draft.put_back(&begun);
        let (screen, ticks) = (Screen::new(), tick(TICK));
        let mut front = Self { service, screen, draft, reading, keyboard: None, question: None, ticks };
        if reading == Reading::Always {
            front.open_keyboard();
        }
        front
    }

    /// Shows the turn until it ends, or until a line has been typed that is no answer to the turn.
    pub(crate) fn next(&mut self, shown: &Shown<'_>) -> Next {
        loop {
            self.draw();
            match self.happened(shown) {
                Happened::Event(event) => self.on_event(shown, event),
                Happened::Key(key) => {
                    if let Some(typed) = self.draft.press(key).and_then(|typed| self.on_typed(shown, typed)) {
                        self.draw();
                        return Next::Typed(typed);
                    }
                }
                Happened::KeyboardClosed => self.close_keyboard(),
                Happened::Time => self.on_time(shown),
                Happened::Ended => {
                    self.forget_question();
                    return Next::Ended;
                }
            }
        }
    }

    /// Shows how a turn ended, below its answer. Returns its error.
    pub(crate) fn show_end(&mut self, result: Result<RunResult, SessionError>) -> Result<(), SessionError> {
        let cut_off = why(result.as_ref().ok().map(|result| result.stop_reason));
        match &result {
            Ok(_) if cut_off.is_empty() => self.screen.lines(|| ()),
            Ok(_) => self.screen.note(&format!("the answer is cut off{cut_off}")),
            Err(error) => self.screen.line(&explain(error)),
        }
        result.map(drop)
    }

    /// Ends the output, and returns the line that is being typed, and the keys that had no effect yet.
    pub(crate) fn end(mut self) -> (Draft, Vec<Key>) {
        self.screen.end();
        let keys = self.keyboard.take().map(Keyboard::close);
        (self.draft, keys.unwrap_or_default())
    }

    fn happened(&self, shown: &Shown<'_>) -> Happened {
        let (silent, no_keys) = (never(), never());
        let ended = if shown.is_silent { shown.turn.finished() } else { &silent };
        let keys = self.keyboard.as_ref().map_or(&no_keys, |keyboard| &keyboard.pressed);
        select! {
            recv(shown.events) -> event => event.map_or(Happened::Ended, Happened::Event),
            recv(ended) -> _ => Happened::Ended,
            recv(keys) -> key => key.map_or(Happened::KeyboardClosed, Happened::Key),
            recv(self.ticks) -> _ => Happened::Time,
        }
    }

    fn on_event(&mut self, shown: &Shown<'_>, event: AgentEvent) {
        match event {
            AgentEvent::TextDelta { delta } => self.screen.text(&delta),
            AgentEvent::ToolExecutionCompleted { name, result, is_error, .. } => {
                let failed = if is_error { "failed: " } else { "" };
                self.screen.note(&format!("{name}: {failed}{result}"));
            }
            AgentEvent::Retrying { attempt, max_attempts, error, delay_ms } => {
                let delay = Duration::from_millis(delay_ms);
                self.screen.note(&format!("{error}; attempt {} of {max_attempts} in {delay:?}", attempt + 1));
            }
            AgentEvent::InputRequested { input_id, .. } => {
                // An interrupt may have ended the request already.
                if let Some(asked) = self.pending(shown.turn).into_iter().find(|pending| pending.id == input_id) {
                    self.ask(asked);
                }
            }
            AgentEvent::InputResolved { .. } => self.forget_question(),
            _ => {}
        }
    }

    fn on_time(&mut self, shown: &Shown<'_>) {
        // No event tells what the turn asks, or the turn ahead of it in the queue.
        if shown.is_silent || shown.turn.is_queued() || self.question.is_some() {
            match self.pending(shown.turn).into_iter().next() {
                Some(pending) => self.ask(pending),
                None => self.forget_question(),
            }
        }
        self.screen.on_time();
    }

    /// The requests in the conversation of this turn. None if it has been archived meanwhile.
    fn pending(&self, turn: &TurnHandle) -> Vec<PendingInput> {
        self.service.pending_inputs(turn.session_id()).unwrap_or_default()
    }

    /// Shows a question, if it is another one.
    fn ask(&mut self, pending: PendingInput) {
        if self.question.as_ref().is_some_and(|question| question.pending.id == pending.id) {
            return;
        }
        self.screen.line(&asking::shown(&pending.request));
        self.question = Some(Question { pending, has_older_draft: !self.draft.is_empty() });
        if self.reading == Reading::Answers && self.keyboard.is_none() {
            self.open_keyboard();
        }
    }

    fn forget_question(&mut self) {
        self.question = None;
        if self.reading == Reading::Answers {
            self.close_keyboard();
            self.draft.take();
        }
    }

    /// Takes a line that answers the question. Returns any other line.
    fn on_typed(&mut self, shown: &Shown<'_>, typed: Typed) -> Option<Typed> {
        let Some(question) = &mut self.question else { return Some(typed) };
        let Typed::Line(line) = &typed else { return Some(typed) };
        if mem::take(&mut question.has_older_draft) || line.starts_with('/') {
            return Some(typed);
        }
        match asking::response(line) {
            Some(response) => {
                self.screen.line(&format!("{ANSWER}{line}"));
                let (id, input) = (shown.turn.session_id(), question.pending.id);
                if let Err(error) = self.service.respond(id, input, response) {
                    // The turn was interrupted, or its time is up.
                    self.screen.note(&format!("too late: {error}"));
                }
                self.forget_question();
            }
            None => {
                self.draft.put_back(line);
                self.screen.note(&format!("the answer is {}; Ctrl-U clears the line", asking::KEYS));
            }
        }
        None
    }

    fn draw(&mut self) {
        let label = match &mut self.question {
            Some(question) => {
                question.has_older_draft &= !self.draft.is_empty();
                if question.has_older_draft {
                    "next> "
                } else {
                    "answer> "
                }
            }
            None if self.draft.is_empty() => "",
            None => NEXT,
        };
        self.screen.set_row(label, self.draft.shown());
    }

    /// Without a keyboard, lines are read between the answers.
    fn open_keyboard(&mut self) {
        match Keyboard::open() {
            Ok(keyboard) => self.keyboard = Some(keyboard),
            Err(error) => self.screen.note(&format!("no keys are read now: {error}")),
        }
    }

    fn close_keyboard(&mut self) {
        self.keyboard.take().map(Keyboard::close);
    }
}
