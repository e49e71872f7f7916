//! What all readers share: the streams, the names behind hashes, and the JSON of frames that many readers get.

use crate::record::{StreamView, quote, write_record};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tidegate_engine::Output;
use tidegate_proto::subscriber::Catalogue;
use tidegate_proto::wire::HEAD_BYTES;
use tidegate_proto::{Frame, FrameError, FrameHead, Loss, LossCause};

/// Records of one message at most: about 60 KB of JSON, so that a connection's buffers stay small.
pub(crate) const MESSAGE_RECORDS_MAX: usize = 128;
/// Frames whose JSON is kept for the next reader that gets the same one; at most about 200 KB each.
const SHARED_MAX: usize = 32;

/// What a frame holds for a reader.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Record { key: &'a str, stream: &'a StreamView, output: &'a Output, past: bool },
    Conflated(u64),
    Loss { stream: &'a StreamView, loss: Loss },
    Live { stream: &'a StreamView },
}

/// A frame as JSON, ready to be put between the head and the tail of a reader's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Records, with commas between them.
    Records { past: bool, json: Arc<str> },
    /// Records that gave way to newer ones, as asked.
    Conflated(u64),
    /// Records this reader does not get.
    Loss { stream: String, cause: &'static str, exact: bool, count: u64 },
    /// From here on the stream is live.
    Live { stream: String },
}

pub(crate) fn cause_name(cause: LossCause) -> &'static str {
    match cause {
        LossCause::Dropped => "dropped",
        LossCause::Conflated => "conflated",
        LossCause::Expired => "expired",
    }
}

/// Pieces of one frame, kept with the frame itself: as long as it is held, no other can be at its address.
type Shared = (Bytes, Arc<[Piece]>);

#[derive(Debug)]
pub(crate) struct Book {
    /// By number, those that have ended included: what was sent of them may still be on its way.
    streams: Vec<Arc<StreamView>>,
    /// Quoted, by hash. The hub's names and no others, so the hub's bound on keys bounds it.
    names: Arc<RwLock<HashMap<u64, Box<str>>>>,
    shared: Mutex<VecDeque<Shared>>,
}

impl Book {
    /// The streams of a catalogue; names go on from the book before, if there is one.
    pub(crate) fn new(catalogue: &Catalogue, before: Option<&Self>) -> Self {
        let view = |(number, meta)| Arc::new(StreamView::new(meta, !catalogue.ended.contains(&number)));
        Self {
            streams: (0u16..).zip(&catalogue.streams).map(view).collect(),
            names: before.map_or_else(Arc::default, |before| Arc::clone(&before.names)),
            shared: Mutex::default(),
        }
    }

    /// Streams that there ever were: their numbers are below this.
    pub(crate) fn numbers(&self) -> u16 {
        self.streams.len() as u16
    }

    /// Those that can be asked for, with their numbers.
    pub(crate) fn open(&self) -> impl Iterator<Item = (u16, &Arc<StreamView>)> {
        (0u16..).zip(&self.streams).filter(|(_, stream)| stream.open)
    }

