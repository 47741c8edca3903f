//! A turn in front: its events, the keys that are pressed meanwhile, the questions that it asks, and the lines that it
//! takes in.

use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{tick, Receiver};
use turnwise::{AgentEvent, InputId, PendingInput, RunResult, SessionError, SessionService, TurnHandle};

use crate::agent::why;
use crate::asking;
use crate::draft::{Draft, Typed};
use crate::keyboard::Keyboard;
use crate::keys::Key;
use crate::screen::{Screen, TICK};
use crate::show::{explain, one_line};
use crate::shown::{Happened, Shown};
use crate::steering::{Fate, Steering};
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
    steering: Steering,
    /// The number of the request to the model whose answer is shown.
    request: u32,
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

/// What the owner of the front has to act on.
#[derive(Debug)]
pub(crate) enum Next {
    /// A line was typed that is not for the turn.
    Line(String),
    /// The input ends.
    EndOfInput,
    /// The turn has ended.
    Ended,
}

impl<'a> Front<'a> {
    pub(crate) fn new(service: &'a Service, reading: Reading, begun: String) -> Self {
        let mut draft = Draft::default();
        draft.put_back(&begun);
        let (screen, ticks) = (Screen::new(), tick(TICK));
        let mut front = Self {
            service,
            screen,
            draft,
            reading,
            keyboard: None,
            question: None,
            steering: Steering::default(),
            request: 0,
            ticks,
        };
        if reading == Reading::Always {
            front.open_keyboard();
        }
        front
    }

    /// Shows the turn until it ends, or until a line has been typed that is not for the turn.
    pub(crate) fn next(&mut self, shown: &Shown<'_>) -> Next {
        loop {
            self.draw();
            match shown.next(self.keyboard.as_ref(), &self.ticks) {
                Happened::Event(event) => {
                    // What has happened before this event is shown before it.
                    self.show_fates(self.request);
                    self.on_event(shown, event);
                    self.show_fates(self.request);
                }
                Happened::Key(key) => {
                    if let Some(next) = self.draft.press(key).and_then(|typed| self.on_typed(shown, typed)) {
                        self.draw();
                        return next;
                    }
                }
                Happened::KeyboardClosed => self.close_keyboard(),
                Happened::Time => self.on_time(shown),
                Happened::Ended => {
                    self.forget_question();
                    self.show_fates(u32::MAX);
                    self.request = 0;
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

    fn on_event(&mut self, shown: &Shown<'_>, event: AgentEvent) {
        match event {
            // The agent asks the model again, after tools or after a line that it has taken in.
            AgentEvent::TurnStarted { turn_number } => {
                self.request = turn_number;
                self.screen.lines(|| ());
            }
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
            AgentEvent::InputResolved { input_id, .. } if self.asked() == Some(input_id) => self.forget_question(),
            _ => {}
        }
    }

    fn on_time(&mut self, shown: &Shown<'_>) {
        if shown.is_silent {
            self.show_fates(u32::MAX);
        }
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
        if self.asked() == Some(pending.id) {
            return;
        }
        self.screen.line(&asking::shown(&pending.request));
        self.question = Some(Question { pending, has_older_draft: !self.draft.is_empty() });
        if self.reading == Reading::Answers && self.keyboard.is_none() {
            self.open_keyboard();
        }
    }

    /// The question that is shown.
    fn asked(&self) -> Option<InputId> {
        self.question.as_ref().map(|question| question.pending.id)
    }

    fn forget_question(&mut self) {
        self.question = None;
        if self.reading == Reading::Answers {
            self.close_keyboard();
            self.draft.take();
        }
    }

    /// Takes a line that is for the turn: one that answers its question, or that it may take in.
    fn on_typed(&mut self, shown: &Shown<'_>, typed: Typed) -> Option<Next> {
        match typed {
            Typed::Line(line) if self.is_asked() && !self.is_command(&line) => self.answer(shown.turn, &line),
            Typed::Line(line) => return Some(Next::Line(line)),
            Typed::Steer(line) => self.steer(shown.turn, &line),
            Typed::End if self.question.is_some() => {}
            Typed::End => return Some(Next::EndOfInput),
        }
        None
    }

    /// Whether the line that is being typed is an answer.
    fn is_asked(&self) -> bool {
        self.question.as_ref().is_some_and(|question| !question.has_older_draft)
    }

    fn is_command(&self, line: &str) -> bool {
        self.reading == Reading::Always && line.starts_with('/')
    }

    fn answer(&mut self, turn: &TurnHandle, line: &str) {
        let Some(Question { pending, .. }) = &self.question else { return };
        match asking::response(line) {
            Some(response) => {
                self.screen.line(&format!("{ANSWER}{line}"));
                if let Err(error) = self.service.respond(turn.session_id(), pending.id, response) {
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
    }

    /// Sends a line to the turn. If that is not possible, the line is in its row again.
    fn steer(&mut self, turn: &TurnHandle, line: &str) {
        match self.steering.send(self.service, turn.session_id(), Some(turn.turn_id()), line) {
            Ok(()) => self.screen.note(&format!("sent to the answer: {}", one_line(line))),
            Err(error) => {
                self.draft.put_back(line);
                self.screen.line(&error);
            }
        }
    }

    /// Shows which lines the turn has taken in. One that it has not is in its row again, if there is no other.
    fn show_fates(&mut self, request: u32) {
        for fate in self.steering.fates(request) {
            self.screen.note(&fate.to_string());
            match fate {
                Fate::NotTakenIn(line) if self.draft.is_empty() => self.draft.put_back(&line),
                _ => {}
            }
        }
    }

    fn draw(&mut self) {
        if let Some(question) = &mut self.question {
            question.has_older_draft &= !self.draft.is_empty();
        }
        let label = match self.draft.is_empty() {
            _ if self.is_asked() => ANSWER,
            true => "",
            false => NEXT,
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
