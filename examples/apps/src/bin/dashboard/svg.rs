//! A frame without a terminal: as text, and as a picture for documents.

use std::fmt::{self, Write};

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 18.0;
const FONT_SIZE: f64 = 14.0;
/// The margin around the frame. The title bar of the window is above it.
const MARGIN: f64 = 14.0;
const TITLE_BAR: f64 = 32.0;
const FOREGROUND: &str = "#c9d1d9";
const BACKGROUND: &str = "#0d1117";

/// The lines of the frame, without trailing blanks.
pub(crate) fn text(frame: &Buffer) -> String {
    let lines = (0..frame.area.height).map(|y| {
        let line: String = (0..frame.area.width).map(|x| frame[(x, y)].symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

/// The frame as a picture of a dark terminal.
///
/// Every word has a fixed position and width, so that the picture looks the same in every font. Lines and bars are
/// shapes, because fonts draw them with gaps.
pub(crate) fn svg(frame: &Buffer, title: &str) -> Result<String, fmt::Error> {
    let width = f64::from(frame.area.width) * CELL_WIDTH + 2.0 * MARGIN;
    let height = f64::from(frame.area.height) * CELL_HEIGHT + TITLE_BAR + MARGIN;
    let mut out = String::new();
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1} {height:.1}" width="{width:.0}" height="{height:.0}" role="img">"#
    )?;
    writeln!(out, "<title>{}</title>", escaped(title))?;
    writeln!(
        out,
        r##"<rect x="0.5" y="0.5" width="{:.1}" height="{:.1}" rx="8" fill="{BACKGROUND}" stroke="#30363d"/>"##,
        width - 1.0,
        height - 1.0
    )?;
    for (x, color) in [(20, "#ff5f57"), (40, "#febc2e"), (60, "#28c840")] {
        writeln!(out, r#"<circle cx="{x}" cy="17" r="6" fill="{color}"/>"#)?;
    }
    writeln!(
        out,
        r#"<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="{FONT_SIZE}" fill="{FOREGROUND}">"#
    )?;
    writeln!(
        out,
        r##"<text x="{:.1}" y="22" text-anchor="middle" fill="#8b949e">{}</text>"##,
        width / 2.0,
        escaped(title)
    )?;
    for y in 0..frame.area.height {
        row(&mut out, frame, y)?;
    }
    out.push_str("</g>\n</svg>\n");
    Ok(out)
}

/// Draws a row of cells: backgrounds, then lines and bars, then words.
fn row(out: &mut String, frame: &Buffer, y: u16) -> fmt::Result {
    let cells: Vec<&Cell> = (0..frame.area.width).map(|x| &frame[(x, y)]).collect();
    let top = TITLE_BAR + f64::from(y) * CELL_HEIGHT;
    for (start, run) in runs(&cells, |cell| Some(colors(cell).1).filter(|back| *back != BACKGROUND)) {
        rect(out, left(start), top, run.len() as f64 * CELL_WIDTH, CELL_HEIGHT, colors(run[0]).1)?;
    }
    for (start, run) in runs(&cells, |cell| is_drawn(cell.symbol()).then(|| (cell.symbol(), colors(cell)))) {
        drawn(out, run, left(start), top)?;
    }
    for (start, run) in runs(&cells, |cell| is_word(cell.symbol()).then(|| (colors(cell), cell.modifier))) {
        word(out, run, left(start), top + CELL_HEIGHT * 0.74)?;
    }
    Ok(())
}

/// Runs of neighbouring cells with the same key, each with the index of its first cell. Cells without a key are
/// skipped.
fn runs<'a, 'b, K: PartialEq>(
    cells: &'a [&'b Cell],
    key: impl Fn(&'b Cell) -> Option<K> + 'a,
) -> impl Iterator<Item = (usize, &'a [&'b Cell])> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || loop {
        let start = at;
        let first = key(cells.get(start)?);
        at += cells[start..].iter().take_while(|cell| key(cell) == first).count();
        if first.is_some() {
            return Some((start, &cells[start..at]));
        }
    })
}

fn left(column: usize) -> f64 {
    MARGIN + column as f64 * CELL_WIDTH
}

fn is_drawn(symbol: &str) -> bool {
    matches!(symbol, "─" | "│" | "╭" | "╮" | "╰" | "╯") || eighths(symbol).is_some()
}

fn is_word(symbol: &str) -> bool {
    !is_drawn(symbol) && !symbol.trim().is_empty()
}

/// The height of a bar, in eighths of a cell.
fn eighths(symbol: &str) -> Option<u32> {
    let symbol = symbol.chars().next()?;
    ('▁'..='█').contains(&symbol).then(|| symbol as u32 - '▁' as u32 + 1)
}

