//! Anomalies and regime changes that streams tell become findings for the same desk.
//!
//! The reader is a subscriber like any other: what it cannot keep up with is dropped by the hub, and counted. Beside the rows of anomalies
//! and of regimes it runs their detectors, so that what a finding rests on can be kept ([`crate::series`]).

use super::board::{Board, Row, Rows};
use super::desk::ToDesk;
use super::evidence::Document;
use crate::results::{self, Judged, States};
use crate::series::{self, Series, Shadow};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tidegate_actors::regime::RegimeSpec;
use tidegate_alert::Finding;
use tidegate_config::{Config, Stream};
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{BarState, Output};
use tidegate_live::{Delivery, HubHandle, Origin};
use tidegate_proto::CloseCode;
use tidegate_proto::hub::StreamMeta;
use tidegate_proto::subscriber::Catalogue;
use tidegate_proto::subscription::{LagPolicy, Subscription};
use tidegate_proto::wire::HEAD_BYTES;
use tidegate_proto::{Frame, FrameHead};
use tidegate_replay::StreamInfo;

/// How often it is looked for streams that a reload has brought.
const LOOK: Duration = Duration::from_secs(1);
/// Rows of a key that an alert is about, and how many keys are asked for in a second.
const ROWS_MAX: usize = 60;
const ROWS_A_SECOND: u32 = 20;
/// Keys whose rows are remembered here: with twelve columns under 16 MiB, and under 32 MiB for what anomalies and regimes rest on. Rows of others are asked
/// for when something was found, and what is found in them has no proof.
const KEYS_MAX: usize = 2_048;
/// Names and states remembered each; beyond it all are forgotten and learnt anew.
const NAMES_MAX: usize = 1 << 20;
/// Whether a kind of alert comes from a stream: its method is then the stream, its entity the key.
pub(super) fn is_of_stream(kind: &str) -> bool {
    [results::ANOMALY, results::REGIME].contains(&kind)
}

/// A stream that is looked at.
#[derive(Debug, Clone, PartialEq)]
struct Watched {
    name: String,
    columns: Vec<String>,
    judged: Judged,
}

impl Watched {
    /// The models of a stream of regimes, as its columns show them.
    fn regime(&self) -> Option<RegimeSpec> {
        RegimeSpec::new(self.columns.iter().filter(|column| column.starts_with("p_")).count())
    }
}

/// How streams of anomalies judge, by name. A reload changes it with the streams.
pub(super) type Thresholds = Arc<RwLock<HashMap<String, Judged>>>;

/// Those of a configuration.
pub(super) fn thresholds(config: &Config) -> HashMap<String, Judged> {
    let of = |stream: &Stream| {
        let bars = stream.bars.as_ref()?;
        let judged = Judged::Anomaly { threshold: stream.anomaly?.threshold() };
        Some((format!("anomaly.{}", bars.name()), judged))
    };
    config.streams().iter().filter_map(of).collect()
}

/// Whether any of these streams finds something.
pub(super) fn any(streams: &[StreamInfo]) -> bool {
    streams.iter().any(|stream| finds(&stream.name))
}

fn finds(stream: &str) -> bool {
    results::judged(stream, &HashMap::new()).is_some()
}

/// What is remembered between rows.
#[derive(Default)]
struct Reader {
    names: HashMap<u64, Box<str>>,
    /// The last state of each key.
    states: States,
    /// The last rows of the first keys, which show what a finding is about.
    rows: HashMap<(u16, u64), VecDeque<Row>>,
    /// What their anomalies rest on.
    shadows: HashMap<(u16, u64), Shadow>,
}

impl Reader {
    /// A stream has ended; it comes again under another number, if it does.
    fn forget(&mut self, number: u16) {
        self.states.forget(number);
        self.rows.retain(|key, _| key.0 != number);
        self.shadows.retain(|key, _| key.0 != number);
    }
}

/// What a row told.
struct Told {
    finding: Finding,
    rows: Vec<Row>,
    series: Option<Series>,
}

/// A stream that is read.
struct Following {
    number: u16,
    stream: Watched,
    deliveries: tidegate_live::Reader,
}

