//! Events a second from a publisher's memory over QUIC to job A's bars.

use super::{Outcome, Server, Size, bare, party};
use crate::measure::Measurement;
use crate::w1::{W1, generate};
use std::time::Instant;
use tidegate_actors::runtime::IdleStrategy;
use tidegate_engine::Event;
use tidegate_live::Threads;
use tidegate_quic::{Publisher, PublisherOptions};

/// What most paths carry, and what a local network with large frames does.
const MTUS: [(&str, u16); 2] = [("default", 1_200), ("6500", 6_500)];

/// Both MTUs, the server on threads and fused, with events as they are too, and the bare loop in turns.
///
/// # Errors
/// As [`super::run`].
pub fn measure(size: Size) -> Outcome<Vec<Measurement>> {
    let work = W1 { events: size.events, ..W1::default() };
    let events = generate(work);
    let mut found = Vec::new();
    for (name, mtu) in MTUS {
        let contestants = ["quic_ingest", "quic_ingest_fused", "quic_ingest_fused_plain", "quic_bare"];
        let mut contestants =
            contestants.map(|contestant| Measurement::new(format!("{contestant}_{name}"), "events/s"));
        for round in 0..=size.rounds {
            let rates = [
                through_server(&events, work.symbols, Threads::Separate, mtu, true)?,
                through_server(&events, work.symbols, Threads::Fused, mtu, true)?,
                through_server(&events, work.symbols, Threads::Fused, mtu, false)?,
                bare::ingest(&events, work.symbols, mtu)?,
            ];
            if round > 0 {
                contestants.iter_mut().zip(rates).for_each(|(contestant, rate)| contestant.runs.push(rate));
            }
        }
        found.extend(contestants);
    }
    Ok(found)
}

/// From the first event handed over to the last one applied by the shard.
fn through_server(
    events: &[Event],
    symbols: usize,
    threads: Threads,
    mtu: u16,
    packed: bool,
) -> Outcome<f64> {
    let server = Server::start("1s", threads, IdleStrategy::default(), mtu)?;
    let client = server.client.clone();
    let elapsed = std::thread::scope(|scope| {
        let feed = scope.spawn(move || -> Outcome<Instant> {
            party()?.block_on(async {
                let publisher =
                    Publisher::connect(client, PublisherOptions { packed, ..PublisherOptions::default() })
                        .await?;
                for key in 0..symbols {
                    publisher.define(&format!("S{key:04}"))?;
                }
                publisher.settle().await?;
                let start = Instant::now();
                for chunk in events.chunks(8_192) {
                    publisher.send(chunk).await?;
                }
                publisher.settle().await?;
                publisher.finish().await?;
                Ok(start)
            })
        });
        let start = feed.join().map_err(|_| "the publisher panicked")??;
        // Acknowledged is logged; what is still in the ring is a few microseconds' work.
        while server.applied() < events.len() as u64 {
            std::thread::yield_now();
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(start.elapsed())
    })?;
    server.end()?;
    Ok(events.len() as f64 / elapsed.as_secs_f64())
}