/// Draws a run of one symbol: a line, a corner or a bar.
fn drawn(out: &mut String, run: &[&Cell], x: f64, y: f64) -> fmt::Result {
    let (color, _) = colors(run[0]);
    let (right, bottom) = (x + run.len() as f64 * CELL_WIDTH, y + CELL_HEIGHT);
    let (middle, centre) = (x + CELL_WIDTH / 2.0, y + CELL_HEIGHT / 2.0);
    let line = match run[0].symbol() {
        "─" => format!("M{x:.1} {centre:.1}H{right:.1}"),
        // Several of them beside each other are several lines.
        "│" => {
            let columns = (0..run.len()).map(|column| middle + column as f64 * CELL_WIDTH);
            columns.map(|x| format!("M{x:.1} {y:.1}V{bottom:.1}")).collect()
        }
        "╭" => format!("M{middle:.1} {bottom:.1}Q{middle:.1} {centre:.1} {right:.1} {centre:.1}"),
        "╮" => format!("M{x:.1} {centre:.1}Q{middle:.1} {centre:.1} {middle:.1} {bottom:.1}"),
        "╰" => format!("M{middle:.1} {y:.1}Q{middle:.1} {centre:.1} {right:.1} {centre:.1}"),
        "╯" => format!("M{x:.1} {centre:.1}Q{middle:.1} {centre:.1} {middle:.1} {y:.1}"),
        bar => {
            let filled = CELL_HEIGHT * f64::from(eighths(bar).unwrap_or(0)) / 8.0;
            return rect(out, x, bottom - filled, right - x, filled, color);
        }
    };
    writeln!(out, r#"<path d="{line}" fill="none" stroke="{color}"/>"#)
}

fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, color: &str) -> fmt::Result {
    // Neighbours overlap a little, because edges that only meet show as seams in a scaled picture.
    let (width, height) = (width + 0.6, height + 0.6);
    writeln!(out, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#)
}

fn word(out: &mut String, run: &[&Cell], x: f64, baseline: f64) -> fmt::Result {
    let (color, _) = colors(run[0]);
    let fill = if color == FOREGROUND { String::new() } else { format!(r#" fill="{color}""#) };
    let bold = if run[0].modifier.contains(Modifier::BOLD) { r#" font-weight="bold""# } else { "" };
    let text: String = run.iter().map(|cell| cell.symbol()).collect();
    let width = run.len() as f64 * CELL_WIDTH;
    writeln!(
        out,
        r#"<text x="{x:.1}" y="{baseline:.1}" textLength="{width:.1}" lengthAdjust="spacingAndGlyphs"{fill}{bold}>{}</text>"#,
        escaped(&text)
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML cannot represent control characters.
            symbol if symbol.is_control() => out.push('\u{fffd}'),
            symbol => out.push(symbol),
        }
    }
    out
}

/// The foreground and the background of a cell. A reversed cell has them swapped.
fn colors(cell: &Cell) -> (&'static str, &'static str) {
    let (front, back) = (color(cell.fg, FOREGROUND), color(cell.bg, BACKGROUND));
    if cell.modifier.contains(Modifier::REVERSED) {
        (back, front)
    } else {
        (front, back)
    }
}

/// The colours that the dashboard uses. All other colours are shown as the default.
fn color(color: Color, none: &'static str) -> &'static str {
    match color {
        Color::Black => BACKGROUND,
        Color::Red => "#ff7b72",
        Color::Green => "#3fb950",
        Color::Yellow => "#d29922",
        Color::Blue => "#58a6ff",
        Color::Magenta => "#a371f7",
        Color::Cyan => "#56d4dd",
        Color::Gray => "#b1bac4",
        Color::DarkGray => "#7d8590",
        Color::White => "#f0f6fc",
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    fn frame() -> Buffer {
        let mut frame = Buffer::empty(Rect::new(0, 0, 12, 2));
        frame.set_string(0, 0, "a<b  & ─█▁", Style::new());
        frame.set_string(0, 1, "on", Style::new().fg(Color::Green).add_modifier(Modifier::REVERSED));
        frame
    }

    #[test]
    fn text_is_the_symbols_without_blanks_at_the_ends() {
        assert_eq!(text(&frame()), "a<b  & ─█▁\non\n");
    }

    #[test]
    fn words_are_escaped_text_and_bars_and_lines_are_shapes() {
        let picture = svg(&frame(), "\"x\" & \u{1b}y").expect("text can be written to");
        assert!(picture.contains(">a&lt;b</text>"), "{picture}");
        assert!(picture.contains(">&amp;</text>"));
        assert!(picture.contains("<title>&quot;x&quot; &amp; \u{fffd}y</title>"));
        assert_eq!(picture.matches("<path ").count(), 1);
        assert!(!picture.contains('█') && !picture.contains('▁') && !picture.contains('─'));
        // The four shapes are the window, a full bar, a low bar, and the background of the reversed word.
        assert_eq!(picture.matches("<rect ").count(), 4);
        assert!(picture.contains(r##"width="17.4" height="18.6" fill="#3fb950"/>"##), "{picture}");
    }
}
