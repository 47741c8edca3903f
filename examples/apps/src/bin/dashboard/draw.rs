//! The layout and the widgets of a picture.

use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Bar, BarChart, BarGroup, Block, BorderType, Cell, Paragraph, Row as TableRow, Sparkline, Table, TableState, Wrap,
};
use ratatui::Frame;
use turnwise::SessionState;

use crate::figures::{short_count, short_time};
use crate::model::{Outcome, Picture, Row, BOUNDS};

/// The parts of a frame apart from the figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes<'a> {
    pub(crate) selected: Option<usize>,
    pub(crate) paused: bool,
    /// The message, or the last answer of the selected session.
    pub(crate) line: &'a str,
}

/// The number of rows that are not for sessions.
pub(crate) const AROUND: u16 = HEADER + CHARTS + FOOTER + 3;
/// The number of columns that all parts need.
pub(crate) const WIDTH: u16 = 112;
const HEADER: u16 = 5;
const CHARTS: u16 = 8;
const FOOTER: u16 = 2;
/// The height of a question in a low terminal.
const QUESTION: u16 = 4;

const DIM: Style = Style::new().fg(Color::DarkGray);

/// Draws a frame. `table` keeps the scroll position of the sessions.
pub(crate) fn draw(frame: &mut Frame<'_>, picture: &Picture, notes: Notes<'_>, table: &mut TableState) {
    let asks = notes.selected.and_then(|row| picture.rows.get(row)).filter(|row| !row.asks.is_empty());
    // In a low terminal the sessions have all rows, and the charts none. A question is shown in any terminal.
    let is_low = frame.area().height < AROUND + 3;
    let below = match (is_low, asks) {
        (false, _) => CHARTS,
        (true, Some(_)) => QUESTION,
        (true, None) => 0,
    };
    let parts = [
        Constraint::Length(HEADER),
        Constraint::Min(4),
        Constraint::Length(below),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [header, sessions, below, line, keys] = Layout::vertical(parts).areas(frame.area());
    draw_header(frame, header, picture, notes.paused);
    table.select(notes.selected);
    let room = sessions.width.saturating_sub(2);
    frame.render_stateful_widget(sessions_table(picture, room), sessions, table);
    let latencies = Constraint::Length(if is_low { 0 } else { 44 });
    let [left, right] = Layout::horizontal([Constraint::Fill(1), latencies]).areas(below);
    match asks {
        Some(row) => draw_question(frame, left, row),
        None => draw_rates(frame, left, picture),
    }
    draw_latencies(frame, right, picture);
    frame.render_widget(Line::from(format!(" {}", notes.line)).fg(Color::Cyan), line);
    frame.render_widget(keys_line(), keys);
}

fn block(title: impl Into<String>) -> Block<'static> {
    let title = Span::styled(format!(" {} ", title.into()), Style::new().bold().fg(Color::Gray));
    Block::bordered().border_type(BorderType::Rounded).border_style(DIM).title(title)
}