/// What reads the streams.
pub(super) struct Streams {
    pub(super) hub: HubHandle,
    pub(super) thresholds: Thresholds,
    pub(super) board: Arc<Board>,
    pub(super) to_desk: SyncSender<ToDesk>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Streams {
    /// Subscribes to those there are: before any feed can come, so that nothing is missed.
    pub(super) async fn begin(self) -> Begun {
        let mut begun = Begun { streams: self, following: Vec::new(), known: None };
        begun.look().await;
        begun
    }

    async fn follow(&self, number: u16, stream: &StreamMeta) -> Option<Following> {
        let name = stream.name.as_str();
        let judged = results::judged(name, &self.thresholds.read().unwrap_or_else(PoisonError::into_inner))?;
        let subscription = Subscription { policy: LagPolicy::DropOldest, ..Subscription::to([name]) };
        let origin = Origin { kind: "alerts", peer: "this node".into() };
        match self.hub.subscribe_from(subscription, Some(origin)).await {
            Ok(deliveries) => {
                let stream = Watched { name: name.to_owned(), columns: stream.columns.clone(), judged };
                Some(Following { number, stream, deliveries })
            }
            Err(error) => {
                self.board.note(format!("warning: {name} is not looked at for alerts: {error}"));
                None
            }
        }
    }

    /// The last rows of a key that none were remembered of: for a few findings a second, since whoever answers has results to deliver
    /// first. Where much has come since they are later ones.
    async fn rows(&self, number: u16, finding: &Finding, asked: &mut (Instant, u32)) -> Vec<Row> {
        if asked.0.elapsed() >= LOOK {
            *asked = (Instant::now(), 0);
        }
        asked.1 += 1;
        if asked.1 > ROWS_A_SECOND {
            return Vec::new();
        }
        let key = finding.entity.clone();
        let found = self.hub.ask(move |hub, _| hub.lookback(number, &key, ROWS_MAX).map(Row::of).collect());
        found.await.unwrap_or_default()
    }

    fn take(&self, stream: &Watched, bytes: &[u8], reader: &mut Reader) -> Vec<Told> {
        let Ok(Some(head)) = FrameHead::read(bytes, 0) else { return Vec::new() };
        let Some(body) = bytes.get(HEAD_BYTES..head.frame_bytes()) else { return Vec::new() };
        match Frame::read(0, &head, body) {
            Ok(Frame::Names(names)) => {
                if reader.names.len() > NAMES_MAX {
                    reader.names.clear();
                }
                reader.names.extend(names.iter().map(|(hash, name)| (hash, name.into())));
            }
            Ok(Frame::Records(records)) => {
                return records.iter().filter_map(|output| reader.look(stream, &output)).collect();
            }
            Ok(Frame::Loss(loss)) => {
                self.board.counts.records_lost.fetch_add(loss.count, Relaxed);
            }
            _ => {}
        }
        Vec::new()
    }
}

/// Streams that are read.
pub(super) struct Begun {
    streams: Streams,
    following: Vec<Following>,
    /// The catalogue that was looked through last.
    known: Option<Arc<Catalogue>>,
}

impl Begun {
    /// Looks for streams that a reload has brought.
    async fn look(&mut self) {
        let catalogue = self.streams.hub.catalogue();
        if self.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &catalogue)) {
            return;
        }
        for (number, stream) in catalogue.open() {
            if finds(&stream.name) && !self.following.iter().any(|one| one.number == number) {
                self.following.extend(self.streams.follow(number, stream).await);
            }
        }
        self.known = Some(catalogue);
    }

    /// Reads them until the server ends, those that a reload brings included.
    pub(super) async fn run(mut self) {
        let mut reader = Reader::default();
        let mut asked = (Instant::now(), 0);
        loop {
            self.look().await;
            let Self { streams, following, known } = &mut self;
            let delivery = poll_fn(|context| poll(following, context));
            let Ok((at, delivery)) = tokio::time::timeout(LOOK, delivery).await else {
                // Whoever reads something is told of the end by that.
                if following.is_empty() && streams.stop.load(Relaxed) {
                    return;
                }
                continue;
            };
            match delivery {
                Some(Delivery::Frames(frames)) => {
                    let Following { number, stream, .. } = &following[at];
                    for frame in &frames {
                        for told in streams.take(stream, frame, &mut reader) {
                            let Told { finding, mut rows, series } = told;
                            if rows.is_empty() {
                                rows = streams.rows(*number, &finding, &mut asked).await;
                            }
                            // This thread may wait; meanwhile nothing is taken off the hub.
                            let _ = streams.to_desk.send(ToDesk::InStream(
                                Box::new(finding),
                                Rows::Series(rows),
                                series.map(|series| Box::new(Document::from(&series))),
                            ));
                        }
                    }
                }
                Some(Delivery::Closed(close)) if close.code == CloseCode::SHUTTING_DOWN => return,
                // It was changed or removed; if it came back it is in the catalogue by then.
                Some(Delivery::Closed(_)) => {
                    reader.forget(following.swap_remove(at).number);
                    *known = None;
                }
                None => return,
            }
        }
    }
}

