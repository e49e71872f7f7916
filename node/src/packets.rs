//! Packets off an interface as `detect` records them, so that its alerts can be judged again: what the judge was given, in its order, and
//! the moments in which nothing came.
//!
//! A file of eight bytes that say so and the link type, then entries: number and time of the packet (`u64` each), the VLAN that the
//! kernel had taken off (`u16`), the length that was kept (`u32`; all ones for a moment in which nothing came), and the bytes. All little-endian.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tidegate_flow::{Frame, parse};
use tidegate_replay::decode::{ReadOptions, Traffic};
use tidegate_replay::{Place, Progress, ReadAccount, ReadError, RejectCause};

use crate::traffic::Unit;

/// What a file begins with.
const MAGIC: [u8; 8] = *b"TGPACKT1";
const HEAD_BYTES: u64 = 12;
const ENTRY_BYTES: usize = 22;
/// Length of an entry in which nothing came.
const PAUSE: u32 = u32::MAX;
/// The most that a packet may have kept.
const PACKET_BYTES_MAX: u32 = 262_144;

/// A packet as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) number: u64,
    /// Ns since 1970.
    pub(crate) ts: u64,
    /// The VLAN whose tag was taken off; 0 for none.
    pub(crate) vlan: u16,
    pub(crate) bytes: &'a [u8],
}

/// What the file of an interface of this link type begins with.
pub(crate) fn head(link: u32) -> Vec<u8> {
    MAGIC.into_iter().chain(link.to_le_bytes()).collect()
}

/// Appends a packet.
pub(crate) fn write(raw: &Raw<'_>, into: &mut Vec<u8>) {
    entry(raw.number, raw.ts, raw.vlan, raw.bytes.len() as u32, into);
    into.extend_from_slice(raw.bytes);
}

/// Appends that until `now` nothing came.
pub(crate) fn write_pause(now: u64, into: &mut Vec<u8>) {
    entry(0, now, 0, PAUSE, into);
}

fn entry(number: u64, ts: u64, vlan: u16, length: u32, into: &mut Vec<u8>) {
    into.extend(number.to_le_bytes());
    into.extend(ts.to_le_bytes());
    into.extend(vlan.to_le_bytes());
    into.extend(length.to_le_bytes());
}

