//! The dashboard: it reads the service and its events, and acts on keys. It never waits for a turn.

use std::time::{Duration, Instant};

use ratatui::termion::event::Key;
use ratatui::widgets::TableState;
use ratatui::Frame;
use turnwise::crossbeam_channel::{Receiver, Sender, TryRecvError};
use turnwise::{EventStream, SessionId, SessionQuery, SessionService, Subscription};

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
        let picture = self.model.picture(&sessions, self.service.stats(), self.events.dropped(), now);
        if !self.paused {
            self.picture = picture;
            self.selection.follow(&self.picture);
        }
        Ok(())
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
            _ => {}
        }
        Next::Go
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

impl Selection {
    /// Keeps the selected session, or its row if the session has ended.
    fn follow(&mut self, picture: &Picture) {
        let row = self.session.and_then(|id| picture.row_of(id)).unwrap_or(self.row);
        self.row = row.min(picture.rows.len().saturating_sub(1));
        self.session = picture.rows.get(self.row).map(|row| row.id);
    }

    fn step(&mut self, picture: &Picture, by: isize) {
        self.row = self.row.saturating_add_signed(by);
        self.session = None;
        self.follow(picture);
    }
}
