//! The dashboard: it reads the service and its events, and acts on keys. It never waits for a turn.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ratatui::termion::event::Key;
use ratatui::widgets::TableState;
use ratatui::Frame;
use turnwise::crossbeam_channel::{Receiver, Sender, TryRecvError};
use turnwise::{
    EventStream, InputRequest, InputResponse, PendingInput, SessionId, SessionQuery, SessionService, SessionState,
    SessionSummary, Subscription,
};

use crate::draw::{draw, Notes};
use crate::load::{Order, Report};
use crate::model::{Model, Picture};
use crate::Host;

pub(crate) struct Dashboard {
    service: Host,
    events: EventStream,
    orders: Sender<Order>,
    reports: Receiver<Report>,
    started: Instant,
    model: Model,
    picture: Picture,
    paused: bool,
    selection: Selection,
    table: TableState,
    /// The message about the last key or report, and its time.
    said: Option<(String, Instant)>,
}

/// The selected session, and its last row.
#[derive(Debug, Default)]
struct Selection {
    session: Option<SessionId>,
    row: usize,
}

/// The effect of a key on the loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Go,
    Quit,
}

impl Dashboard {
    /// More events than the largest number of sessions emits between two frames.
    const UNREAD: usize = 1 << 15;
    /// How long a message is shown.
    const SAID: Duration = Duration::from_secs(4);

    pub(crate) fn new(service: Host, orders: Sender<Order>, reports: Receiver<Report>) -> Self {
        Self {
            events: service.subscribe_all(Subscription::new().capacity(Self::UNREAD)),
            service,
            orders,
            reports,
            started: Instant::now(),
            model: Model::new(),
            picture: Picture::default(),
            paused: false,
            selection: Selection::default(),
            table: TableState::default(),
            said: None,
        }
    }

