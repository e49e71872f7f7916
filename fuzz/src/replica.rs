//! Replicas: messages that a member of the cluster may have forged.

use bytes::Bytes;
use tidegate_replica::wire::{self, HEAD_BYTES};
use tidegate_replica::{
    Append, Base, Body, Entry, Log, Machine, Member, Message, Meta, NodeId, Output, Replica, ReplicaOptions,
    Role, Rules, SnapshotId,
};

#[derive(Clone, Default)]
struct Sum(u64);

impl Machine for Sum {
    type Input = Bytes;

    fn apply(&mut self, input: &Bytes) {
        self.0 = self.0.rotate_left(5) ^ input.len() as u64;
    }

    fn digest(&self) -> u64 {
        self.0
    }
}

const fn member(node: NodeId) -> Member {
    Member { node, incarnation: 1 }
}

fn replica(node: NodeId) -> Replica<Sum> {
    let options = ReplicaOptions { digest_every: 4, ..ReplicaOptions::default() };
    let mut replica = Replica::new(member(node), 1, Base::default(), Log::default(), options);
    replica.on_meta(&Meta::new(&[1, 2, 3], 2, Rules::default()));
    replica
}

/// A leader and a follower get the messages that are in `bytes`, one behind the other. What is no message is refused; what is one has
/// only one form; and what a message says makes nobody go back, commit what nobody has, hold more than was sent, or set aside of a
/// snapshot more than was offered.
pub fn messages(mut bytes: &[u8]) {
    let (mut leader, mut follower) = (replica(1), replica(2));
    for sequence in 1..=6 {
        leader.submit(0, sequence, Bytes::from_static(b"input"));
    }
    let mut outputs = Vec::new();
    let mut entries = 0;
    let (mut taken, mut offered) = (0, 0);
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
        let Ok(length) = wire::body_bytes(head) else { return };
        let Some((body, rest)) = rest.split_at_checked(length) else { return };
        bytes = rest;
        let Ok(message) = wire::decode(head, Bytes::copy_from_slice(body)) else { return };
        let mut again = Vec::new();
        wire::encode(&message, &mut again).expect("what was read can be written");
        assert_eq!((&again[..HEAD_BYTES], &again[HEAD_BYTES..]), (&head[..], body));
        if let Message::Append(append) = &message {
            entries += append.entries.len() as u64;
        }
        if let Message::Offer { snapshot, .. } = &message {
            offered = offered.max(snapshot.bytes);
        }
        for replica in [&mut leader, &mut follower] {
            let before = (replica.epoch(), replica.lineage(), replica.commit());
            replica.receive(message.clone());
            replica.drain(&mut outputs);
            for output in &outputs {
                match output {
                    Output::Take { at, data, .. } => {
                        taken = if *at == 0 { 0 } else { taken };
                        assert_eq!(taken, *at, "pieces without a hole");
                        taken += data.len() as u64;
                        assert!(taken <= offered, "more than was offered");
                    }
                    Output::Install { .. } => panic!("nobody computed its hash"),
                    Output::Read { .. } => panic!("this leader has none"),
                    _ => {}
                }
            }
            assert!(replica.epoch() >= before.0 && replica.lineage() >= before.1);
            // Another lineage begins at 0.
            assert!(replica.commit() >= before.2 || replica.lineage() > before.1);
            assert!(replica.commit() <= replica.log().end());
            assert!(replica.log().end() <= entries + 16, "more than was ever sent");
            assert!(replica.role() != Role::Fenced || replica.log().end() > 0);
        }
    }
}

/// One of each message, and a few behind each other.
///
/// # Panics
/// When a constant does not fit.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let input = |sequence| Entry {
        epoch: 1,
        body: Body::Input { source: 0, sequence, input: Bytes::from_static(b"abc") },
    };
    let append = |prev_offset, entries, commit| {
        let (from, to) = (member(1), member(2));
        let prev_epoch = u32::from(prev_offset > 0);
        Message::Append(Append { epoch: 1, lineage: 1, from, to, prev_offset, prev_epoch, entries, commit })
    };
    let digest = Entry { epoch: 1, body: Body::Digest { at: 4, value: 9 } };
    let (from, to) = (member(1), member(2));
    let snapshot = SnapshotId { offset: 9, epoch: 1, bytes: 3, hash: [7; 32] };
    let offer = Message::Offer { epoch: 1, lineage: 1, from, to, snapshot };
    let chunk = |at, data: &'static [u8]| {
        let data = Bytes::from_static(data);
        Message::Chunk { epoch: 1, from, to, offset: 9, at, data }
    };
    let all = [
        append(0, vec![input(1), input(2)], 0),
        append(2, vec![input(3), digest], 4),
        append(9, vec![], 0),
        Message::Ack { epoch: 1, from: member(2), matched: 3 },
        Message::Mismatch { epoch: 1, from: member(3), hint: 1 },
        Message::Stale { epoch: 4 },
        offer,
        Message::Fetch { epoch: 1, from: member(2), offset: 9, at: 2 },
        chunk(0, b"ab"),
        chunk(2, b"c"),
    ];
    let mut seeds: Vec<Vec<u8>> = all
        .iter()
        .map(|message| {
            let mut bytes = Vec::new();
            wire::encode(message, &mut bytes).expect("it fits");
            bytes
        })
        .collect();
    seeds.push(seeds.concat());
    seeds
}
