//! The live view: what is shown, and what keys do.

use super::model::{Model, UNKNOWN, number, text};
use super::sheet::{self, Sheet};
use crate::render::{bytes, clean, duration, rate, short_duration};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};
use std::time::Duration;

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Pipeline,
    Feeds,
    Subscribers,
    Keys,
}

impl Tab {
    const ALL: [Self; 5] = [Self::Overview, Self::Pipeline, Self::Feeds, Self::Subscribers, Self::Keys];

    const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Pipeline => "Pipeline",
            Self::Feeds => "Feeds",
            Self::Subscribers => "Subscribers",
            Self::Keys => "Keys",
        }
    }
}

/// What is typed, chosen and open.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tab: Tab,
    /// By tab.
    selected: [usize; 5],
    search: [String; 5],
    typing: bool,
    help: bool,
    detail: bool,
    /// Which stream the keys are shown of.
    pub(super) stream: usize,
    color: bool,
}

/// What a key asks of whoever runs the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
}

const HELP: [(&str, &str); 10] = [
    ("1 to 5, Tab, ← →", "overview, pipeline, feeds, subscribers, keys"),
    ("↑ ↓, j k", "choose a row"),
    ("PgUp PgDn, Home End", "further"),
    ("Enter", "everything the node says about the row"),
    ("/", "search; Enter keeps it, Esc forgets it"),
    ("s, S", "keys: the next stream, the one before"),
    ("Esc", "back"),
    ("?", "this"),
    ("q, Ctrl-C", "the end"),
    (UNKNOWN, "the node does not know"),
];

impl View {
    pub(super) fn new(color: bool) -> Self {
        Self {
            tab: Tab::Overview,
            selected: [0; 5],
            search: Default::default(),
            typing: false,
            help: false,
            detail: false,
            stream: 0,
            color,
        }
    }

    pub(super) fn search(&self) -> &str {
        &self.search[self.tab as usize]
    }

