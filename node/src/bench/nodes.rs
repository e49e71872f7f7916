//! Nodes as processes, a steady load, and readers that look at the time.

use crate::exit::Failure;
use crate::place::{failure, now_s};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tidegate_cluster::operate::Operator;
use tidegate_cluster::{ClusterConfig, ClusterError, Founding, NodePlace};
use tidegate_engine::{Event, Price, Size};
use tidegate_proto::AckMode;
use tidegate_proto::subscription::{Start, Subscription};
use tidegate_quic::{ClientOptions, Publisher, PublisherOptions, Subscriber, Trust, Update};
use tidegate_replica::{Command, Member};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long anything may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(20);
/// Between two events of the load.
const PACE: Duration = Duration::from_millis(1);

/// What all events of the load are of.
const KEY: &str = "K0";

/// One event of the load, with its own window of event time.
pub(super) fn tick(at: u64) -> Event {
    const T0: u64 = 1_700_000_000_000_000_000;
    Event::trade(T0 + at * 20_000_000, 0, 0, Price(1_000), Size(5), 0)
}

/// Processes that end with this value.
pub(super) struct Nodes {
    folder: tempfile::TempDir,
    program: PathBuf,
    bars: String,
    running: BTreeMap<u16, Child>,
    clients: BTreeMap<u16, SocketAddr>,
}

/// A cluster in which all are in sync.
pub(super) struct Settled {
    pub(super) leader: u16,
}

impl Nodes {
    fn new(bars: &str) -> Result<Self, Failure> {
        Ok(Self {
            folder: tempfile::tempdir().map_err(Failure::internal)?,
            program: std::env::current_exe().map_err(Failure::internal)?,
            bars: bars.to_owned(),
            running: BTreeMap::new(),
            clients: BTreeMap::new(),
        })
    }

    /// A cluster of so many nodes, all of which must have an event before it is committed while all are in sync.
    pub(super) fn start(count: u16, bars: &str) -> Result<Self, Failure> {
        let mut nodes = Self::new(bars)?;
        // Held until all are known, so that none is given twice.
        let sockets: Vec<UdpSocket> = (0..2 * count)
            .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .map_err(Failure::internal)?;
        let addresses: Vec<SocketAddr> =
            sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>().map_err(Failure::internal)?;
        drop(sockets);
        let places: BTreeMap<u16, NodePlace> = (1..=count)
            .zip(addresses.chunks_exact(2))
            .map(|(node, pair)| (node, NodePlace { peers: pair[0], clients: pair[1] }))
            .collect();
        nodes.clients = places.iter().map(|(&node, place)| (node, place.clients)).collect();
        let min_isr = usize::from(count) / 2 + 1;
        ClusterConfig::init(
            &nodes.lab(),
            places,
            Founding { min_isr, groups: 1, durable: false, copies: 0 },
            30,
            now_s(),
        )
        .map_err(Failure::internal)?;
        for node in 1..=count {
            nodes.serve(node)?;
        }
        Ok(nodes)
    }

