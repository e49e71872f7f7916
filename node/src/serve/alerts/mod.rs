//! Alerts of a server: what detectors, rules and streams find while it runs.
//!
//! ```text
//! exporters --UDP--> tg-exports --queue, drops counted--> tg-detect --.
//! packets of an interface --> the kernel's queue, drops counted -> tg-packets -|
//! captures, flow logs ----------------------------------> tg-traffic ---> tg-alerts: episodes, store, subscribers --> tg-sink, one each
//! anomaly.*, regime.* --a subscription like any other---> tg-watch ---|       ^
//! streams that rules read --ring, in order of time------> tg-rules ---'       |
//!                                                        gateway: acknowledged, false positive, ...
//! ```
//! Threads of their own throughout: nothing here is waited for by what computes results.

mod board;
mod desk;
pub(crate) mod evidence;
mod exports;
mod files;
mod judging;
mod packets;
mod rows;
mod sending;
mod streams;
mod talkers;

pub(crate) use board::Board;

use crate::alert::folder::Holder;
use crate::capture::{Capture, Wanted};
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::render::Ui;
use crate::results::{RowJudge, Table};
use crate::rules;
use crate::settings::Settings;
use crate::sink::SinkSpec;
use crate::traffic::Reading;
use desk::{Keeper, ToDesk};
use evidence::{About, Evidence, Kind, SeriesFiles};
use exports::Listening;
use files::Files;
use judging::Judging;
use sending::Sending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use streams::{Streams, Thresholds};
use tidegate_alert::{DeskOptions, Group, Groups};
use tidegate_config::{Bytes, Config};
use tidegate_live::HubHandle;
use tidegate_replay::StreamInfo;
use tokio::runtime::Handle;

/// What to do about rules over derived streams that are not served.
const NOT_DERIVED: &str =
    "it is served where the configuration has a [[surface]], [[spectrum]] or [[risk]] of that name";

/// What finds something, and who keeps it.
pub(crate) struct Watch {
    board: Arc<Board>,
    to_desk: SyncSender<ToDesk>,
    keeper: JoinHandle<()>,
    finders: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    thresholds: Thresholds,
    addresses: Vec<SocketAddr>,
    wanted: Option<Wanted>,
    /// Rules over results, until there are some to read.
    rows: Option<(Arc<Table>, RowJudge)>,
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::internal(format!("no thread for alerts: {error}"))
}

