//! The live view.

use super::FRAME;
use super::board::{Board, lock};
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::render::{clean, instant, rate, short_duration, thousands};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Sparkline, Table};
use std::sync::Mutex;
use tidegate_engine::Cause;

/// Shows the board until the demo is done or the user has seen enough. The terminal is itself again afterwards, also
/// after a panic.
pub(super) fn show(
    board: &Mutex<Board>,
    interrupt: &Interrupt,
    done: impl Fn() -> bool,
    seconds: u64,
) -> Result<(), Failure> {
    let terminal = |error: std::io::Error| {
        let error = anyhow::anyhow!("the terminal cannot show the demo ({error}); try --plain");
        Failure::new(Exit::Output, error)
    };
    let mut screen = ratatui::try_init().map_err(terminal)?;
    let mut look = || -> std::io::Result<()> {
        // NO_COLOR has the view in bold and faint only.
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        while !done() && !interrupt.raised() {
            screen.draw(|frame| draw(frame, &lock(board), seconds, color))?;
            if event::poll(FRAME)?
                && let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if control => return Ok(()),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    let looked = look();
    ratatui::restore();
    looked.map_err(terminal)
}

fn block(title: &str) -> Block<'_> {
    Block::bordered().border_style(Style::new().dim()).title(Line::from(format!(" {title} ")).bold())
}

fn draw(frame: &mut Frame<'_>, board: &Board, seconds: u64, color: bool) {
    let [head, middle, tables, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(8),
        Constraint::Min(6),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let tint = |c: Color| if color { Style::new().fg(c) } else { Style::new() };
    let title = Line::from(vec![
        Span::from(" Tidegate ").bold().reversed(),
        Span::from(format!("  {}  ", instant(board.newest / 1_000_000_000 * 1_000_000_000))),
        Span::from(format!("{} events  ", thousands(board.events))),
        Span::styled(rate(board.rate_now()), tint(Color::Green).bold()),
    ]);
    frame.render_widget(title, head);

    let [spark, numbers, ledger] =
        Layout::horizontal([Constraint::Fill(2), Constraint::Length(30), Constraint::Length(30)])
            .areas(middle);
    throughput(frame, board, spark, tint(Color::Green));
    inside(frame, board, numbers);
    causes(frame, board, ledger, tint(Color::Yellow));

    // A number without room would lose digits, so columns go as a whole.
    let wide = tables.width >= MARKET_WIDE + HOSTS_WIDE;
    let hosts_width = match tables.width {
        width if width >= MARKET_NARROW + HOSTS_WIDE => HOSTS_WIDE,
        width if width >= MARKET_NARROW + HOSTS_NARROW => HOSTS_NARROW,
        _ => 0,
    };
    let [symbols, hosts] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(hosts_width)]).areas(tables);
    market(frame, board, symbols, wide, (tint(Color::Green), tint(Color::Red)));
    if hosts_width > 0 {
        network(frame, board, hosts, hosts_width == HOSTS_WIDE, tint(Color::Red));
    }

    let [keys, bar] = Layout::horizontal([Constraint::Length(28), Constraint::Fill(1)]).areas(foot);
    frame.render_widget(Line::from(" q or Ctrl-C ends the demo").dim(), keys);
    let share = (board.elapsed.as_secs_f64() / seconds as f64).clamp(0.0, 1.0);
    let label = format!("{} of {seconds} s", board.elapsed.as_secs().min(seconds));
    frame.render_widget(Gauge::default().ratio(share).label(label).gauge_style(tint(Color::Blue)), bar);
}

fn throughput(frame: &mut Frame<'_>, board: &Board, area: Rect, style: Style) {
    let width = usize::from(area.width.saturating_sub(2));
    let skip = board.throughput.len().saturating_sub(width);
    let points: Vec<u64> = board.throughput.iter().skip(skip).copied().collect();
    let peak = points.iter().copied().max().unwrap_or(0);
    let title = format!("events a second, peak {}", rate(peak as f64));
    frame.render_widget(Sparkline::default().block(block(&title)).data(&points).style(style), area);
}