    /// The table that keys move in.
    fn sheet(&self, model: &Model) -> Sheet {
        match self.tab {
            Tab::Overview => sheet::shards(model).filtered(self.search()),
            Tab::Pipeline => sheet::stages(model).filtered(self.search()),
            Tab::Feeds => sheet::feeds(model).filtered(self.search()),
            Tab::Subscribers => sheet::subscribers(model).filtered(self.search()),
            // The node has searched already.
            Tab::Keys => sheet::keys(model),
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent, model: &Model) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Nothing };
        }
        let at = self.tab as usize;
        if self.typing {
            let search = &mut self.search[at];
            match key.code {
                KeyCode::Char(letter) if search.len() < 64 => search.push(letter),
                KeyCode::Backspace => drop(search.pop()),
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    search.clear();
                    self.typing = false;
                }
                _ => {}
            }
            self.selected[at] = 0;
            return Wish::Nothing;
        }
        let last = self.sheet(model).rows.len().saturating_sub(1);
        let selected = &mut self.selected[at];
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Char('/') => (self.typing, self.detail) = (true, false),
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if self.detail => self.detail = false,
            KeyCode::Esc => self.search[at].clear(),
            KeyCode::Enter => self.detail = !self.detail,
            KeyCode::Up | KeyCode::Char('k') => *selected = selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => *selected = (*selected + 1).min(last),
            KeyCode::PageUp => *selected = selected.saturating_sub(10),
            KeyCode::PageDown => *selected = (*selected + 10).min(last),
            KeyCode::Home => *selected = 0,
            KeyCode::End => *selected = last,
            KeyCode::Tab | KeyCode::Right => self.go(Tab::ALL[(at + 1) % 5]),
            KeyCode::BackTab | KeyCode::Left => self.go(Tab::ALL[(at + 4) % 5]),
            KeyCode::Char(digit @ '1'..='5') => self.go(Tab::ALL[digit as usize - '1' as usize]),
            KeyCode::Char(letter @ ('s' | 'S')) if self.tab == Tab::Keys && !model.streams.is_empty() => {
                let count = model.streams.len();
                self.stream = (self.stream + if letter == 's' { 1 } else { count - 1 }) % count;
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn go(&mut self, tab: Tab) {
        (self.tab, self.detail) = (tab, false);
    }

    fn tint(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>, model: &Model, up: Duration) {
        let [head, tabs, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.head(frame, model, up, head);
        let names = Tab::ALL.iter().enumerate().flat_map(|(at, tab)| {
            let name = format!(" {} {} ", at + 1, tab.name());
            [if *tab == self.tab { Span::from(name).bold().reversed() } else { Span::from(name) }, " ".into()]
        });
        frame.render_widget(Line::from(names.collect::<Vec<_>>()), tabs);
        match self.tab {
            Tab::Overview => self.overview(frame, model, body),
            Tab::Pipeline => self.pipeline(frame, model, body),
            _ => self.table(frame, &self.sheet(model), true, self.title(model), body),
        }
        if self.detail {
            self.details(frame, model, body);
        }
        if self.help {
            let lines = HELP.map(|(key, what)| (key.to_owned(), what.to_owned()));
            popup(frame, "keys", &lines, body);
        }
        let search = match (self.typing, self.search()) {
            (true, search) => format!(" /{search}▏  Enter keeps it, Esc forgets it"),
            (false, "") => " ? help  / search  Enter details  q quit".to_owned(),
            (false, search) => format!(" only what has `{search}`; Esc shows all"),
        };
        frame.render_widget(Line::from(search).dim(), foot);
    }

    fn head(&self, frame: &mut Frame<'_>, model: &Model, up: Duration, area: Rect) {
        let status = model.status();
        let mut spans =
            vec![Span::from(" Tidegate ").bold().reversed(), Span::from(format!(" {}  ", model.url))];
        match (&model.silent, status.is_null()) {
            (Some((_, since)), _) => {
                let silent = up.saturating_sub(*since).as_secs();
                let text = format!("no answer for {silent} s, trying again");
                spans.push(Span::styled(text, self.tint(Color::Red).bold()));
            }
            (None, true) => spans.push(Span::from("connecting").dim()),
            (None, false) => {
                let uptime = number(&status["uptime_s"])
                    .map_or(UNKNOWN.to_owned(), |s| duration(s.saturating_mul(1_000_000_000)));
                spans.push(Span::from(format!("{}  up {uptime}  ", text(&status["version"]))));
                let warnings = model.warnings();
                spans.push(if warnings.is_empty() {
                    Span::styled("no warnings", self.tint(Color::Green))
                } else {
                    let color =
                        if warnings.iter().any(|warning| warning.bad) { Color::Red } else { Color::Yellow };
                    let count = warnings.len();
                    let noun = if count == 1 { "warning" } else { "warnings" };
                    Span::styled(format!("{count} {noun}"), self.tint(color).bold())
                });
            }
        }
        frame.render_widget(Line::from(spans), area);
    }

    fn title(&self, model: &Model) -> String {
        let sheet = self.sheet(model);
        match (self.tab, &model.keys) {
            (Tab::Keys, Some(keys)) => {
                let total = keys.total.map_or(UNKNOWN.to_owned(), crate::render::thousands);
                let more = if keys.more { ", the first" } else { "" };
                format!(
                    "{} of {total} keys{more}, newest of {} (s: next stream)",
                    keys.rows.len(),
                    clean(&keys.stream)
                )
            }
            (Tab::Subscribers, _) => {
                let total = text(&model.status()["subscribers_total"]);
                format!("{} of {total} subscribers", sheet.rows.len())
            }
            _ => {
                let list = match self.tab {
                    Tab::Overview => "shards",
                    Tab::Pipeline => "stages",
                    Tab::Feeds => "feeds",
                    Tab::Subscribers | Tab::Keys => "",
                };
                let known = model.status()[list].is_array();
                let count = if known { sheet.rows.len().to_string() } else { UNKNOWN.to_owned() };
                format!("{count} {}", sheet.title)
            }
        }
    }

    fn overview(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let rows = model.list("shards").len() as u16;
        let [top, shards, warnings] = Layout::vertical([
            Constraint::Length(if model.status()["journal"].is_object() { 12 } else { 10 }),
            Constraint::Length((rows + 3).max(4).min(area.height / 2)),
            Constraint::Min(3),
        ])
        .areas(area);
        let [flow, numbers] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(44)]).areas(top);
        let [events, results] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(flow);
        for (area, name, points, color) in [
            (events, "events", &model.events, Color::Green),
            (results, "results", &model.results, Color::Blue),
        ] {
            let width = usize::from(area.width.saturating_sub(2));
            let shown: Vec<u64> = points.iter().skip(points.len().saturating_sub(width)).copied().collect();
            let now = model.status()[name]["rate"].as_f64().map_or(UNKNOWN.to_owned(), rate);
            let title = format!("{name} {now}, {} in all", text(&model.status()[name]["total"]));
            let line = Sparkline::default().block(block(&title)).data(&shown).style(self.tint(color));
            frame.render_widget(line, area);
        }
        frame.render_widget(Paragraph::new(numbers_of(model)).block(block("at a glance")), numbers);
        self.table(frame, &self.sheet(model), true, self.title(model), shards);
        let lines: Vec<Line<'_>> = model
            .warnings()
            .into_iter()
            .map(|warning| {
                let color = if warning.bad { Color::Red } else { Color::Yellow };
                let sign = if warning.bad { "✗ " } else { "! " };
                Line::from(format!("{sign}{}", clean(&warning.text))).style(self.tint(color))
            })
            .collect();
        let lines = match (lines.is_empty(), model.status().is_null()) {
            (true, true) => vec![Line::from(UNKNOWN)],
            (true, false) => vec![Line::from("none").dim()],
            _ => lines,
        };
        frame.render_widget(Paragraph::new(lines).block(block("warnings")), warnings);
    }

    fn pipeline(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let (shards, threads) = (sheet::shards(model), sheet::threads(model));
        let height = |sheet: &Sheet| if sheet.rows.is_empty() { 0 } else { sheet.rows.len() as u16 + 3 };
        let [stages, shards_area, threads_area] = Layout::vertical([
            Constraint::Min(5),
            Constraint::Length(height(&shards).min(area.height / 3)),
            Constraint::Length(height(&threads).min(area.height / 3)),
        ])
        .areas(area);
        self.table(frame, &self.sheet(model), true, self.title(model), stages);
        self.table(frame, &shards, false, "shards".to_owned(), shards_area);
        self.table(frame, &threads, false, "threads".to_owned(), threads_area);
    }

    /// A table with as many columns as have room: the first always, then from left to right; a number is never cut.
    fn table(&self, frame: &mut Frame<'_>, sheet: &Sheet, chooses: bool, title: String, area: Rect) {
        if area.height == 0 {
            return;
        }
        let mut widths = Vec::new();
        let mut used = 3;
        for (at, name) in sheet.columns.iter().enumerate() {
            let cells = sheet.rows.iter().filter_map(|(cells, _)| cells.get(at));
            let wide = |text: &str| text.chars().count() as u16;
            let most = cells.map(|cell| wide(cell)).max().unwrap_or(0);
            let width = most.max(wide(name.trim_start_matches('>'))).min(48);
            if at > 0 && used + width + 1 > area.width {
                break;
            }
            used += width + 1;
            widths.push(width);
        }
        let cell = |at: usize, text: &str| {
            let line = Line::from(text.to_owned());
            Cell::from(if sheet.columns[at].starts_with('>') { line.right_aligned() } else { line })
        };
        let header = (0..widths.len()).map(|at| cell(at, sheet.columns[at].trim_start_matches('>')));
        let rows = sheet.rows.iter().map(|(cells, _)| {
            Row::new(cells.iter().take(widths.len()).enumerate().map(|(at, text)| cell(at, text)))
        });
        let table = Table::new(rows, widths.iter().map(|width| Constraint::Length(*width)))
            .header(Row::new(header).dim())
            .row_highlight_style(Style::new().reversed())
            .block(block(&title));
        let mut state = TableState::new();
        if chooses && !sheet.rows.is_empty() {
            state.select(Some(self.selected[self.tab as usize].min(sheet.rows.len() - 1)));
        }
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn details(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let sheet = self.sheet(model);
        let at = self.selected[self.tab as usize].min(sheet.rows.len().saturating_sub(1));
        let Some((cells, value)) = sheet.rows.get(at) else { return };
        let title = cells.first().cloned().unwrap_or_default();
        popup(frame, &title, &sheet::details(value), area);
    }
}