fn draw_header(frame: &mut Frame<'_>, area: Rect, picture: &Picture, paused: bool) {
    let stats = &picture.stats;
    let seconds = picture.up.as_secs();
    let mut block = block(format!("turnwise dashboard, up {:02}:{:02}", seconds / 60, seconds % 60));
    if paused {
        let mark = Line::from(" the picture is paused ".black().on_yellow());
        block = block.title(mark.alignment(Alignment::Right));
    }
    let time = |time: Option<std::time::Duration>| time.map_or("-".into(), short_time);
    // Of receivers of turns, and of subscribers such as this dashboard.
    let dropped = stats.events_dropped + stats.subscriber_events_dropped;
    // Not `stats.running_turns`, which counts permits: most of these agents sleep most of the time, without a permit.
    let running = picture.rows.iter().filter(|row| row.state == SessionState::Running).count();
    let permits = stats.permit_waiting_turns;
    let now = [
        ("sessions", format!("{} of {}", stats.sessions, stats.max_sessions), Color::Reset),
        ("running", running.to_string(), Color::Green),
        ("waiting", stats.waiting_turns.to_string(), warn(stats.waiting_turns as u64, Color::Yellow)),
        ("queued", picture.queued.to_string(), warn(picture.queued as u64, Color::Cyan)),
        ("turns/s", format!("{:.1}", picture.turns_per_second), Color::Reset),
        ("events/s", format!("{:.0}", picture.events_per_second), Color::Reset),
        ("dropped events", short_count(dropped), warn(dropped, Color::Red)),
    ];
    let so_far = [
        ("turns", short_count(stats.turns_started), Color::Reset),
        ("completed", short_count(stats.turns_completed), Color::Green),
        ("failed", short_count(stats.turns_failed), warn(stats.turns_failed, Color::Yellow)),
        ("cancelled", short_count(stats.turns_cancelled), warn(stats.turns_cancelled, Color::Yellow)),
        ("faults", short_count(stats.faults), warn(stats.faults, Color::Red)),
        ("p50", time(picture.p50), Color::Reset),
        ("p99", time(picture.p99), Color::Reset),
    ];
    let spent = [
        ("time in queues", short_time(stats.timings.queued), Color::Reset),
        ("for permits", short_time(stats.timings.permit), Color::Reset),
        ("for answers", short_time(stats.timings.input), Color::Reset),
        ("in agents", short_time(stats.timings.running), Color::Reset),
        ("permits wanted now", permits.to_string(), warn(permits as u64, Color::Yellow)),
    ];
    let lines = vec![figures(&now), figures(&so_far), figures(&spent)];
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A colour for a figure that is of interest unless it is zero.
fn warn(count: u64, color: Color) -> Color {
    if count == 0 {
        Color::Reset
    } else {
        color
    }
}

fn figures(figures: &[(&'static str, String, Color)]) -> Line<'static> {
    let spans = figures.iter().flat_map(|(name, figure, color)| {
        [Span::styled(format!(" {name} "), DIM), Span::from(format!("{figure}  ")).bold().fg(*color)]
    });
    spans.collect::<Vec<_>>().into()
}

fn sessions_table(picture: &Picture, room: u16) -> Table<'static> {
    let columns = [
        ("id", 6, Alignment::Left),
        ("name", 14, Alignment::Left),
        ("state", 8, Alignment::Left),
        ("turns", 6, Alignment::Right),
        ("queue", 5, Alignment::Right),
        ("events/s", 8, Alignment::Right),
        ("", 8, Alignment::Left),
        ("last", 8, Alignment::Right),
        ("p50", 8, Alignment::Right),
        ("p99", 8, Alignment::Right),
        ("tokens", 7, Alignment::Right),
        ("last turn", 13, Alignment::Left),
    ];
    let head = columns.map(|(name, _, side)| Cell::from(Line::from(name).alignment(side)));
    // Only the columns that fit are shown. Squeezed columns would be unreadable.
    let ends = columns.iter().scan(0, |end, (_, width, _)| {
        *end += width + 1;
        Some(*end)
    });
    let shown = ends.take_while(|end| *end <= room + 1).count();
    let widths = columns[..shown].iter().map(|(_, width, _)| Constraint::Length(*width));
    let rows: Vec<TableRow<'_>> = picture.rows.iter().map(session_row).collect();
    Table::new(rows, widths)
        .header(TableRow::new(head).style(DIM))
        .row_highlight_style(Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED))
        .block(block("sessions"))
}

fn session_row(row: &Row) -> TableRow<'static> {
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let time = |time: Option<std::time::Duration>| right(time.map_or("-".into(), short_time));
    TableRow::new([
        Cell::from(Span::styled(row.id.short(), DIM)),
        Cell::from(row.name.clone()),
        Cell::from(state(row.state)),
        right(row.turns.to_string()),
        Cell::from(Line::from(queue(row.queued)).right_aligned()),
        right(format!("{:.1}", row.events_per_second)),
        Cell::from(bars(&row.activity).fg(Color::Blue)),
        time(row.last),
        time(row.p50),
        time(row.p99),
        right(short_count(row.tokens)),
        Cell::from(outcome(row.outcome.as_ref())),
    ])
}

fn state(state: SessionState) -> Span<'static> {
    let text = state.to_string();
    match state {
        SessionState::Running => text.green(),
        SessionState::Waiting => text.yellow(),
        SessionState::Building => text.cyan(),
        SessionState::Faulted => text.red().bold(),
        _ => text.into(),
    }
}

