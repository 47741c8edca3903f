//! Plots as SVG, on logarithmic axes: lines over a number, and bars in groups.

use std::fmt::Write as _;

/// Seven colours that colour-blind readers can tell apart, also in grey.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"];
const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";

/// A line of a plot.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// The coordinates. Points that are not positive are left out, because a logarithmic axis cannot show them.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The title of a plot and the names of its axes.
#[derive(Debug)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// A group of bars. Each bar has the index of its name among the names of the plot, and its value.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<(usize, f64)>,
}

/// Maps a value to a coordinate. The scale covers whole powers of ten.
struct Scale {
    low: i32,
    high: i32,
    start: f64,
    end: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        for value in values.filter(|value| *value > 0.0) {
            low = low.min(value.log10().floor() as i32);
            high = high.max(value.log10().ceil() as i32);
        }
        if low > high {
            (low, high) = (0, 1);
        }
        Self { low, high: high.max(low + 1), start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.start + part * (self.end - self.start)
    }

    /// The powers of ten, with their coordinates.
    fn ticks(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        (self.low..=self.high).map(|power| 10_f64.powi(power)).map(|value| (value, self.place(value)))
    }
}

/// A plot with a line for each series.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 420.0;
    let points = || series.iter().flat_map(|series| &series.points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let across = Scale::new(points().map(|(x, _)| *x), 70.0, WIDTH - 160.0);
    let up = Scale::new(points().map(|(_, y)| *y), HEIGHT - 50.0, 40.0);
    let mut svg = Svg::new(WIDTH, HEIGHT, axes.title);
    for (value, x) in across.ticks() {
        svg.line((x, up.start), (x, up.end), "#dddddd");
        svg.text((x, up.start + 18.0), "middle", &number(value));
    }
    for (value, y) in up.ticks() {
        svg.line((across.start, y), (across.end, y), "#dddddd");
        svg.text((across.start - 8.0, y + 4.0), "end", &number(value));
    }
    svg.text(((across.start + across.end) / 2.0, HEIGHT - 10.0), "middle", axes.x);
    svg.text((10.0, 32.0), "start", axes.y);
    for (place, series) in series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let shown = series.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
        svg.path(shown.map(|(x, y)| (across.place(*x), up.place(*y))), colour);
        svg.key((WIDTH - 145.0, 60.0 + 20.0 * place as f64), colour, &series.name);
    }
    svg.end()
}

/// A plot with a bar for each value. `label` formats the value beside the bar.
pub(crate) fn bars(title: &str, names: &[&str], groups: &[Group], label: impl Fn(f64) -> String) -> String {
    const WIDTH: f64 = 900.0;
    const LEFT: f64 = 250.0;
    const BAR: f64 = 14.0;
    const GAP: f64 = 16.0;
    let count: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 70.0 + count as f64 * BAR + groups.len() as f64 * GAP;
    let values = groups.iter().flat_map(|group| &group.bars).map(|(_, value)| *value);
    let across = Scale::new(values, LEFT, WIDTH - 80.0);
    let mut svg = Svg::new(WIDTH, height, title);
    for (place, name) in names.iter().enumerate() {
        svg.key((LEFT + 100.0 * place as f64, 40.0), COLOURS[place % COLOURS.len()], name);
    }
    for (value, x) in across.ticks() {
        svg.line((x, 60.0), (x, height - 20.0), "#dddddd");
        svg.text((x, height - 6.0), "middle", &label(value));
    }
    let mut y = 60.0;
    for group in groups {
        svg.text((LEFT - 8.0, y + BAR * group.bars.len() as f64 / 2.0 + 4.0), "end", &group.name);
        for &(name, value) in &group.bars {
            let end = across.place(value).max(LEFT + 1.0);
            svg.bar((LEFT, y), (end - LEFT, BAR - 2.0), COLOURS[name % COLOURS.len()]);
            svg.text((end + 4.0, y + BAR - 3.0), "start", &label(value));
            y += BAR;
        }
        y += GAP;
    }
    svg.end()
}

fn number(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", value / 1e6),
        _ if value >= 1e3 => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}

/// An SVG document under construction.
struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64, title: &str) -> Self {
        // The background is white, because the text is dark and a page may be dark too.
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" {FONT} fill=\"#222222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ));
        svg.add(format_args!(
            "<text x=\"10\" y=\"18\" font-size=\"14\" font-weight=\"bold\">{}</text>",
            escaped(title)
        ));
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    fn bar(&mut self, at: (f64, f64), size: (f64, f64), colour: &str) {
        let ((x, y), (width, height)) = (at, size);
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        ));
    }

    fn path(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
            self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        let path = path.trim_end();
        self.add(format_args!("<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
    }

    fn text(&mut self, at: (f64, f64), anchor: &str, text: &str) {
        let ((x, y), text) = (at, escaped(text));
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// A key of the legend: a name behind its colour.
    fn key(&mut self, at: (f64, f64), colour: &str, name: &str) {
        self.bar((at.0, at.1 - 9.0), (10.0, 10.0), colour);
        self.text((at.0 + 15.0, at.1), "start", name);
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
