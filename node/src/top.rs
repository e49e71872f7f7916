//! `tidegate top`: what a running node says of itself.

pub(crate) mod client;
mod model;
mod sheet;
mod view;

use crate::cli::TopArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::render::{Table, Tone, Ui, rate, short_duration};
use client::{AskError, Node, escape};
use crossterm::event::{self, Event, KeyEventKind};
use model::{KEYS_MAX, Keys, Model, News, UNKNOWN, number, text};
use sheet::Sheet;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use view::{Tab, View, Wish};

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(5);
/// How often the view is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// Names asked for one by one, when they were searched for.
const SEARCHED_MAX: usize = 40;

/// Whether a Tidegate answers at an address of this machine.
pub(crate) fn answers(address: SocketAddr, wait: Duration) -> bool {
    let Ok(mut node) = Node::new(&format!("http://{address}"), wait) else { return false };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    runtime.block_on(node.ask("/v1/health")).is_ok_and(|answer| answer["status"] == "ok")
}

pub(crate) fn run(args: &TopArgs, ui: &Ui) -> Outcome {
    let node = Node::new(&args.url, WAIT).map_err(|error| Failure::new(Exit::Usage, error))?;
    let interrupt = Interrupt::listen()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tg-network")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let outcome = if args.once {
        once(args, node, &runtime, ui)
    } else if args.json || args.plain || !std::io::stdout().is_terminal() {
        lines(args, node, &runtime, &interrupt, ui)
    } else {
        live(args, node, &runtime, &interrupt)
    };
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// One answer, and the end.
fn once(args: &TopArgs, mut node: Node, runtime: &tokio::runtime::Runtime, ui: &Ui) -> Outcome {
    let status =
        runtime.block_on(node.ask("/v1/status")).map_err(|error| Failure::new(Exit::Input, error))?;
    if args.json {
        ui.print_json(&status);
        return Ok(Exit::Ok);
    }
    let mut model = Model::new(&args.url);
    model.apply(News::Status(status), Duration::ZERO);
    let mut out = format!("{}\n", line(&model));
    for sheet in [
        sheet::shards(&model),
        sheet::stages(&model),
        sheet::threads(&model),
        sheet::feeds(&model),
        sheet::subscribers(&model),
    ] {
        if !sheet.rows.is_empty() {
            out += &format!("\n{}", plain(sheet, ui));
        }
    }
    for warning in model.warnings() {
        let (tone, sign) = if warning.bad { (Tone::Bad, "bad:") } else { (Tone::Warn, "note:") };
        out += &format!("\n{} {}", ui.paint(tone, sign), crate::render::clean(&warning.text));
    }
    ui.print(&format!("{}\n", out.trim_end()));
    Ok(Exit::Ok)
}

/// A table as text, without columns in which nothing is known.
fn plain(sheet: Sheet, ui: &Ui) -> String {
    let known = |at: usize| {
        at == 0 || sheet.rows.iter().any(|(cells, _)| cells.get(at).is_some_and(|cell| cell != UNKNOWN))
    };
    let columns: Vec<usize> = (0..sheet.columns.len()).filter(|&at| known(at)).collect();
    let header: Vec<&str> = columns.iter().map(|&at| sheet.columns[at].as_str()).collect();
    let mut table = Table::new(&header);
    for (cells, _) in &sheet.rows {
        table.cells(columns.iter().map(|&at| (Tone::Plain, cells[at].clone())).collect());
    }
    table.render(ui, 0)
}

/// A line for each answer, until the user says stop.
fn lines(
    args: &TopArgs,
    mut node: Node,
    runtime: &tokio::runtime::Runtime,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome {
    let start = Instant::now();
    let every = Duration::from_nanos(args.every);
    let mut model = Model::new(&args.url);
    let mut next = start;
    while !interrupt.raised() {
        if Instant::now() < next {
            std::thread::park_timeout(FRAME.min(next.saturating_duration_since(Instant::now())));
            continue;
        }
        next = Instant::now() + every;
        match runtime.block_on(node.ask("/v1/status")) {
            Ok(status) if args.json => ui.print_json(&status),
            Ok(status) => {
                model.apply(News::Status(status), start.elapsed());
                ui.print(&format!("{}\n", line(&model)));
            }
            Err(error) if args.json => ui.note(&error.to_string()),
            Err(error) => ui.print(&format!("{}\n", crate::render::clean(&error.to_string()))),
        }
    }
    Ok(Exit::Ok)
}

/// A node in a line.
fn line(model: &Model) -> String {
    let status = model.status();
    let per_second = |name: &str| status[name]["rate"].as_f64().map_or(UNKNOWN.to_owned(), rate);
    let ns = |name: &str| number(&status["latency_ns"][name]).map_or(UNKNOWN.to_owned(), short_duration);
    let most = |name: &str| model.list("shards").iter().map(|shard| number(&shard[name])).max().flatten();
    let lag = most("lag_ms").map_or(UNKNOWN.to_owned(), |ms| short_duration(ms.saturating_mul(1_000_000)));
    let ring = most("ring_depth").map_or(UNKNOWN.to_owned(), crate::render::thousands);
    let warnings = model.warnings();
    let first = warnings
        .first()
        .map_or(String::new(), |warning| format!(": {}", crate::render::clean(&warning.text)));
    format!(
        "up {:>6} s  events {} ({})  results {} ({})  latency p50 {} p99 {}  watermark {lag} behind  ring {ring}  \
         feeds {}  subscribers {}  keys {}  warnings {}{first}",
        text(&status["uptime_s"]),
        text(&status["events"]["total"]),
        per_second("events"),
        text(&status["results"]["total"]),
        per_second("results"),
        ns("p50"),
        ns("p99"),
        status["feeds"].as_array().map_or(UNKNOWN.to_owned(), |feeds| feeds.len().to_string()),
        text(&status["subscribers_total"]),
        text(&status["keys"]),
        warnings.len(),
    )
}

/// What the view wants to know beside the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Want {
    /// Keys of this stream with these letters in their names.
    keys: Option<(String, String)>,
}

