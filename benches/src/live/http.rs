//! The gateway: answers a second and how long they take, at a steady rate from its own clients.

use super::delivery::{Pace, histogram};
use super::{Outcome, Server, Size, nanos, party};
use crate::measure::Measurement;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate_actors::runtime::IdleStrategy;
use tidegate_live::Threads;
use tidegate_quic::{Publisher, PublisherOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keep-alive connections of the load.
const CONNECTIONS: u64 = 64;

/// One keep-alive connection that asks for the newest bar of a key.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    async fn dial(address: SocketAddr, key: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request =
            format!("GET /v1/latest?stream=bars.10t&key=K{key} HTTP/1.1\r\nhost: {address}\r\n\r\n").into();
        Ok(Self { stream, request, buffer: Vec::with_capacity(8_192) })
    }

    /// One request and its whole answer, which must be a good one.
    async fn ask(&mut self) -> Outcome<()> {
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the gateway hung up".into());
            }
            let text = std::str::from_utf8(&self.buffer)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if !head.starts_with("HTTP/1.1 200") {
                return Err(head.lines().next().unwrap_or("no answer").to_owned().into());
            }
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.ok_or("an answer without a length")? {
                return Ok(());
            }
        }
    }
}

/// Open loop at `rate` a second over [`CONNECTIONS`] connections: from a request's intended time to the end of its answer.
async fn load(address: SocketAddr, rate: u64, seconds: u64) -> Outcome<(Histogram<u64>, f64)> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    let start = Instant::now() + Duration::from_millis(200);
    for at in 0..CONNECTIONS {
        let mut client = Client::dial(address, at % 16).await?;
        let (due_in, mut due) = tokio::sync::mpsc::unbounded_channel::<u64>();
        clients.push(due_in);
        tasks.spawn(async move {
            let mut histogram = histogram();
            while let Some(at) = due.recv().await {
                client.ask().await?;
                let since = at * 1_000_000_000 / rate;
                histogram.saturating_record(nanos(start.elapsed()).saturating_sub(since));
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(histogram)
        });
    }
    // The runtime's timers are too coarse for this.
    let mut pace = Pace::new(start, rate, rate * seconds);
    while let Some(due) = pace.due().await {
        for at in due {
            let _ = clients[(at % CONNECTIONS) as usize].send(at);
        }
        tokio::task::yield_now().await;
    }
    drop(clients);
    let mut all = histogram();
    while let Some(done) = tasks.join_next().await {
        all.add(done??)?;
    }
    Ok((all, start.elapsed().as_secs_f64()))
}

/// Newest bars over REST at 10,000 requests a second, and as many as are answered when twice as many are asked.
///
/// # Errors
/// As [`super::run`].
pub fn rest(size: Size) -> Outcome<Vec<Measurement>> {
    let mut found = [
        Measurement::new("rest_latest_10k_p50", "ns"),
        Measurement::new("rest_latest_10k_p99", "ns"),
        Measurement::new("rest_latest_rate", "requests/s"),
    ];
    let server = Server::start("10t", Threads::Auto, IdleStrategy::default(), 1_200)?;
    let front = server.gateway()?;
    let address = front.address;
    party()?.block_on(async {
        let publisher = Publisher::connect(server.client.clone(), PublisherOptions::default()).await?;
        let start = Instant::now();
        super::delivery::some(&publisher, start).await?;
        for _ in 0..size.rounds {
            let (calm, _) = load(address, 10_000, size.seconds).await?;
            found[0].runs.push(calm.value_at_quantile(0.5) as f64);
            found[1].runs.push(calm.value_at_quantile(0.99) as f64);
            let (rush, seconds) = load(address, 100_000, size.seconds.min(2)).await?;
            found[2].runs.push(rush.len() as f64 / seconds);
        }
        publisher.finish().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    front.end(&server)?;
    server.end()?;
    Ok(found.into())
}