/// The next thing that one of the streams has.
fn poll(following: &mut [Following], context: &mut Context<'_>) -> Poll<(usize, Option<Delivery>)> {
    for (at, one) in following.iter_mut().enumerate() {
        // Nothing is lost when the future is dropped: a delivery is taken only when it is ready.
        if let Poll::Ready(delivery) = pin!(one.deliveries.next()).poll(context) {
            return Poll::Ready((at, delivery));
        }
    }
    Poll::Pending
}

impl Reader {
    /// Judges a row and remembers it; what was found, the rows of its key up to it, and what it rests on.
    fn look(&mut self, stream: &Watched, output: &Output) -> Option<Told> {
        let key = (output.stream, output.name);
        if self.rows.len() < KEYS_MAX || self.rows.contains_key(&key) {
            let rows = self.rows.entry(key).or_default();
            if rows.len() >= ROWS_MAX {
                rows.pop_front();
            }
            rows.push_back(Row::of(output));
        }
        if output.state != BarState::Forming as u8 {
            self.follow(stream, output);
        }
        let mut finding = self.judge(stream, output)?;
        let rows = self.rows.get(&key).map(|rows| rows.iter().cloned().collect());
        let series = match self.proof(stream, key, &finding) {
            Ok(series) => Some(series),
            Err(why) => {
                finding.unproven = Some(why.to_owned());
                None
            }
        };
        Some(Told { finding, rows: rows.unwrap_or_default(), series })
    }

    /// Lets the detector beside the engine take the row.
    fn follow(&mut self, stream: &Watched, output: &Output) {
        let key = (output.stream, output.name);
        if !self.shadows.contains_key(&key) {
            let shadow = match stream.judged {
                Judged::Anomaly { threshold } => Shadow::anomaly(threshold),
                Judged::Regime => stream.regime().map(Shadow::regime),
            };
            let Some(shadow) = shadow.filter(|_| self.shadows.len() < KEYS_MAX) else { return };
            self.shadows.insert(key, shadow);
        }
        let Some(shadow) = self.shadows.get_mut(&key) else { return };
        let mut values = [f64::NAN; OUTPUT_WORDS];
        values.iter_mut().zip(output.values()).for_each(|(place, value)| *place = value);
        let value = |name: &str| {
            let at = stream.columns.iter().position(|column| column == name);
            at.and_then(|at| values.get(at)).copied().unwrap_or(f64::NAN)
        };
        shadow.take(match stream.judged {
            Judged::Anomaly { .. } => series::Row::Anomaly {
                opened: value("opened"),
                value: value("value"),
                score: value("score"),
                expected: value("expected"),
            },
            Judged::Regime => series::Row::Regime(&values[..output.values().count().min(OUTPUT_WORDS)]),
        });
    }

