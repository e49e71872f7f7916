//! Exports over UDP, judged as they come: a thread per address takes datagrams off its socket, one thread judges them.

use super::board::Board;
use super::desk::ToDesk;
use super::evidence::{Evidence, Given};
use super::judging::Judging;
use crate::collect::{self, LOOK, Received, Takes};
use crate::exit::{Exit, Failure};
use crate::rules::Rules;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use tidegate_flow::{Collector, CollectorOptions};

/// Datagrams judged before flows and counters are shown.
const STEP: u64 = 64;

/// Sockets that are open, before anything is taken off them.
pub(super) struct Listening {
    sockets: Vec<UdpSocket>,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Listening {
    pub(super) fn open(addresses: &[SocketAddr]) -> Result<Self, Failure> {
        let open = |address: &SocketAddr| {
            let fail = |error: std::io::Error| {
                Failure::new(Exit::Output, anyhow::anyhow!("cannot take exports at {address}: {error}"))
            };
            let socket = collect::bind(*address).map_err(fail)?;
            let address = socket.local_addr().map_err(fail)?;
            Ok((socket, address))
        };
        let open: Vec<_> = addresses.iter().map(open).collect::<Result<_, Failure>>()?;
        let (sockets, addresses) = open.into_iter().unzip();
        Ok(Self { sockets, addresses })
    }
}

/// Datagrams that the system dropped because sockets at these ports were full, as `/proc` counts them; 0 where it does not.
pub(super) fn socket_drops(ports: &[u16]) -> u64 {
    if ports.is_empty() {
        return 0;
    }
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.lines().skip(1).filter_map(|line| drops_of(line, ports)).sum::<u64>())
        .sum()
}

/// The drops of a line, if its socket is at one of these ports.
fn drops_of(line: &str, ports: &[u16]) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (_, port) = words.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| ports.contains(port));
    port.and(words.last()?.parse().ok())
}

/// Starts the threads. They end when `stop` is raised.
pub(super) fn start(
    listening: Listening,
    (flows_max, sampling, edges): (u32, Option<u32>, Option<u32>),
    rules: &Rules,
    evidence: Option<Arc<Evidence>>,
    (board, to_desk): (&Arc<Board>, &SyncSender<ToDesk>),
    stop: &Arc<AtomicBool>,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    // Set once: there is one start.
    let _ = board.counts.ports.set(listening.addresses.iter().map(SocketAddr::port).collect());
    let (sender, receiver) = sync_channel(collect::QUEUE_MAX);
    let mut threads = Vec::new();
    for socket in listening.sockets {
        let (sender, stop, board) = (sender.clone(), Arc::clone(stop), Arc::clone(board));
        let dropped = Arc::clone(&board.counts.datagrams_dropped);
        threads.push(std::thread::Builder::new().name("tg-exports".to_owned()).spawn(move || {
            let count = |_: &Received| {
                board.counts.datagrams.fetch_add(1, Relaxed);
            };
            collect::pump(&socket, Takes::Any, &sender, &dropped, || stop.load(Relaxed), count);
        })?);
    }
    let collector = Collector::new(CollectorOptions { sampling });
    let judging = Judging::new("flows of exports", flows_max, rules, edges, evidence, (board, to_desk));
    let thread = std::thread::Builder::new().name("tg-detect".to_owned());
    threads.push(thread.spawn(move || judge(judging, collector, &receiver))?);
    Ok(threads)
}

/// Judges what comes out of the queue until nobody puts anything in any more.
fn judge(mut judging: Judging, mut collector: Collector, receiver: &Receiver<Received>) {
    let mut number = 0u64;
    loop {
        let mut idle = false;
        match receiver.recv_timeout(LOOK) {
            Ok(Received { from, received_ns, bytes }) => {
                number += 1;
                // What is no export is counted by the collector.
                let _ = collector.datagram(from, number, received_ns, &bytes, |record| {
                    judging.take(&Given::Flow(record));
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                idle = true;
                collector.advance(crate::serve::now_ns(), |record| judging.take(&Given::Flow(record)));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if idle || number.is_multiple_of(STEP) || number < STEP {
            judging.show();
        }
        judging.board.counts.datagrams_taken.store(number, Relaxed);
    }
    collector.finish(|record| judging.take(&Given::Flow(record)));
    judging.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_a_socket_are_read_as_the_system_writes_them() {
        let line = " 1234: 0100007F:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 55 2 0000000000000000 64479";
        assert_eq!(drops_of(line, &[2055, 7]), Some(64_479));
        assert_eq!(drops_of(line, &[2056]), None);
        for odd in ["", "1:", "1: x y", "1: 0100007F:zz 0"] {
            assert_eq!(drops_of(odd, &[2055]), None, "{odd}");
        }
        assert_eq!(socket_drops(&[]), 0);
    }
}