/// Latency, watermark and shards.
fn inside(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    let mut lines: Vec<Line<'_>> = board
        .latencies()
        .into_iter()
        .map(|(name, ns)| Line::from(format!("{name:<6} {:>12}", short_duration(ns))))
        .collect();
    lines.push(Line::from(format!("lag    {:>12} (event)", short_duration(board.watermark_lag()))));
    for shard in &board.shards {
        lines.push(Line::from(format!("#{} {}, ring {}", shard.shard, shard.phase.name(), shard.ring_depth)));
    }
    frame.render_widget(Paragraph::new(lines).block(block("latency, due to in hand")), area);
}

fn causes(frame: &mut Frame<'_>, board: &Board, area: Rect, style: Style) {
    let mut lines = vec![Line::from(format!("{:<13}{:>13}", "final bars", thousands(board.bars_final)))];
    for (cause, label) in
        [(Cause::Late, "late"), (Cause::Cancel, "cancelled"), (Cause::Correction, "corrected")]
    {
        let count = board.by_cause[cause as usize];
        let style = if count > 0 { style } else { Style::new() };
        lines.push(Line::from(format!("{label:<13}{:>13}", thousands(count))).style(style));
    }
    let style = if board.incomplete > 0 { style } else { Style::new() };
    lines.push(Line::from(format!("{:<13}{:>13}", "with a gap", thousands(board.incomplete))).style(style));
    lines.push(Line::from(format!("{:<13}{:>13}", "all results", thousands(board.rows_out))));
    frame.render_widget(Paragraph::new(lines).block(block("bars by cause")), area);
}

/// Columns with one blank between them and a border around.
const MARKET_COLUMNS: [(&str, u16); 8] = [
    ("symbol", 6),
    ("last", 9),
    ("change", 9),
    ("vwap", 11),
    ("rsi 14", 6),
    ("trades", 11),
    ("high", 9),
    ("low", 9),
];
const MARKET_NARROW: u16 = 6 + 9 + 9 + 11 + 6 + 11 + 5 + 2;
const MARKET_WIDE: u16 = MARKET_NARROW + 2 * 10;
const HOST_COLUMNS: [(&str, u16); 5] =
    [("host", 15), ("ports", 7), ("unanswered", 10), ("peers", 7), ("packets", 9)];
const HOSTS_NARROW: u16 = 15 + 7 + 10 + 2 + 2;
const HOSTS_WIDE: u16 = HOSTS_NARROW + 8 + 10;

/// A table whose first column stands left and whose others are numbers.
fn table<'a>(columns: &[(&'a str, u16)], rows: Vec<Row<'a>>, title: &'a str) -> Table<'a> {
    let header = columns.iter().enumerate().map(|(at, (name, _))| match at {
        0 => Cell::from(*name),
        _ => right((*name).to_owned()),
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    Table::new(rows, widths).header(Row::new(header).dim()).block(block(title))
}

fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Line::from(text).right_aligned())
}

fn market(frame: &mut Frame<'_>, board: &Board, area: Rect, wide: bool, (up, down): (Style, Style)) {
    let columns = if wide { &MARKET_COLUMNS[..] } else { &MARKET_COLUMNS[..6] };
    let rows = board.top(usize::from(area.height.saturating_sub(3))).into_iter().map(|(name, row)| {
        let change = 100.0 * (row.last.0 - row.first) as f64 / (row.first as f64).max(1.0);
        let cells = [
            Cell::from(clean(name)),
            right(format!("{:.2}", row.last.to_f64())),
            right(format!("{change:+.2} %")).style(if change < 0.0 { down } else { up }),
            right(row.vwap.map_or("-".to_owned(), |vwap| format!("{:.4}", vwap.to_f64()))),
            right(row.rsi.map_or("-".to_owned(), |rsi| format!("{rsi:.1}"))),
            right(thousands(row.trades)),
            right(format!("{:.2}", row.high.to_f64())),
            right(format!("{:.2}", row.low.to_f64())),
        ];
        Row::new(cells.into_iter().take(columns.len()))
    });
    frame.render_widget(table(columns, rows.collect(), "1 s bars, busiest symbols"), area);
}

fn network(frame: &mut Frame<'_>, board: &Board, area: Rect, wide: bool, odd: Style) {
    let columns = if wide { &HOST_COLUMNS[..] } else { &HOST_COLUMNS[..3] };
    let rows = board.top_hosts(usize::from(area.height.saturating_sub(3))).into_iter().map(|(name, host)| {
        let strange = host.ports > 200 || host.unanswered > 50;
        let cells = [
            Cell::from(clean(name)),
            right(thousands(host.ports)),
            right(thousands(host.unanswered)),
            right(thousands(host.peers)),
            right(thousands(host.packets)),
        ];
        let row = Row::new(cells.into_iter().take(columns.len()));
        if strange { row.style(odd) } else { row }
    });
    frame.render_widget(table(columns, rows.collect(), "1 m windows, most ports"), area);
}