/// The live view.
fn live(args: &TopArgs, node: Node, runtime: &tokio::runtime::Runtime, interrupt: &Interrupt) -> Outcome {
    let terminal = |error: std::io::Error| {
        let error = anyhow::anyhow!("the terminal cannot show it ({error}); try --plain");
        Failure::new(Exit::Output, error)
    };
    let (wants, wanted) = watch::channel(Want::default());
    let (sender, news) = mpsc::channel();
    let asking = runtime.spawn(ask_on(node, Duration::from_nanos(args.every), wanted, sender));
    // NO_COLOR has the view in bold and faint only.
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (start, mut model, mut view) = (Instant::now(), Model::new(&args.url), View::new(color));
    let mut screen = ratatui::try_init().map_err(terminal)?;
    let mut look = || -> std::io::Result<()> {
        while !interrupt.raised() {
            for news in news.try_iter() {
                model.apply(news, start.elapsed());
            }
            let stream = model.streams.get(view.stream).or(model.streams.first());
            let keys = stream
                .filter(|_| view.tab == Tab::Keys)
                .map(|stream| (stream.clone(), view.search().to_owned()));
            wants.send_if_modified(|want| {
                let fresh = Want { keys };
                let changed = *want != fresh;
                *want = fresh;
                changed
            });
            screen.draw(|frame| view.draw(frame, &model, start.elapsed()))?;
            if event::poll(FRAME)?
                && let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && view.key(key, &model) == Wish::Quit
            {
                break;
            }
        }
        Ok(())
    };
    let looked = look();
    ratatui::restore();
    asking.abort();
    looked.map_err(terminal).map(|()| Exit::Ok)
}

/// Asks on and on, at once when something else is wanted. A node that is away is asked again and again.
async fn ask_on(
    mut node: Node,
    every: Duration,
    mut wanted: watch::Receiver<Want>,
    news: mpsc::Sender<News>,
) {
    let mut streams_due = true;
    loop {
        let want = wanted.borrow_and_update().clone();
        let answers = ask_all(&mut node, streams_due, &want).await;
        // A node that was away may have been started anew, with other streams.
        streams_due = answers.is_err();
        let sent = match answers {
            Ok(all) => all.into_iter().try_for_each(|one| news.send(one)),
            Err(error) => news.send(News::Silent(error.to_string())),
        };
        if sent.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

async fn ask_all(node: &mut Node, streams: bool, want: &Want) -> Result<Vec<News>, AskError> {
    let mut all = vec![News::Status(node.ask("/v1/status").await?)];
    if streams {
        let answer = node.ask("/v1/streams").await?;
        let names = answer["streams"].as_array().into_iter().flatten();
        all.push(News::Streams(
            names.filter_map(|stream| Some(stream["name"].as_str()?.to_owned())).collect(),
        ));
    }
    if let Some((stream, search)) = &want.keys {
        all.push(News::Keys(ask_keys(node, stream, search).await?));
    }
    Ok(all)
}

async fn ask_keys(node: &mut Node, stream: &str, search: &str) -> Result<Keys, AskError> {
    let mut keys = Keys { stream: stream.to_owned(), search: search.to_owned(), ..Keys::default() };
    let limit = if search.is_empty() { 1 } else { SEARCHED_MAX };
    let names = node.ask(&format!("/v1/keys?limit={limit}&search={}", escape(search))).await?;
    keys.total = number(&names["total"]);
    if search.is_empty() {
        let page = node.ask(&format!("/v1/latest?stream={}&limit={KEYS_MAX}", escape(stream))).await?;
        keys.more = !page["next"].is_null();
        let records = page["records"].as_array().into_iter().flatten();
        keys.rows = records.map(|record| (text(&record["key"]), Some(record.clone()))).collect();
        return Ok(keys);
    }
    keys.more = !names["next"].is_null();
    for key in names["keys"].as_array().into_iter().flatten() {
        let Some(name) = key["name"].as_str() else { continue };
        let path = format!("/v1/latest?stream={}&key={}", escape(stream), escape(name));
        let record = match node.ask(&path).await {
            Ok(answer) => Some(answer["record"].clone()),
            // It has none in this stream.
            Err(AskError::Refused { status: 404, .. }) => None,
            Err(error) => return Err(error),
        };
        keys.rows.push((name.to_owned(), record));
    }
    Ok(keys)
}
