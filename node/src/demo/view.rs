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
        Span::from(format!("  {} UTC  ", instant(board.newest / 1_000_000_000 * 1_000_000_000))),
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

    let [symbols, hosts] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(tables);
    market(frame, board, symbols, (tint(Color::Green), tint(Color::Red)));
    network(frame, board, hosts, tint(Color::Red));

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

fn market(frame: &mut Frame<'_>, board: &Board, area: Rect, (up, down): (Style, Style)) {
    let rows = board.top(usize::from(area.height.saturating_sub(3))).into_iter().map(|(name, row)| {
        let change = 100.0 * (row.last.0 - row.first) as f64 / (row.first as f64).max(1.0);
        let text = |text: String| Cell::from(Line::from(text).right_aligned());
        Row::new([
            Cell::from(clean(name)),
            text(format!("{:.2}", row.last.to_f64())),
            text(format!("{change:+.2} %")).style(if change < 0.0 { down } else { up }),
            text(row.vwap.map_or("-".to_owned(), |vwap| format!("{:.4}", vwap.to_f64()))),
            text(format!("{:.2}", row.high.to_f64())),
            text(format!("{:.2}", row.low.to_f64())),
            text(row.rsi.map_or("-".to_owned(), |rsi| format!("{rsi:.1}"))),
            text(thousands(row.trades)),
        ])
    });
    let widths = [6, 8, 9, 10, 8, 8, 6, 11].map(Constraint::Length);
    let right = |name| Cell::from(Line::from(name).right_aligned());
    let header = Row::new([
        Cell::from("symbol"),
        right("last"),
        right("change"),
        right("vwap"),
        right("high"),
        right("low"),
        right("rsi 14"),
        right("trades"),
    ]);
    let table = Table::new(rows, widths).header(header.dim()).block(block("1 s bars, busiest symbols"));
    frame.render_widget(table, area);
}

fn network(frame: &mut Frame<'_>, board: &Board, area: Rect, odd: Style) {
    let rows = board.top_hosts(usize::from(area.height.saturating_sub(3))).into_iter().map(|(name, host)| {
        let strange = host.ports > 200 || host.unanswered > 200;
        let text = |n: u64| Cell::from(Line::from(thousands(n)).right_aligned());
        let row = Row::new([
            Cell::from(clean(name)),
            text(host.packets),
            text(host.peers),
            text(host.ports),
            text(host.unanswered),
        ]);
        if strange { row.style(odd) } else { row }
    });
    let widths = [15, 9, 6, 6, 10].map(Constraint::Length);
    let right = |name| Cell::from(Line::from(name).right_aligned());
    let header =
        Row::new([Cell::from("host"), right("packets"), right("peers"), right("ports"), right("unanswered")]);
    let table = Table::new(rows, widths).header(header.dim()).block(block("1 m windows, busiest hosts"));
    frame.render_widget(table, area);
}
