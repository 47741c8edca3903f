//! The table of the figures of all crates.

use std::time::Duration;

use crate::common::plot::{bars, Group};
use crate::common::times::Times;

/// The names of the columns, in order. Each of the others is compared with the first.
pub(crate) const NAMES: [&str; 5] = ["turnwise", "meerkat", "tonari", "kameo", "ractor"];

/// A row of the table. In every row less is better.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    unit: Unit,
    /// The cost of the bare operation of the system that the work needs in any case, if there is one.
    floor: Option<f64>,
    /// In the order of [`NAMES`]. `None` if the crate has no such operation, or its measurement failed.
    figures: [Option<f64>; NAMES.len()],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Microseconds,
    Kibibytes,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        unit: Unit,
        floor: Option<f64>,
        figures: [Option<f64>; NAMES.len()],
    ) -> Self {
        Self { what: what.into(), unit, floor, figures }
    }

    /// Makes a row of the medians of the crates' times, divided by `many`, the operations in each time.
    pub(crate) fn of_times(
        what: impl Into<String>,
        floor: Option<Times>,
        times: [Times; NAMES.len()],
        many: usize,
    ) -> Self {
        let one = |times: Times| (!times.is_empty()).then(|| microseconds(times.median()) / many as f64);
        Self::new(what, Unit::Microseconds, floor.and_then(one), times.map(one))
    }

    /// Makes a row of the two services, because actors have no such operation. A time of zero means that the
    /// measurement failed.
    pub(crate) fn of_services(what: impl Into<String>, floor: Option<Duration>, times: [Duration; 2]) -> Self {
        let one = |time: Duration| (!time.is_zero()).then(|| microseconds(time));
        let [ours, theirs] = times.map(one);
        Self::new(what, Unit::Microseconds, floor.and_then(one), [ours, theirs, None, None, None])
    }
}

pub(crate) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn print_head() {
    print!("{:<40}{:>10}{:>10}", "less is better; x: as much as ours", "floor", NAMES[0]);
    NAMES[1..].iter().for_each(|name| print!("{name:>19}"));
    println!();
}

pub(crate) fn print(row: &Row) {
    let text = |figure: f64| match row.unit {
        Unit::Microseconds => time_text(figure),
        Unit::Kibibytes => format!("{figure:.1} KiB"),
    };
    let ours = row.figures[0];
    print!("{:<40}{:>10}", row.what, row.floor.map(text).unwrap_or_default());
    print!("{:>10}", ours.map(text).unwrap_or_default());
    for figure in &row.figures[1..] {
        let cell = figure.map(|figure| match ours {
            Some(ours) => format!("{} {:>8}", text(figure), ratio_text(figure / ours)),
            None => text(figure),
        });
        print!("{:>19}", cell.unwrap_or_default());
    }
    println!();
}

/// Plots as bars the rows of times in which every crate has a figure.
pub(crate) fn plot(rows: &[Row]) -> String {
    let shown = rows.iter().filter(|row| matches!(row.unit, Unit::Microseconds));
    let groups: Vec<Group> = shown
        .map(|row| {
            let bars = row.figures.iter().enumerate().filter_map(|(place, figure)| Some((place, (*figure)?)));
            Group { name: row.what.clone(), bars: bars.collect() }
        })
        .filter(|group| group.bars.len() == NAMES.len())
        .collect();
    bars("What each takes, on 2 cores (less is better)", &NAMES, &groups, time_text)
}

fn time_text(microseconds: f64) -> String {
    match microseconds {
        _ if microseconds >= 1e6 => format!("{:.1} s", microseconds / 1e6),
        _ if microseconds >= 1e3 => format!("{:.1} ms", microseconds / 1e3),
        _ if microseconds >= 100.0 => format!("{microseconds:.0} µs"),
        _ if microseconds >= 1.0 => format!("{microseconds:.1} µs"),
        _ => format!("{:.0} ns", microseconds * 1e3),
    }
}

fn ratio_text(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 100.0 => format!("{ratio:.0}x"),
        _ if ratio >= 10.0 => format!("{ratio:.1}x"),
        _ => format!("{ratio:.2}x"),
    }
}