fn queue(turns: usize) -> Span<'static> {
    match turns {
        0 => Span::styled("-", DIM),
        turns => turns.to_string().cyan(),
    }
}

fn outcome(outcome: Option<&Outcome>) -> Span<'static> {
    match outcome {
        None => "".into(),
        Some(Outcome::Completed) => Span::styled("completed", DIM),
        Some(Outcome::Cancelled) => "cancelled".yellow(),
        Some(Outcome::Failed(why)) => why.clone().yellow(),
        Some(Outcome::Panicked(_)) => "panicked".red(),
    }
}

/// A character for each figure. The highest figure is not a full block, which would touch the row above.
fn bars<const N: usize>(figures: &[u64; N]) -> Span<'static> {
    const LEVELS: [char; 8] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    let highest = figures.iter().copied().max().unwrap_or(0).max(1);
    // A figure above zero is always visible.
    let level = |figure: &u64| LEVELS[(figure * 7 / highest).max(u64::from(*figure > 0)) as usize];
    figures.iter().map(level).collect::<String>().into()
}

/// The oldest request of a session, its options, and their keys.
fn draw_question(frame: &mut Frame<'_>, area: Rect, row: &Row) {
    let Some(ask) = row.asks.first() else { return };
    let title = match row.asks.len() {
        1 => format!("{} asks", row.name),
        asks => format!("{} asks, the first of {asks}", row.name),
    };
    let labels = ask.request.options.iter().map(|option| option.label.clone());
    let numbered = labels.take(9).enumerate().map(|(index, label)| ((index + 1).to_string(), label));
    let keys = numbered.chain([("d".into(), "decline".into())]);
    let spans = keys.flat_map(|(key, label)| [format!(" {key} ").bold(), Span::from(format!("{label}  "))]);
    let lines = vec![Line::from(format!(" {}", ask.request.message)), spans.collect::<Vec<_>>().into()];
    let question = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(question.block(block(title).border_style(Style::new().fg(Color::Yellow))), area);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let room = usize::from(area.width.saturating_sub(2));
    let history = &picture.history[picture.history.len().saturating_sub(room)..];
    let highest = history.iter().copied().max().unwrap_or(0);
    let title = format!("events per second, highest {}, a column each half second", short_count(highest));
    let sparkline = Sparkline::default().data(history.iter().copied()).style(Style::new().fg(Color::Blue));
    frame.render_widget(sparkline.block(block(title)), area);
}

fn draw_latencies(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let bar = |(index, count): (usize, &u64)| {
        let label = match BOUNDS.get(index) {
            Some(millis) if *millis < 1_000 => format!("{millis}ms"),
            Some(millis) => format!("{}s", millis / 1_000),
            None => "more".into(),
        };
        Bar::default().value(*count).text_value(short_count(*count)).label(label)
    };
    let bars: Vec<Bar<'_>> = picture.histogram.iter().enumerate().map(bar).collect();
    let chart = BarChart::default()
        .data(BarGroup::default().bars(&bars))
        .bar_width(5)
        .bar_gap(1)
        .bar_style(Style::new().fg(Color::Magenta))
        .value_style(Style::new().fg(Color::White).bg(Color::Magenta))
        .label_style(DIM);
    frame.render_widget(chart.block(block("how long turns took, up to")), area);
}

fn keys_line() -> Line<'static> {
    let keys = [
        ("↑↓ j k", "choose"),
        ("tab", "next question"),
        ("i", "interrupt"),
        ("a", "archive"),
        ("n", "new session"),
        ("space", "pause"),
        ("q", "quit"),
    ];
    let spans = keys
        .iter()
        .flat_map(|(key, what)| [Span::from(format!(" {key} ")).bold(), Span::styled(format!("{what}  "), DIM)]);
    spans.collect::<Vec<_>>().into()
}