#[cfg(test)]
mod tests {
    use super::super::{board, feed};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::sync::Arc;
    use tidegate_actors::bars::BarOptions;
    use tidegate_replay::{LogOptions, Plan, ReplayOptions, replay};

    /// What the demo has gathered after its first two seconds, without their pace.
    fn played() -> Board {
        let feed = feed::Feed::new(2, 1);
        let plan = Plan {
            bars: crate::plan::usual_bars(),
            indicators: feed::INDICATORS.iter().map(|text| text.parse().unwrap()).collect(),
            bar_options: BarOptions { history: true, ..BarOptions::default() },
            hosts: vec![crate::plan::minute()],
            ..Plan::default()
        };
        let board = Arc::new(Mutex::new(Board::new(feed.speed, feed.first_ts())));
        let mut sink = board::Sink(Arc::clone(&board));
        let mut tell = |stats: &_| lock(&board).live(stats);
        let options = ReplayOptions::default();
        replay(feed.sources(), &plan, LogOptions::default(), &options, Some(&mut sink), &mut tell).unwrap();
        drop(sink);
        Arc::into_inner(board).unwrap().into_inner().unwrap()
    }

    fn lines(board: &Board, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board, 60, true)).unwrap();
        let buffer = terminal.backend().buffer();
        let symbols: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        symbols.chunks(usize::from(width)).map(|line| line.concat()).collect()
    }

    #[track_caller]
    fn has_line(lines: &[String], words: &[&str]) {
        let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} in\n{}", lines.join("\n"));
    }

    #[test]
    fn the_live_view_shows_what_was_gathered() {
        let board = played();
        assert!(board.bars_final > 0 && board.bars_amended > 0 && board.incomplete > 0);
        let shown = lines(&board, 150, 40);
        has_line(&shown, &["Tidegate", "2026-01-05T14:3", &format!("{} events", thousands(board.events))]);
        has_line(&shown, &["final bars", &thousands(board.bars_final)]);
        has_line(&shown, &["late", &thousands(board.by_cause[Cause::Late as usize])]);
        has_line(&shown, &["cancelled", &thousands(board.by_cause[Cause::Cancel as usize])]);
        has_line(&shown, &["with a gap", &thousands(board.incomplete)]);
        has_line(&shown, &["all results", &thousands(board.rows_out)]);
        for (name, ns) in board.latencies() {
            has_line(&shown, &[name, &short_duration(ns)]);
        }
        has_line(&shown, &["#0", "ended", "ring 0"]);
        // The busiest symbol and the most curious host stand first, with all their numbers.
        let (symbol, row) = board.top(1)[0];
        let (price, high) = (format!("{:.2}", row.last.to_f64()), format!("{:.2}", row.high.to_f64()));
        let rsi = row.rsi.map_or("-".to_owned(), |rsi| format!("{rsi:.1}"));
        has_line(&shown, &[symbol, &price, &rsi, &thousands(row.trades), &high]);
        let (host, numbers) = board.top_hosts(1)[0];
        has_line(&shown, &[host, &thousands(numbers.ports), &thousands(numbers.packets)]);
        has_line(&shown, &["q or Ctrl-C ends the demo", "of 60 s"]);

        // A narrow terminal loses columns as a whole, and then the hosts; no number is cut.
        let narrow = lines(&board, 70, 24);
        has_line(&narrow, &[symbol, &price, &thousands(row.trades)]);
        assert!(!narrow.iter().any(|line| line.contains("unanswered")), "{}", narrow.join("\n"));
        // However small it is, it is drawn.
        for (width, height) in [(1, 1), (20, 5), (80, 8), (300, 100)] {
            assert_eq!(lines(&board, width, height).len(), usize::from(height));
        }
    }

    #[test]
    fn a_view_without_anything_yet_is_drawn() {
        let shown = lines(&Board::new(240.0, 0), 120, 30);
        has_line(&shown, &["0 events"]);
        has_line(&shown, &["busiest symbols"]);
    }
}