impl Watch {
    /// Starts what the settings ask for; `None` where nothing looks for anything. What can be refused is refused before anything
    /// runs.
    pub(crate) fn start(
        settings: &Settings,
        folder: &Path,
        streams: &[StreamInfo],
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Result<Option<Self>, Failure> {
        let (traffic, alerts) = (&settings.config.traffic, &settings.config.alerts);
        if traffic.promiscuous && traffic.interface.is_none() {
            return Err(Failure::usage("--promiscuous goes with --interface (`traffic.interface`)"));
        }
        let no_traffic =
            traffic.exports.is_empty() && traffic.files.is_empty() && traffic.interface.is_none();
        let any_rule = alerts.sigma.len() + alerts.patterns.len() > 0;
        if no_traffic && !any_rule && !streams::any(streams) {
            if !alerts.sinks.is_empty() {
                return Err(Failure::usage(
                    "sinks have nothing to go with: add --flows, --interface, --traffic, --anomaly or --regime, or rules over results",
                ));
            }
            return Ok(None);
        }
        let groups: Vec<Group> = alerts
            .groups
            .iter()
            .map(|group| group.parse().map_err(Failure::usage))
            .collect::<Result<_, Failure>>()?;
        let groups = Groups::new(groups).map_err(Failure::usage)?;
        let options = DeskOptions { budget: alerts.budget, groups, ..DeskOptions::default() };
        let sigma: Vec<_> = alerts.sigma.iter().map(|path| settings.beside(path)).collect();
        let thresholds = streams::thresholds(&settings.config);
        let table =
            Table::of(streams, &thresholds).with_derived(&settings.config.derived()).advising(NOT_DERIVED);
        let table = Arc::new(table);
        let rules = rules::load(&sigma, &alerts.patterns, &table.streams, ui)?;
        if no_traffic && rules.set.of_traffic() {
            return Err(Failure::usage(
                "a rule or pattern reads records of traffic, and there is none: add --flows, --interface or --traffic; rules over results name their \
                 streams, such as bars.1m",
            ));
        }
        let rows = RowJudge::new(Arc::clone(&table), &rules, String::new(), false);
        let reads = rows.wanted().count() > 0;
        let rows = reads.then(|| rows.keeping(&rules));
        if no_traffic && rows.is_none() && any_rule {
            return Err(Failure::usage(
                "a rule or pattern reads alerts, and nothing tells any: add --flows, --interface, --traffic, --anomaly or --regime",
            ));
        }
        let sinks: Vec<SinkSpec> = alerts
            .sinks
            .iter()
            .map(|sink| sink.parse::<SinkSpec>().map_err(Failure::usage))
            .collect::<Result<_, Failure>>()?;
        let listening = Listening::open(&traffic.exports)?;
        let addresses = listening.addresses.clone();
        let wanted = traffic.interface.clone().map(|interface| Wanted {
            interface,
            snapshot_length: traffic.snapshot_length,
            promiscuous: traffic.promiscuous,
        });
        let capture = wanted.as_ref().map(Capture::open).transpose()?;
        let both = !addresses.is_empty() && capture.is_some();
        let store = crate::alert::open(folder, ui)?;

        let about = About { flows_max: traffic.flows_max, edges: traffic.edges, rules: rules.clone() };
        let recorded = |kind: Kind| {
            let bytes = alerts.evidence.on().map(|Bytes(all)| if both { all / 2 } else { all });
            let open =
                |bytes| Evidence::open(kind, folder.join("evidence"), bytes, about.clone(), &store.state);
            bytes.map(open).transpose()
        };
        let of_exports = if addresses.is_empty() { None } else { recorded(Kind::exports())? };
        let of_packets = match &capture {
            Some(capture) => recorded(Kind::packets(capture.link()))?,
            None => None,
        };
        let evidence = of_exports.iter().chain(&of_packets).cloned().collect();
        let series = SeriesFiles::open(folder.join("evidence"), &store.state)?;

        let (to_desk, inbox) = sync_channel(desk::QUEUE_MAX);
        let board = Arc::new(Board::new(to_desk.clone()));
        let sinks: Vec<Sending> =
            sinks.into_iter().map(|sink| Sending::start(sink, &board)).collect::<Result<_, _>>()?;
        let keeper = Keeper::new(store, options, Arc::clone(&board), sinks, evidence, series);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let keeper = thread("tg-alerts").spawn(move || keeper.run(&inbox)).map_err(no_thread)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut finders = Vec::new();
        if !addresses.is_empty() {
            let threads = exports::start(
                listening,
                (traffic.flows_max, traffic.sampling, traffic.edges),
                &rules,
                of_exports,
                (&board, &to_desk),
                &stop,
            );
            finders.extend(threads.map_err(no_thread)?);
        }
        if let Some(capture) = capture {
            let shared = (&board, &to_desk);
            let judging =
                Judging::new("packets", traffic.flows_max, &rules, traffic.edges, of_packets, shared);
            finders.push(packets::start(capture, judging, Arc::clone(&stop)).map_err(no_thread)?);
        }
        if !traffic.files.is_empty() {
            let files = Files {
                paths: traffic.files.iter().map(|path| settings.beside(path)).collect(),
                flows_max: traffic.flows_max,
                reading: Reading { sampling: traffic.sampling, edges: traffic.edges, ..Reading::default() },
                rules,
                board: Arc::clone(&board),
                to_desk: to_desk.clone(),
                interrupt: interrupt.clone(),
            };
            finders.push(thread("tg-traffic").spawn(move || files.run()).map_err(no_thread)?);
        }
        let thresholds = Arc::new(RwLock::new(thresholds));
        let rows = rows.map(|rows| (table, rows));
        Ok(Some(Self { board, to_desk, keeper, finders, stop, thresholds, addresses, wanted, rows }))
    }

    /// Where exports are taken.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The packets that are looked at.
    pub(crate) fn packets(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }

    /// Looks at the streams from now on, which is best before feeds can come.
    pub(crate) fn follow(&mut self, hub: HubHandle, network: &Handle) -> Result<(), Failure> {
        if let Some((table, judge)) = self.rows.take() {
            let (board, to_desk) = (Arc::clone(&self.board), self.to_desk.clone());
            let rows =
                rows::Rows { hub: hub.clone(), network: network.clone(), table, judge, board, to_desk };
            let thread = std::thread::Builder::new().name("tg-rules".to_owned());
            if let Some(begun) = rows.begin() {
                self.finders.push(thread.spawn(move || begun.run()).map_err(no_thread)?);
            }
        }
        let streams = Streams {
            hub,
            thresholds: Arc::clone(&self.thresholds),
            board: Arc::clone(&self.board),
            to_desk: self.to_desk.clone(),
            stop: Arc::clone(&self.stop),
        };
        let begun = network.block_on(streams.begin());
        let network = network.clone();
        let thread = std::thread::Builder::new().name("tg-watch".to_owned());
        let reading = thread.spawn(move || network.block_on(begun.run()));
        self.finders.push(reading.map_err(no_thread)?);
        Ok(())
    }

    /// A reload may have changed what streams hold for an anomaly.
    pub(crate) fn reloaded(&self, config: &Config) {
        *self.thresholds.write().unwrap_or_else(PoisonError::into_inner) = streams::thresholds(config);
    }

    /// What the gateway answers from.
    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Tells other processes where this node takes what they have to say to alerts.
    pub(crate) fn serving(&self, http: Option<&String>) {
        let holder = Holder { pid: std::process::id(), http: http.cloned() };
        // The keeper has begun and takes everything until it is told to stop.
        let _ = self.to_desk.send(ToDesk::Serving(holder));
    }

    /// What people are to be told since the last call.
    pub(crate) fn tick(&self, ui: &Ui) {
        self.board.notes().iter().for_each(|note| ui.note(note));
    }

    /// Ends it, after the engine: what is found is kept.
    pub(crate) fn finish(self, ui: &Ui) {
        self.stop.store(true, Relaxed);
        for finder in self.finders {
            if finder.join().is_err() {
                ui.note("warning: a thread of the detectors ended by a bug");
            }
        }
        let _ = self.to_desk.send(ToDesk::Stop);
        if self.keeper.join().is_err() {
            ui.note("warning: the keeper of alerts ended by a bug");
        }
        self.board.notes().iter().for_each(|note| ui.note(note));
    }
}