    /// A server that stands alone.
    pub(super) fn alone(bars: &str) -> Result<Self, Failure> {
        let mut nodes = Self::new(bars)?;
        let data = nodes.folder.path().join("data");
        let hello = nodes.spawn(0, &["--listen", "127.0.0.1:0", "--data"], &data)?;
        let address = hello["listening"].as_str().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| Failure::internal("the server does not say where it listens"))?;
        nodes.clients.insert(0, address);
        Ok(nodes)
    }

    fn lab(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// Starts a node, and waits until it listens.
    pub(super) fn serve(&mut self, node: u16) -> Result<(), Failure> {
        let folder = self.lab().join(format!("node-{node}"));
        self.spawn(node, &["--cluster"], &folder).map(drop)
    }

    fn spawn(&mut self, node: u16, options: &[&str], folder: &Path) -> Result<serde_json::Value, Failure> {
        let mut child = Process::new(&self.program)
            .arg("serve")
            .args(options)
            .arg(folder)
            .args(["--http", "off", "--bars", &self.bars, "--json", "--quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::internal)?;
        let out = child.stdout.take();
        self.running.insert(node, child);
        let mut line = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut line).map_err(Failure::internal)?;
        }
        serde_json::from_str(&line).map_err(|_| {
            Failure::internal(format!("node {node} does not start: try `tidegate serve` by hand"))
        })
    }

    /// Kills a node: it has no time for a word.
    pub(super) fn kill(&mut self, node: u16) -> Result<(), Failure> {
        if let Some(mut child) = self.running.remove(&node) {
            child.kill().and_then(|()| child.wait()).map_err(Failure::internal)?;
        }
        Ok(())
    }

    /// The way to all of them, one of them first.
    pub(super) fn client(&self, first: Option<u16>) -> Result<ClientOptions, Failure> {
        let mut places: Vec<SocketAddr> =
            first.and_then(|node| self.clients.get(&node).copied()).into_iter().collect();
        places.extend(self.clients.iter().filter(|(node, _)| Some(**node) != first).map(|(_, place)| *place));
        let Some((&server, others)) = places.split_first() else {
            return Err(Failure::internal("there is no node"));
        };
        let trust = if self.clients.contains_key(&0) {
            Trust::of_data(&self.folder.path().join("data"))
        } else {
            Trust::of_file(&self.lab().join("ca-cert.pem"))
        };
        let options = ClientOptions::new(server, trust.map_err(Failure::internal)?);
        Ok(ClientOptions { others: others.to_vec(), give_up_after: PATIENCE, ..options })
    }

    /// Waits until somebody leads, all are in sync, and of three nodes another one leads consensus, as it comes to be by itself.
    pub(super) async fn settled(&self) -> Result<Settled, Failure> {
        let operator = Operator::of(&self.lab()).map_err(Failure::internal)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let found = operator.status().await;
            let all: Vec<_> = found.values().filter_map(|found| found.as_ref().ok()).collect();
            let newest = all.iter().max_by_key(|status| status.meta.revision);
            let apart = |leader: u16| {
                all.len() < 3
                    || newest.is_some_and(|newest| {
                        newest.consensus.leader.is_some_and(|other| other != u64::from(leader))
                    })
            };
            if let Some(newest) = newest
                && let Some(leader) = newest.meta.groups[0].leader
                && apart(leader.node)
                && newest.meta.groups[0].isr.len() == self.clients.len()
                && all.len() == self.clients.len()
                && all.iter().all(|status| status.meta.revision == newest.meta.revision)
                && all
                    .iter()
                    .any(|status| status.replica.role == "leader" && status.replica.node == leader.node)
            {
                return Ok(Settled { leader: leader.node });
            }
            sleep(LOOK).await;
        }
        Err(Failure::internal("the cluster does not come to rest"))
    }

    /// Lets another node lead, as soon as there is somebody who can decide it.
    pub(super) async fn transfer(&self, to: u16) -> Result<(), Failure> {
        let operator = Operator::of(&self.lab()).map_err(Failure::internal)?;
        let start = Instant::now();
        loop {
            let found = operator.status().await;
            let all = found.values().filter_map(|found| found.as_ref().ok());
            let newest = all.max_by_key(|status| status.meta.revision);
            let meta = &newest.ok_or_else(|| Failure::internal("no node answers"))?.meta;
            if meta.groups[0].leader.is_some_and(|leader| leader.node == to) {
                return Ok(());
            }
            let known = meta.nodes.get(&to).ok_or_else(|| Failure::internal("there is no such node"))?;
            let target = Member { node: to, incarnation: known.incarnation };
            match operator.decide(&Command::Transfer { group: 0, epoch: meta.groups[0].epoch, target }).await
            {
                Ok(()) => return Ok(()),
                Err(ClusterError::Silent(_)) if start.elapsed() < PATIENCE => sleep(LOOK).await,
                Err(error) => return Err(Failure::internal(error)),
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A thousand events a second, until it is ended.
pub(super) struct Load {
    offered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), Failure>>,
}

impl Load {
    pub(super) async fn start(client: ClientOptions) -> Result<Self, Failure> {
        let options = PublisherOptions {
            name: "load".to_owned(),
            ack_mode: AckMode::Committed,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::connect(client, options).await.map_err(failure)?;
        publisher.define(KEY).map_err(failure)?;
        let (offered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&offered), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let mut at = 0u64;
            while !stopped.load(Relaxed) {
                let due = u64::try_from(start.elapsed().as_nanos() / PACE.as_nanos()).unwrap_or(u64::MAX);
                let events: Vec<Event> = (at..=due).map(tick).collect();
                publisher.send(&events).await.map_err(failure)?;
                at = due + 1;
                count.store(at, Relaxed);
                sleep(PACE).await;
            }
            let stats = publisher.finish().await.map_err(failure)?;
            if stats.lost_by_server > 0 || stats.acked != at {
                let words =
                    format!("{} of {at} events acknowledged, {} lost", stats.acked, stats.lost_by_server);
                return Err(Failure::internal(words));
            }
            Ok(())
        });
        Ok(Self { offered, stop, task })
    }

    /// Events so far.
    pub(super) fn offered(&self) -> u64 {
        self.offered.load(Relaxed)
    }

    /// Ends it; every event must have been acknowledged.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.stop.store(true, Relaxed);
        timeout(PATIENCE, self.task)
            .await
            .map_err(|_| Failure::internal("the feed does not come to its end"))?
            .map_err(Failure::internal)?
    }
}