/// Latency, lag and counts.
fn numbers_of(model: &Model) -> Vec<Line<'static>> {
    let status = model.status();
    let ns = |name: &str| number(&status["latency_ns"][name]).map_or(UNKNOWN.to_owned(), short_duration);
    let most = |list: &str, name: &str| {
        let values = model.list(list).iter().map(|entry| number(&entry[name]));
        values.max().flatten()
    };
    let lag = most("shards", "lag_ms")
        .map_or(UNKNOWN.to_owned(), |ms| short_duration(ms.saturating_mul(1_000_000)));
    let count = |value: Option<u64>| value.map_or(UNKNOWN.to_owned(), crate::render::thousands);
    let connected = status["feeds"]
        .as_array()
        .map(|feeds| feeds.iter().filter(|feed| feed["connected"] == true).count() as u64);
    let facts = [
        ("latency p50", ns("p50")),
        ("latency p99", ns("p99")),
        ("latency p99.9, max", format!("{}, {}", ns("p99_9"), ns("max"))),
        ("watermark behind", lag),
        ("deepest ring", count(most("shards", "ring_depth"))),
        ("feeds connected", count(connected)),
        ("subscribers", text(&status["subscribers_total"])),
        ("keys", text(&status["keys"])),
    ];
    let journal = &status["journal"];
    let held = journal.is_object().then(|| {
        let behind = number(&journal["taken"]).zip(number(&journal["durable"]));
        let behind = behind.map(|(taken, durable)| taken.saturating_sub(durable));
        let sync = number(&journal["sync_ns"]["last"]).map_or(UNKNOWN.to_owned(), short_duration);
        let age = number(&journal["snapshot"]["age_s"]);
        let age = age.map_or(UNKNOWN.to_owned(), |age| short_duration(age.saturating_mul(1_000_000_000)));
        let size = number(&journal["bytes"]).map_or(UNKNOWN.to_owned(), bytes);
        [
            ("journal, not synced", format!("{size}, {} ({sync})", count(behind))),
            ("last snapshot", format!("{age} ago")),
        ]
    });
    let facts = facts.into_iter().chain(held.into_iter().flatten());
    facts.map(|(name, value)| Line::from(format!("{name:<20}{value:>22}"))).collect()
}