    /// Takes the events, reports and lists since the last call.
    ///
    /// # Errors
    /// Fails if the load has ended.
    pub(crate) fn refresh(&mut self) -> Result<(), String> {
        let now = self.started.elapsed();
        while let Ok(event) = self.events.try_recv() {
            self.model.on_event(&event, now);
        }
        loop {
            match self.reports.try_recv() {
                Ok(report) => self.on_report(report, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err("the load has ended".into()),
            }
        }
        // The list comes after the events, so that a session with events that is not listed has ended.
        let sessions = self.service.list(SessionQuery::new()).map_err(|error| error.to_string())?;
        let asks = self.asks(&sessions);
        let picture = self.model.picture(&sessions, asks, self.service.stats(), now);
        if !self.paused {
            self.picture = picture;
            self.selection.follow(&self.picture);
        }
        Ok(())
    }

    /// The input requests of the sessions that wait for an answer. None of them has any if it has been answered, or has
    /// ended, since the list was made.
    fn asks(&self, sessions: &[SessionSummary]) -> HashMap<SessionId, Vec<PendingInput>> {
        let waiting = sessions.iter().filter(|session| session.state == SessionState::Waiting);
        let asks = waiting.map(|session| {
            let id = session.session_id;
            (id, self.service.pending_inputs(id).unwrap_or_default())
        });
        asks.collect()
    }

    fn on_report(&mut self, report: Report, now: Duration) {
        match report {
            Report::Ended(ended) => self.model.on_ended(ended, now),
            Report::Opened(name) => self.say(format!("opened {name}")),
            Report::Refused(error) => self.say(error.to_string()),
        }
    }

    fn say(&mut self, what: String) {
        self.said = Some((what, Instant::now()));
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let line = self.line();
        let selected = Some(self.selection.row).filter(|_| !self.picture.rows.is_empty());
        let notes = Notes { selected, paused: self.paused, line: &line };
        draw(frame, &self.picture, notes, &mut self.table);
    }

    /// The message, for some seconds. Otherwise the id and the last answer of the selected session.
    fn line(&self) -> String {
        if let Some((said, _)) = self.said.as_ref().filter(|(_, at)| at.elapsed() < Self::SAID) {
            return said.clone();
        }
        let Some(id) = self.selection.session else { return String::new() };
        match self.service.read(id) {
            Ok(view) => format!("{id}  {}", view.state.last_assistant_text.as_deref().unwrap_or_default()),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) fn on_key(&mut self, key: Key) -> Next {
        match key {
            Key::Char('q') | Key::Ctrl('c') => return Next::Quit,
            Key::Up | Key::Char('k') => self.selection.step(&self.picture, -1),
            Key::Down | Key::Char('j') => self.selection.step(&self.picture, 1),
            Key::Char('i') => self.on_selected("interrupted", |service, id| service.interrupt(id)),
            Key::Char('a') => self.on_selected("archived", |service, id| service.archive(id)),
            // The load reports whether the session was opened or refused.
            Key::Char('n') => _ = self.orders.send(Order::Open),
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('\t') if !self.select_question() => self.say("no session asks".into()),
            Key::Char('d') => self.answer(|_| Some(("no answer".into(), InputResponse::Declined { reason: None }))),
            Key::Char(digit @ '1'..='9') => self.answer(|request| option(request, digit)),
            _ => {}
        }
        Next::Go
    }

    /// Selects the next session that asks, from the selected one on. Returns whether there is one.
    pub(crate) fn select_question(&mut self) -> bool {
        self.selection.next_asking(&self.picture)
    }

    /// Answers the oldest request of the selected session that the picture shows. If the session asks something else by
    /// now, that request gets no answer: the person has not seen it.
    fn answer(&mut self, choose: impl FnOnce(&InputRequest) -> Option<(String, InputResponse)>) {
        let Some(row) = self.picture.rows.get(self.selection.row) else { return };
        let Some(ask) = row.asks.first() else { return };
        let Some((answer, response)) = choose(&ask.request) else { return };
        let said = match self.service.respond(row.id, ask.id, response) {
            Ok(()) => format!("answered {}: {answer}", row.name),
            Err(error) => format!("{}: {error}", row.name),
        };
        self.say(said);
    }

    fn on_selected<E: std::fmt::Display>(&mut self, done: &str, act: impl Fn(&Host, SessionId) -> Result<(), E>) {
        let Some(id) = self.selection.session else { return };
        let name = self.picture.row_of(id).map_or("", |row| &self.picture.rows[row].name);
        let said = match act(&self.service, id) {
            Ok(()) => format!("{done} {name} {}", id.short()),
            Err(error) => format!("{name}: {error}"),
        };
        self.say(said);
    }
}

/// The option with this digit, and its text.
fn option(request: &InputRequest, digit: char) -> Option<(String, InputResponse)> {
    let index = digit.to_digit(10)?.checked_sub(1)?;
    let option = request.options.get(index as usize)?;
    Some((option.label.clone(), InputResponse::Answer(option.id.clone())))
}

impl Selection {
    /// Keeps the selected session, or its row if the session has ended.
    fn follow(&mut self, picture: &Picture) {
        let row = self.session.and_then(|id| picture.row_of(id)).unwrap_or(self.row);
        self.row = row.min(picture.rows.len().saturating_sub(1));
        self.session = picture.rows.get(self.row).map(|row| row.id);
    }

    /// Selects the next session that asks. The selected one is the last candidate. Returns whether there is one.
    fn next_asking(&mut self, picture: &Picture) -> bool {
        let after = picture.rows.iter().enumerate().skip(self.row + 1);
        let all = after.chain(picture.rows.iter().enumerate());
        let next = all.filter(|(_, row)| !row.asks.is_empty()).map(|(row, _)| row).next();
        if let Some(row) = next {
            (self.row, self.session) = (row, None);
            self.follow(picture);
        }
        next.is_some()
    }

    fn step(&mut self, picture: &Picture, by: isize) {
        self.row = self.row.saturating_add_signed(by);
        self.session = None;
        self.follow(picture);
    }
}