/// A reader of the bars, one of each event, that notes when each came.
pub(super) struct Reader {
    subscriber: Subscriber,
    /// When which came.
    seen: Vec<(Instant, u64)>,
}

impl Reader {
    pub(super) async fn start(client: ClientOptions) -> Result<Self, Failure> {
        let subscription = Subscription {
            streams: vec!["bars.1t".to_owned()],
            start: Start::Latest,
            ..Subscription::default()
        };
        let subscriber = Subscriber::connect(client, "reader", subscription).await.map_err(failure)?;
        Ok(Self { subscriber, seen: Vec::new() })
    }

    /// The next result. None may be missing, and none come twice.
    async fn next(&mut self) -> Result<u64, Failure> {
        loop {
            let update = timeout(PATIENCE, self.subscriber.next())
                .await
                .map_err(|_| Failure::internal("results do not go on"))?
                .map_err(failure)?;
            match update {
                Some(Update::Record { output, .. }) => {
                    let sequence = output.sequence;
                    if let Some((_, last)) = self.seen.last()
                        && sequence != last + 1
                    {
                        return Err(Failure::internal(format!("result {sequence} came behind {last}")));
                    }
                    self.seen.push((Instant::now(), sequence));
                    return Ok(sequence);
                }
                Some(
                    Update::Live(_) | Update::Conflated(_) | Update::Reconnected(_) | Update::Changed(_),
                ) => {}
                Some(Update::Loss(loss)) => {
                    return Err(Failure::internal(format!("results were lost: {loss:?}")));
                }
                Some(Update::Ended(close)) => return Err(Failure::internal(close.reason)),
                None => return Err(Failure::internal("the subscription has ended")),
            }
        }
    }

    /// Waits until results come.
    pub(super) async fn flows(&mut self) -> Result<(), Failure> {
        for _ in 0..50 {
            self.next().await?;
        }
        Ok(())
    }

    /// The result that came last.
    pub(super) fn mark(&self) -> usize {
        self.seen.len().saturating_sub(1)
    }

    /// Reads until this many results were ever made. The last event's is made by the one behind it.
    pub(super) async fn caught_up(&mut self, sequence: u64) -> Result<(), Failure> {
        while self.next().await? < sequence {}
        Ok(())
    }

    /// Reads on while something is done, so that each result is noted when it comes.
    pub(super) async fn during<T>(
        &mut self,
        what: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                next = self.next() => drop(next?),
                done = &mut what => return done,
            }
        }
    }

    /// The longest time between two results since a mark.
    pub(super) fn longest_since(&self, mark: usize) -> Result<Duration, Failure> {
        let times = self.seen.get(mark..).unwrap_or_default();
        let spans = times.windows(2).map(|pair| pair[1].0.duration_since(pair[0].0));
        spans.max().ok_or_else(|| Failure::internal("nothing came"))
    }

    /// The longest over some time from now on.
    pub(super) async fn longest_over(&mut self, time: Duration) -> Result<Duration, Failure> {
        let (mark, start) = (self.mark(), Instant::now());
        while start.elapsed() < time {
            self.next().await?;
        }
        self.longest_since(mark)
    }
}