    pub(crate) fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.open().map(|(_, stream)| stream.meta.name.as_str())
    }

    pub(crate) fn stream(&self, name: &str) -> Option<(u16, &Arc<StreamView>)> {
        self.open().find(|(_, stream)| stream.meta.name == name)
    }

    /// Reads a frame of a delivery.
    pub(crate) fn read(&self, bytes: &[u8], each: &mut dyn FnMut(Item<'_>)) -> Result<(), FrameError> {
        let Some(head) = FrameHead::read(bytes, 0)? else { return Ok(()) };
        let Some(body) = bytes.get(HEAD_BYTES..head.frame_bytes()) else { return Ok(()) };
        match Frame::read(0, &head, body)? {
            Frame::Names(names) => self.learn(|| names.iter()),
            Frame::Records(records) => {
                if records.conflated > 0 {
                    each(Item::Conflated(records.conflated));
                }
                let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
                for output in records.iter() {
                    // A stream that the catalogue lacks would be a bug of ours; its records have no form.
                    let Some(stream) = self.streams.get(usize::from(output.stream)) else { continue };
                    let key = known.get(&output.name).map_or("\"?\"", |name| name);
                    each(Item::Record { key, stream, output: &output, past: records.past });
                }
            }
            Frame::Loss(loss) => {
                if let Some(stream) = self.streams.get(usize::from(loss.stream)) {
                    each(Item::Loss { stream, loss });
                }
            }
            Frame::Edge(edge) => {
                if let Some(stream) = self.streams.get(usize::from(edge.stream)) {
                    each(Item::Live { stream });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn learn<'n, I: Iterator<Item = (u64, &'n str)>>(&self, names: impl Fn() -> I) {
        // Nearly always another reader has brought them already.
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names().all(|(hash, _)| known.contains_key(&hash)) {
            return;
        }
        drop(known);
        let mut known = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, name) in names() {
            known.entry(hash).or_insert_with(|| quote(name).into());
        }
    }

    /// A frame as JSON. Frames that the hub shares between readers are written once.
    pub(crate) fn pieces(&self, frame: &Bytes) -> Result<Arc<[Piece]>, FrameError> {
        // The hub keeps what it shares; what only this reader holds will not be asked for again.
        let shared = !frame.is_unique();
        if shared {
            let held = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |other: &&Shared| other.0.as_ptr() == frame.as_ptr() && other.0.len() == frame.len();
            if let Some((_, pieces)) = held.iter().find(same) {
                return Ok(Arc::clone(pieces));
            }
        }
        let pieces: Arc<[Piece]> = self.write(frame)?.into();
        if shared {
            let mut held = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() >= SHARED_MAX {
                held.pop_front();
            }
            held.push_back((frame.clone(), Arc::clone(&pieces)));
        }
        Ok(pieces)
    }

    fn write(&self, frame: &[u8]) -> Result<Vec<Piece>, FrameError> {
        let mut pieces = Vec::new();
        let (mut json, mut count, mut of_past) = (String::new(), 0, false);
        self.read(frame, &mut |item| match item {
            Item::Record { key, stream, output, past } => {
                if count == MESSAGE_RECORDS_MAX {
                    pieces.push(Piece::Records { past, json: std::mem::take(&mut json).into() });
                    count = 0;
                }
                if count > 0 {
                    json.push(',');
                }
                write_record(&mut json, stream, key, output);
                (count, of_past) = (count + 1, past);
            }
            Item::Conflated(count) => pieces.push(Piece::Conflated(count)),
            Item::Loss { stream, loss } => {
                let (cause, stream) = (cause_name(loss.cause), stream.meta.name.clone());
                pieces.push(Piece::Loss { stream, cause, exact: loss.exact, count: loss.count });
            }
            Item::Live { stream } => pieces.push(Piece::Live { stream: stream.meta.name.clone() }),
        })?;
        if count > 0 {
            pieces.push(Piece::Records { past: of_past, json: json.into() });
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tidegate_engine::{name_hash, output_kind, slot_of};
    use tidegate_proto::hub::{Hub, HubOptions, StreamMeta};
    use tidegate_proto::subscription::Subscription;
    use tidegate_proto::{MonoTime, StreamKind};

    #[test]
    fn shared_frames_are_written_once_and_say_the_same() {
        let meta = StreamMeta { name: "v.1s".into(), kind: StreamKind::Integers, columns: vec!["a".into()] };
        let mut hub = Hub::new(vec![meta.clone()], HubOptions::default()).unwrap();
        let catalogue = Catalogue {
            streams: vec![meta],
            ended: BTreeSet::new(),
            server: String::new(),
            incarnation: 1,
            heartbeat_ms: 1,
            silence_ns: 1,
            hello_ns: 1,
        };
        let book = Book::new(&catalogue, None);
        let readers = [(); 2].map(|()| hub.subscribe(&Subscription::to(["v.1s"]), MonoTime(0)).unwrap());
        let publish = |hub: &mut Hub, from: u64, count: u64| {
            let outputs: Vec<Output> = (from..from + count)
                .map(|sequence| {
                    let name = name_hash(b"KEY");
                    let (slot, kind) = (slot_of(name), output_kind::INTEGERS);
                    Output {
                        name,
                        slot,
                        sequence,
                        kind,
                        count: 1,
                        words: [sequence; 16],
                        ..Output::default()
                    }
                })
                .collect();
            hub.define("KEY");
            hub.publish(&outputs);
        };
        publish(&mut hub, 1, 1);
        let mut out = Vec::new();
        // Names, and the edge, are each reader's own.
        readers.iter().for_each(|&id| drop(hub.poll_frames(id, MonoTime(1), 1 << 20, &mut out)));
        out.drain(..).for_each(|frame| drop(book.pieces(&frame).unwrap()));
        publish(&mut hub, 2, 300);
        let mut texts = Vec::new();
        for id in readers {
            hub.poll_frames(id, MonoTime(2), 1 << 20, &mut out);
            assert_eq!(out.len(), 1);
            texts.push(book.pieces(&out.pop().unwrap()).unwrap());
        }
        assert!(Arc::ptr_eq(&texts[0], &texts[1]));
        assert_eq!(texts[0].len(), 300usize.div_ceil(MESSAGE_RECORDS_MAX));
        let Piece::Records { past: false, json } = &texts[0][0] else { panic!("records") };
        let value: serde_json::Value = serde_json::from_str(&format!("[{json}]")).unwrap();
        assert_eq!(value[0]["seq"], 2);
        assert_eq!(value[0]["key"], "KEY");
        assert_eq!(value[127]["values"]["a"], 129);
    }
}