/// The packet as the judge gets it; `None` for what is neither IP nor ARP, or malformed.
pub(crate) fn frame<'a>(raw: &Raw<'a>, link: u32) -> Result<Option<Frame<'a>>, String> {
    match parse(raw.number, raw.ts, link, raw.bytes) {
        Ok(Frame::Other) => Ok(None),
        Ok(mut frame) => {
            // A tag that is still in the packet is the inner one.
            if let Frame::Ip(packet) = &mut frame
                && packet.vlan == 0
            {
                packet.vlan = raw.vlan;
            }
            Ok(Some(frame))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Reads such a file.
pub(crate) struct Packets {
    path: PathBuf,
    file: BufReader<std::io::Take<File>>,
    options: ReadOptions,
    link: u32,
    bytes: Vec<u8>,
    account: ReadAccount,
    progress: Progress,
}

/// Whether a file begins like one. What cannot be opened does not; whoever opens it next says why.
pub(crate) fn is_one(path: &Path) -> bool {
    crate::recorded::begins_with(path, &MAGIC)
}

impl Packets {
    /// Opens the first `bytes` of a file, or all of it.
    pub(crate) fn open(path: &Path, bytes: Option<u64>, options: &ReadOptions) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let bytes_total = bytes.map_or(length, |bytes| bytes.min(length));
        let mut head = [0; HEAD_BYTES as usize];
        file.read_exact(&mut head).map_err(io)?;
        let link = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        Ok(Self {
            path: path.to_path_buf(),
            file: BufReader::with_capacity(1 << 16, file.take(bytes_total.saturating_sub(HEAD_BYTES))),
            options: options.clone(),
            link,
            bytes: Vec::new(),
            account: ReadAccount::default(),
            progress: Progress { bytes: HEAD_BYTES, bytes_total },
        })
    }

    /// Gives about `max` packets and pauses to `take`. False once the file has ended.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(Unit<'_>)) -> Result<bool, ReadError> {
        for _ in 0..max {
            let mut head = [0; ENTRY_BYTES];
            if !self.fill(&mut head)? {
                return Ok(false);
            }
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
            let (number, ts) = (word(0), word(8));
            let vlan = u16::from_le_bytes([head[16], head[17]]);
            let length = u32::from_le_bytes([head[18], head[19], head[20], head[21]]);
            let wanted = self.options.from.is_none_or(|from| ts >= from.0)
                && self.options.to.is_none_or(|to| ts < to.0);
            if length == PAUSE {
                if wanted {
                    take(Unit::Pause(ts));
                }
                continue;
            }
            if length > PACKET_BYTES_MAX {
                return Err(self.damaged(format!("a packet of {length} bytes")));
            }
            self.bytes.resize(length as usize, 0);
            let mut bytes = std::mem::take(&mut self.bytes);
            let whole = self.fill(&mut bytes);
            self.bytes = bytes;
            if !whole? && length > 0 {
                return Err(self.damaged("it ends inside a packet".to_owned()));
            }
            let place = Place::Packet(number);
            if !wanted {
                self.account.refuse(RejectCause::Filtered, place, String::new);
                continue;
            }
            match frame(&Raw { number, ts, vlan, bytes: &self.bytes }, self.link) {
                Ok(Some(frame)) => {
                    self.account.accept(1);
                    take(Unit::Traffic(Traffic::Frame(frame)));
                }
                Ok(None) => self.account.refuse(RejectCause::NotAnEvent, place, String::new),
                Err(why) => self.account.refuse(RejectCause::Malformed, place, || why),
            }
        }
        Ok(true)
    }

    /// Fills `into`; false where the file has ended before it.
    fn fill(&mut self, into: &mut [u8]) -> Result<bool, ReadError> {
        let mut filled = 0;
        while filled < into.len() {
            let more = self.file.read(&mut into[filled..]);
            match more.map_err(|source| ReadError::Io { path: self.path.clone(), source })? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(self.damaged("it ends inside an entry".to_owned())),
                bytes => filled += bytes,
            }
        }
        self.progress.bytes += filled as u64;
        Ok(true)
    }

    fn damaged(&self, reason: String) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), place: Place::Byte(self.progress.bytes), reason }
    }

    pub(crate) fn account(&self) -> &ReadAccount {
        &self.account
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW_IP: u32 = 101;

    /// A datagram of UDP.
    fn packet(port: u16) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 9, 0, 9, 0, 0, b'x']);
        bytes
    }

    #[test]
    fn packets_and_pauses_come_back_as_they_went_in_up_to_where_it_was_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.packets");
        let mut bytes = head(RAW_IP);
        let mut then = 0;
        for number in 1..=100u64 {
            let bytes_of = packet(number as u16);
            write(&Raw { number, ts: number * 10, vlan: 7, bytes: &bytes_of }, &mut bytes);
            if number == 40 {
                write_pause(405, &mut bytes);
                then = bytes.len() as u64;
            }
        }
        write(&Raw { number: 101, ts: 2_000, vlan: 0, bytes: &[0x45] }, &mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        assert!(is_one(&path));
        let all = |upto: Option<u64>| {
            let mut packets = Packets::open(&path, upto, &ReadOptions::default()).unwrap();
            let (mut numbers, mut pauses) = (Vec::new(), Vec::new());
            let end = loop {
                let more = packets.read(7, |unit| match unit {
                    Unit::Traffic(Traffic::Frame(Frame::Ip(packet))) => {
                        assert_eq!(
                            (packet.vlan, packet.ts, u64::from(packet.source_port)),
                            (7, packet.number * 10, packet.number)
                        );
                        numbers.push(packet.number);
                    }
                    Unit::Pause(now) => pauses.push((numbers.len(), now)),
                    _ => panic!("neither packet nor pause"),
                });
                match more {
                    Ok(true) => {}
                    other => break other,
                }
            };
            (numbers.len(), pauses, packets.account().faults(), end)
        };
        let (count, pauses, faults, end) = all(None);
        assert_eq!((count, pauses, faults), (100, vec![(40, 405)], 1));
        assert!(matches!(end, Ok(false)));
        assert!(matches!(all(Some(then)), (40, _, 0, Ok(false))));
        assert!(matches!(all(Some(then - 1)), (40, _, 0, Err(ReadError::Damaged { .. }))));
        let mut huge = head(RAW_IP);
        entry(1, 1, 0, PAUSE - 1, &mut huge);
        std::fs::write(&path, &huge).unwrap();
        assert!(matches!(all(None), (0, _, 0, Err(ReadError::Damaged { .. }))));
    }
}