fn block(title: &str) -> Block<'static> {
    Block::bordered().border_style(Style::new().dim()).title(Line::from(format!(" {title} ")).bold())
}

/// Names and values on top of everything else.
fn popup(frame: &mut Frame<'_>, title: &str, lines: &[(String, String)], area: Rect) {
    let wide = |text: &String| text.chars().count();
    let name = lines.iter().map(|(name, _)| wide(name)).max().unwrap_or(0);
    let value = lines.iter().map(|(_, value)| wide(value)).max().unwrap_or(0);
    let width = (name + value + 6).max(title.len() + 6).min(usize::from(area.width)) as u16;
    let height = (lines.len() + 2).min(usize::from(area.height)) as u16;
    let [row] =
        Layout::vertical([Constraint::Length(height)]).flex(ratatui::layout::Flex::Center).areas(area);
    let [place] =
        Layout::horizontal([Constraint::Length(width)]).flex(ratatui::layout::Flex::Center).areas(row);
    let lines = lines.iter().map(|(key, value)| {
        Line::from(vec![Span::from(format!(" {key:<name$}  ")).dim(), Span::from(value.clone())])
    });
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block(title)), place);
}

#[cfg(test)]
mod tests {
    use super::super::model::{Keys, News};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};

    /// As a node with a feed and two readers said it.
    fn recorded() -> Value {
        serde_json::from_str(include_str!("status.json")).unwrap()
    }

    fn model() -> Model {
        let mut model = Model::new("http://127.0.0.1:8080");
        let mut before = recorded();
        before["uptime_s"] = json!(61);
        before["feeds"][0]["accepted"] = json!(180_000);
        model.apply(News::Status(before), Duration::from_secs(1));
        model.apply(News::Status(recorded()), Duration::from_secs(2));
        model.apply(News::Streams(vec!["bars.1s".into(), "ind.1s".into()]), Duration::from_secs(2));
        let bar = json!({"time": "2026-01-05T14:30:01Z", "open": "61800", "high": "61800.5", "low": "61799.25", "close": "61800",
            "volume": "3.25", "vwap": null, "trades": 12, "rev": 0, "missing": 0, "state": "final"});
        let rows = vec![("BTCUSD".to_owned(), Some(bar)), ("ETHUSD".to_owned(), None)];
        let keys = Keys { stream: "bars.1s".into(), rows, total: Some(200), more: true, ..Keys::default() };
        model.apply(News::Keys(keys), Duration::from_secs(2));
        model
    }

    fn lines(view: &View, model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame, model, Duration::from_secs(9))).unwrap();
        let symbols: Vec<&str> =
            terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        symbols.chunks(usize::from(width)).map(|line| line.concat()).collect()
    }

    #[track_caller]
    fn has_line(lines: &[String], words: &[&str]) {
        let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} in\n{}", lines.join("\n"));
    }

    fn press(view: &mut View, model: &Model, keys: &[KeyCode]) -> Wish {
        keys.iter().map(|code| view.key(KeyEvent::from(*code), model)).last().unwrap()
    }

    #[test]
    fn every_tab_shows_what_the_node_said() {
        let (mut view, model) = (View::new(true), model());
        let shown = lines(&view, &model, 150, 40);
        has_line(&shown, &["Tidegate", "http://127.0.0.1:8080", "0.1.0", "up 1m 2s", "1 warning"]);
        has_line(&shown, &["events 20.1 k/s, 200,000 in all"]);
        has_line(&shown, &["results 1.2 k/s, 98,080 in all"]);
        // Not known, and so not 0.
        has_line(&shown, &["latency p50", " –│"]);
        has_line(&shown, &["watermark behind", "84 ms"]);
        has_line(&shown, &["subscribers", " 2"]);
        has_line(&shown, &["0", "running", "199,999", "98,080", "3", "0 %", "84 ms", "12 %"]);
        has_line(&shown, &["! feed day: 700 events lost"]);
        press(&mut view, &model, &[KeyCode::Char('2')]);
        let shown = lines(&view, &model, 150, 40);
        has_line(&shown, &["bars.1s", "feed", "49,040"]);
        has_line(&shown, &["ind.1s", "bars.1s", "49,040", "–"]);
        press(&mut view, &model, &[KeyCode::Tab]);
        let shown = lines(&view, &model, 150, 40);
        has_line(&shown, &["day", "connected", "–", "20.0 k/s", "200,000", "700"]);
        press(&mut view, &model, &[KeyCode::Right]);
        let shown = lines(&view, &model, 150, 40);
        has_line(&shown, &["2 of 2 subscribers"]);
        has_line(&shown, &["7", "websocket", "127.0.0.1:51000", "bars.1s, ind.1s", "conflate", "120", "33"]);
        has_line(&shown, &["8", "quic", "–"]);
        press(&mut view, &model, &[KeyCode::Char('5')]);
        let shown = lines(&view, &model, 150, 40);
        has_line(&shown, &["2 of 200 keys, the first, newest of bars.1s"]);
        has_line(&shown, &["BTCUSD", "2026-01-05T14:30:01Z", "61800.5", "3.25", "–", "12", "final"]);
        has_line(&shown, &["ETHUSD", "–"]);
    }

    #[test]
    fn keys_move_search_and_open() {
        let (mut view, model) = (View::new(false), model());
        press(&mut view, &model, &[KeyCode::Char('4'), KeyCode::Down, KeyCode::Down, KeyCode::Enter]);
        let shown = lines(&view, &model, 120, 30);
        has_line(&shown, &["peer", "–"]);
        has_line(&shown, &["delivered", "4,711"]);
        press(&mut view, &model, &[KeyCode::Esc, KeyCode::Char('/'), KeyCode::Char('W'), KeyCode::Char('e')]);
        let shown = lines(&view, &model, 120, 30);
        has_line(&shown, &["/We", "Enter keeps it"]);
        has_line(&shown, &["websocket"]);
        assert!(!shown.iter().any(|line| line.contains("quic")), "{}", shown.join("\n"));
        // Letters are searched for, not obeyed, until it is kept.
        assert_eq!(
            press(&mut view, &model, &[KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Enter]),
            Wish::Nothing
        );
        has_line(&lines(&view, &model, 120, 30), &["only what has `We`"]);
        press(&mut view, &model, &[KeyCode::Esc]);
        has_line(&lines(&view, &model, 120, 30), &["quic"]);
        press(&mut view, &model, &[KeyCode::Char('?')]);
        has_line(&lines(&view, &model, 120, 30), &["Ctrl-C", "the end"]);
        press(&mut view, &model, &[KeyCode::Esc, KeyCode::Char('5'), KeyCode::Char('S')]);
        assert_eq!((view.stream, view.help), (1, false));
        assert_eq!(press(&mut view, &model, &[KeyCode::Char('s'), KeyCode::End, KeyCode::Up]), Wish::Nothing);
        assert_eq!((view.stream, view.selected[4]), (0, 0));
        assert_eq!(press(&mut view, &model, &[KeyCode::Char('q')]), Wish::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.key(control_c, &model), Wish::Quit);
    }

    #[test]
    fn a_node_that_says_little_or_nothing_is_shown_as_unknown() {
        let mut view = View::new(true);
        let mut model = Model::new("http://box:80");
        has_line(&lines(&view, &model, 120, 30), &["connecting"]);
        model.apply(News::Status(json!({})), Duration::from_secs(1));
        for tab in ['1', '2', '3', '4', '5'] {
            press(&mut view, &model, &[KeyCode::Char(tab), KeyCode::Down, KeyCode::Enter]);
            let shown = lines(&view, &model, 120, 30);
            has_line(&shown, &["http://box:80", "–  up –"]);
        }
        press(&mut view, &model, &[KeyCode::Char('1')]);
        let shown = lines(&view, &model, 120, 30);
        for name in ["latency p99 ", "watermark behind", "deepest ring", "feeds connected", "keys"] {
            has_line(&shown, &[name, " –│"]);
        }
        // What it said last stays in sight when it falls silent.
        let mut model = super::tests::model();
        model.apply(News::Silent("no answer from 127.0.0.1:8080: refused".into()), Duration::from_secs(4));
        let shown = lines(&view, &model, 120, 40);
        has_line(&shown, &["no answer for 5 s, trying again"]);
        has_line(&shown, &["✗ no answer from 127.0.0.1:8080: refused"]);
        has_line(&shown, &["200,000 in all"]);
    }

    #[test]
    fn however_small_it_is_it_is_drawn() {
        let (mut view, model) = (View::new(true), model());
        for tab in ['1', '2', '3', '4', '5'] {
            press(&mut view, &model, &[KeyCode::Char(tab), KeyCode::Enter, KeyCode::Char('?')]);
            for (width, height) in [(1, 1), (20, 5), (80, 8), (60, 24), (300, 100)] {
                assert_eq!(lines(&view, &model, width, height).len(), usize::from(height));
            }
        }
        // A column has no room: the number is left out, not cut.
        press(&mut view, &model, &[KeyCode::Char('?'), KeyCode::Char('3')]);
        let narrow = lines(&view, &model, 36, 24);
        assert!(!narrow.iter().any(|line| line.contains("accepted")), "{}", narrow.join("\n"));
    }
}