    /// What a finding rests on, or why that is not known.
    fn proof(&self, stream: &Watched, key: (u16, u64), finding: &Finding) -> Result<Series, &'static str> {
        let Some(shadow) = self.shadows.get(&key) else {
            return Err("more than 2,048 keys were looked at, and what further ones show is not recorded");
        };
        let series = shadow.evidence(&stream.name, &finding.entity);
        series.ok_or("the key's rows are not known from its first one on: it has some from before this start")
    }

    fn judge(&mut self, stream: &Watched, output: &Output) -> Option<Finding> {
        let key = (output.stream, output.name);
        let found = self.states.judge(stream.judged, &stream.columns, key, output)?;
        let entity = self.names.get(&output.name)?;
        Some(found.finding(&stream.name, entity, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_alert::Severity;
    use tidegate_engine::{Cause, output_kind};

    fn row(sequence: u64, values: &[f64]) -> Output {
        let mut output = Output {
            name: 7,
            sequence,
            ts: sequence * 1_000,
            kind: output_kind::VALUES,
            state: BarState::Final as u8,
            cause: Cause::Watermark as u8,
            count: values.len() as u8,
            ..Output::default()
        };
        output.words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
        output
    }

    fn reader() -> Reader {
        Reader { names: HashMap::from([(7, "BTCUSD".into())]), ..Reader::default() }
    }

    #[test]
    fn anomalies_are_on_the_detectors_scale_and_quiet_rows_say_nothing() {
        let columns = ["state", "score", "chance", "value", "expected", "spread"];
        let stream = Watched {
            name: "anomaly.1s".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            judged: Judged::Anomaly { threshold: 2.0 },
        };
        let mut reader = reader();
        for quiet in [
            [0.0, f64::NAN, f64::NAN, 5.0, f64::NAN, f64::NAN],
            [1.0, 1.9, 0.1, 5.0, 5.0, 1.0],
            [2.0, 1.9, 0.1, 5.0, 5.0, 1.0],
        ] {
            assert_eq!(reader.judge(&stream, &row(1, &quiet)), None);
        }
        let found = reader.judge(&stream, &row(2, &[2.0, 8.0, 1e-8, 90.0, 5.0, 1.0])).unwrap();
        assert_eq!((found.kind.as_str(), found.entity.as_str()), ("anomaly", "BTCUSD"));
        assert_eq!(
            (found.score, found.severity, found.method.as_str()),
            (0.95, Severity::High, "anomaly.1s")
        );
        assert_eq!((found.reasons[0].seen, found.reasons[0].expected), (90.0, 5.0));
        assert_eq!((found.range.first, found.ts), (2, 2_000));
        let rows = (1..=100).filter_map(|at| {
            let score = if at == 90 { 8.0 } else { 0.0 };
            reader.look(&stream, &row(at, &[2.0, score, 1.0, 5.0, 5.0, 1.0]))
        });
        let rows: Vec<_> = rows.map(|told| told.rows).collect();
        assert_eq!((rows.len(), rows[0].len()), (1, ROWS_MAX));
        assert_eq!((rows[0][0].sequence, rows[0][ROWS_MAX - 1].sequence), (31, 90));
        let forming = Output { state: BarState::Forming as u8, ..row(3, &[2.0, 8.0, 0.1, 9.0, 5.0, 1.0]) };
        assert_eq!(reader.judge(&stream, &forming), None);
    }

    #[test]
    fn a_regime_is_news_when_it_changes_and_not_when_it_is_learnt() {
        let columns =
            ["state", "p_0", "p_1", "run_length", "mean", "deviation", "mean_before", "deviation_before"];
        let stream = Watched {
            name: "regime.1s".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            judged: Judged::Regime,
        };
        let mut reader = reader();
        let calm = [0.0, 0.9, 0.1, 40.0, 0.0, 0.1, f64::NAN, f64::NAN];
        let wild = [1.0, 0.2, 0.8, 3.0, 0.0, 0.5, 0.0, 0.1];
        let learning = [f64::NAN; 8];
        assert_eq!(reader.judge(&stream, &row(1, &learning)), None);
        assert_eq!(reader.judge(&stream, &row(2, &calm)), None);
        assert_eq!(reader.judge(&stream, &row(3, &calm)), None);
        let found = reader.judge(&stream, &row(4, &wild)).unwrap();
        assert_eq!((found.kind.as_str(), found.score), ("regime-change", 0.8));
        let deviation = found.reasons.iter().find(|reason| reason.name == "deviation of returns").unwrap();
        assert_eq!((deviation.seen, deviation.expected), (0.5, 0.1));
        assert_eq!(reader.judge(&stream, &row(5, &wild)), None);
    }
}
