//! What people read: tables, numbers, times, colours.

use clap::ValueEnum;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The terminal, as far as commands care.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    /// Colour on stdout.
    color: bool,
    color_stderr: bool,
    quiet: bool,
}

/// How a cell is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Warn,
}

impl Ui {
    pub(crate) fn new(color: Color, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let wanted = |terminal: bool| match color {
            Color::Auto => terminal && !no_color && !dumb,
            Color::Always => true,
            Color::Never => false,
        };
        Self {
            color: wanted(std::io::stdout().is_terminal()),
            color_stderr: wanted(std::io::stderr().is_terminal()),
            quiet,
        }
    }

    /// Whether somebody watches stderr.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Text in a tone, for stdout.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    /// Writes to stdout. A reader that went away (`| head`) is no error.
    pub(crate) fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Writes one JSON value as a line.
    pub(crate) fn print_json(&self, value: &serde_json::Value) {
        self.print(&format!("{value}\n"));
    }

    /// Says something beside the result, unless asked to be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let label = paint(self.color_stderr, Tone::Faint, "note:");
            let _ = writeln!(std::io::stderr(), "{label} {}", clean(text));
        }
    }

    /// Says something that is whole already, on stderr, however quiet it is to be.
    pub(crate) fn report(&self, text: &str) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Whether stderr has colours.
    pub(crate) fn colors_stderr(&self) -> bool {
        self.color_stderr
    }

    /// Says why the command failed, with every cause.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let label = paint(self.color_stderr, Tone::Bad, "error:");
        let _ = writeln!(std::io::stderr(), "{label} {}", clean(&format!("{error:#}")));
    }
}

fn paint(color: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        _ if !color => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "1",
        Tone::Faint => "2",
        Tone::Good => "32",
        Tone::Bad => "31;1",
        Tone::Warn => "33",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Text from a file without what could steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A table: columns are as wide as their widest cell, numbers stand right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// A table with these headings; a heading that starts with `>` is of a column of numbers.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect(),
            right: header.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// A table of names and values, without headings.
    pub(crate) fn facts() -> Self {
        Self { header: Vec::new(), right: vec![false, false], rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| (Tone::Plain, clean(cell))).collect());
    }

    pub(crate) fn toned<const N: usize>(&mut self, cells: [(Tone, &str); N]) {
        self.rows.push(cells.iter().map(|(tone, cell)| (*tone, clean(cell))).collect());
    }

    pub(crate) fn cells(&mut self, cells: Vec<(Tone, String)>) {
        self.rows.push(cells);
    }

    /// One name and value.
    pub(crate) fn fact(&mut self, name: &str, value: impl AsRef<str>) {
        self.rows.push(vec![(Tone::Faint, name.to_owned()), (Tone::Plain, clean(value.as_ref()))]);
    }

    /// The table as text, each line after `indent` blanks.
    pub(crate) fn render(&self, ui: &Ui, indent: usize) -> String {
        let width = |text: &str| text.chars().count();
        let columns = self.right.len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|(_, cell)| width(cell));
                cells.chain(self.header.get(at).map(|name| width(name))).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: &[(Tone, String)]| {
            let mut row = " ".repeat(indent);
            for (at, (tone, cell)) in cells.iter().enumerate() {
                let gap = " ".repeat(widths[at].saturating_sub(width(cell)));
                let last = at + 1 == cells.len();
                let cell = ui.paint(*tone, cell);
                match (self.right[at], last) {
                    (true, _) => row.extend([gap.as_str(), &cell]),
                    (false, true) => row.push_str(&cell),
                    (false, false) => row.extend([cell.as_str(), &gap]),
                }
                if !last {
                    row.push_str("  ");
                }
            }
            let _ = writeln!(text, "{}", row.trim_end());
        };
        if !self.header.is_empty() {
            line(&self.header.iter().map(|name| (Tone::Faint, name.clone())).collect::<Vec<_>>());
        }
        self.rows.iter().for_each(|row| line(row));
        text
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: impl Into<u128>) -> String {
    let digits = n.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `4.2 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `12.3 M`, for rates.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e9 => format!("{:.2} G/s", r / 1e9),
        r if r >= 1e6 => format!("{:.1} M/s", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k/s", r / 1e3),
        r => format!("{r:.0} /s"),
    }
}

/// A span of time in the unit it is readable in: `120 ns`, `3.5 µs`, `1.25 s`, `6h 30m`.
pub(crate) fn duration(ns: u64) -> String {
    const S: u64 = 1_000_000_000;
    let decimal = |value: f64, unit: &str| {
        let text = format!("{value:.3}");
        format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => decimal(ns as f64 / 1e3, "µs"),
        1_000_000..S => decimal(ns as f64 / 1e6, "ms"),
        _ if ns < 60 * S => decimal(ns as f64 / 1e9, "s"),
        _ => {
            let s = ns / S;
            let parts = [(s / 86_400, "d"), (s / 3_600 % 24, "h"), (s / 60 % 60, "m"), (s % 60, "s")];
            let from = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
            let shown = parts[from..].iter().take(2).filter(|(n, _)| *n > 0);
            shown.map(|(n, unit)| format!("{n}{unit}")).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The same to three digits, for what moves.
pub(crate) fn short_duration(ns: u64) -> String {
    let unit = 10u64.pow(ns.max(1).ilog10().saturating_sub(2));
    duration(ns / unit * unit)
}

/// An instant in UTC to the nanosecond it has.
pub(crate) fn instant(ns: u64) -> String {
    let stamp = i128::from(ns);
    jiff::Timestamp::from_nanosecond(stamp).map_or_else(|_| format!("{ns} ns"), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let count = |n: u64| thousands(n);
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([bytes(12), bytes(2_048), bytes(5 << 30)], ["12 B", "2.0 KiB", "5.0 GiB"]);
        let spans = [12, 3_500, 1_250_000_000, 23_400_000_000_000, 86_400_000_000_000, 61_000_000_000];
        assert_eq!(spans.map(duration), ["12 ns", "3.5 µs", "1.25 s", "6h 30m", "1d", "1m 1s"]);
        assert_eq!(instant(1_767_623_400_000_000_001), "2026-01-05T14:30:00.000000001Z");
    }

    #[test]
    fn tables_line_up_and_disarm_what_they_show() {
        let ui = Ui { color: false, color_stderr: false, quiet: true };
        let mut table = Table::new(&["name", ">n"]);
        table.row(["a", "1"]);
        table.row(["\x1b[31mred", "22"]);
        assert_eq!(table.render(&ui, 1), " name       n\n a          1\n \u{fffd}[31mred  22\n");
    }
}
