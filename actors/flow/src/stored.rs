//! Flow records as bytes, one after the other, so that what was judged can be judged again: nothing is rounded and nothing left out.
//!
//! A record is its flags, then numbers of variable length (LEB128), most of them as differences: some 45 bytes for a flow of IPv4. There
//! is no checksum; who keeps such bytes knows their digest.

use crate::address::Ip;
use crate::record::{ConnState, EndCause, FlowRecord, History, Side};

/// Longest record, bytes.
pub const RECORD_BYTES_MAX: usize = 256;

const ORIGINATOR_V4: u8 = 1;
const RESPONDER_V4: u8 = 2;
const FLAGS: u8 = ORIGINATOR_V4 | RESPONDER_V4;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredError {
    /// They end inside one; more may come.
    Short,
    /// They are none that [`Stored::write`] makes; the text says what is wrong.
    Wrong(&'static str),
}

impl std::fmt::Display for StoredError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Short => "it ends inside a record",
            Self::Wrong(why) => why,
        })
    }
}

impl std::error::Error for StoredError {}

/// Writes or reads a sequence of records from its beginning: each is told by what differs from the one before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stored {
    id: u64,
    start_ns: u64,
    packet: u64,
}

impl Stored {
    /// Appends a record.
    pub fn write(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        let (originator, responder) = (record.originator.as_v4(), record.responder.as_v4());
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(flag(originator.is_some(), ORIGINATOR_V4) | flag(responder.is_some(), RESPONDER_V4));
        for (ip, v4) in [(record.originator, originator), (record.responder, responder)] {
            match v4 {
                Some(v4) => out.extend(v4.to_be_bytes()),
                None => out.extend(ip.0.to_be_bytes()),
            }
        }
        out.extend(record.originator_port.to_be_bytes());
        out.extend(record.responder_port.to_be_bytes());
        out.extend([record.protocol, record.state as u8, record.cause as u8, record.tunnels]);
        let history = record.history.as_str().as_bytes();
        out.push(history.len() as u8);
        out.extend(history);
        let numbers = [
            zigzag(record.id.wrapping_sub(self.id)),
            zigzag(record.start_ns.wrapping_sub(self.start_ns)),
            record.last_ns.wrapping_sub(record.start_ns),
            zigzag(record.packets.0.wrapping_sub(self.packet)),
            record.packets.1.wrapping_sub(record.packets.0),
            record.sent.bytes,
            record.sent.packets,
            record.sent.ip_bytes,
            record.received.bytes,
            record.received.packets,
            record.received.ip_bytes,
            u64::from(record.vlan),
            u64::from(record.sampling),
        ];
        numbers.into_iter().for_each(|number| put(number, out));
        self.follow(record);
    }

    /// Reads the record at the front of `bytes`, and how many bytes it takes.
    ///
    /// # Errors
    /// [`StoredError`]; then nothing has changed.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(FlowRecord, usize), StoredError> {
        let mut from = From { bytes, at: 0 };
        let flags = from.byte()?;
        if flags & !FLAGS != 0 {
            return Err(StoredError::Wrong("a record begins with unknown flags"));
        }
        let mut address =
            |v4: u8| Ok(if flags & v4 != 0 { Ip::v4(from.array()?) } else { Ip::v6(from.array()?) });
        let (originator, responder) = (address(ORIGINATOR_V4)?, address(RESPONDER_V4)?);
        let (originator_port, responder_port) =
            (u16::from_be_bytes(from.array()?), u16::from_be_bytes(from.array()?));
        let [protocol, state, cause, tunnels] = from.array()?;
        let state = ConnState::ALL.get(usize::from(state));
        let state = *state.ok_or(StoredError::Wrong("a record has an unknown state"))?;
        let cause = EndCause::ALL.get(usize::from(cause));
        let cause = *cause.ok_or(StoredError::Wrong("a record has an unknown cause"))?;
        let letters = usize::from(from.byte()?);
        if letters > History::LETTERS_MAX {
            return Err(StoredError::Wrong("a record has a history that is too long"));
        }
        let history = std::str::from_utf8(from.take(letters)?).map(History::from).ok();
        let history = history.filter(|history| history.as_str().len() == letters);
        let history = history.ok_or(StoredError::Wrong("a record has a history that is none"))?;
        let mut number = || from.number();
        let id = self.id.wrapping_add(unzigzag(number()?));
        let start_ns = self.start_ns.wrapping_add(unzigzag(number()?));
        let last_ns = start_ns.wrapping_add(number()?);
        let first = self.packet.wrapping_add(unzigzag(number()?));
        let packets = (first, first.wrapping_add(number()?));
        let mut side = || Ok(Side { bytes: number()?, packets: number()?, ip_bytes: number()? });
        let (sent, received) = (side()?, side()?);
        let small = StoredError::Wrong("a record has a number that is too large");
        let vlan = u16::try_from(number()?).map_err(|_| small)?;
        let sampling = u32::try_from(number()?).map_err(|_| small)?;
        let record = FlowRecord {
            id,
            start_ns,
            last_ns,
            originator,
            originator_port,
            responder,
            responder_port,
            protocol,
            state,
            history,
            sent,
            received,
            packets,
            vlan,
            tunnels,
            cause,
            sampling,
        };
        self.follow(&record);
        Ok((record, from.at))
    }

    fn follow(&mut self, record: &FlowRecord) {
        *self = Self { id: record.id, start_ns: record.start_ns, packet: record.packets.0 };
    }
}

/// A difference either way as a small number.
fn zigzag(value: u64) -> u64 {
    (value << 1) ^ ((value as i64) >> 63) as u64
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct From<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> From<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoredError> {
        let taken = self.bytes.get(self.at..self.at + count).ok_or(StoredError::Short)?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        self.take(N)?.try_into().map_err(|_| StoredError::Short)
    }

    fn byte(&mut self) -> Result<u8, StoredError> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, StoredError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(StoredError::Wrong("a record has a number of more than 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = FlowRecord> {
        let ip = prop_oneof![any::<[u8; 4]>().prop_map(Ip::v4), any::<[u8; 16]>().prop_map(Ip::v6)];
        let side = any::<[u64; 3]>().prop_map(|[bytes, packets, ip_bytes]| Side { bytes, packets, ip_bytes });
        (
            (ip.clone(), ip, any::<[u16; 3]>(), any::<[u8; 2]>(), "[!-~]{0,22}"),
            (
                any::<[u64; 5]>(),
                side.clone(),
                side,
                any::<u32>(),
                0..ConnState::ALL.len(),
                0..EndCause::ALL.len(),
            ),
        )
            .prop_map(
                |(
                    (
                        originator,
                        responder,
                        [originator_port, responder_port, vlan],
                        [protocol, tunnels],
                        history,
                    ),
                    ([id, start_ns, last_ns, first, last], sent, received, sampling, state, cause),
                )| FlowRecord {
                    id,
                    start_ns,
                    last_ns,
                    originator,
                    originator_port,
                    responder,
                    responder_port,
                    protocol,
                    state: ConnState::ALL[state],
                    history: history.as_str().into(),
                    sent,
                    received,
                    packets: (first, last),
                    vlan,
                    tunnels,
                    cause: EndCause::ALL[cause],
                    sampling,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(record(), 1..6), cut in any::<prop::sample::Index>()) {
            let (mut bytes, mut writer) = (Vec::new(), Stored::default());
            for record in &records {
                let before = bytes.len();
                writer.write(record, &mut bytes);
                prop_assert!(bytes.len() - before <= RECORD_BYTES_MAX);
            }
            let (mut at, mut reader) = (0, Stored::default());
            for record in &records {
                let (read, count) = reader.read(&bytes[at..]).unwrap();
                prop_assert_eq!(&read, record);
                at += count;
            }
            prop_assert_eq!(at, bytes.len());
            // Cut short anywhere, the rest is still read, and the end is told.
            let cut = cut.index(bytes.len());
            let (mut at, mut reader) = (0, Stored::default());
            let ended = loop {
                match reader.read(&bytes[at..cut]) {
                    Ok((_, count)) => at += count,
                    Err(error) => break error,
                }
            };
            prop_assert_eq!(ended, StoredError::Short);
        }

        #[test]
        fn any_bytes_end_in_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (mut at, mut reader) = (0, Stored::default());
            while let Ok((_, count)) = reader.read(&bytes[at..]) {
                prop_assert!(count > 0);
                at += count;
            }
        }
    }

    #[test]
    fn an_ordinary_flow_is_short() {
        let record = FlowRecord {
            id: 1_000_001,
            start_ns: 1_700_000_000_000_000_000,
            last_ns: 1_700_000_000_300_000_000,
            originator: Ip::v4([10, 0, 0, 1]),
            originator_port: 50_000,
            responder: Ip::v4([192, 0, 2, 1]),
            responder_port: 443,
            protocol: 6,
            state: ConnState::Sf,
            history: "ShADadFf".into(),
            sent: Side { bytes: 900, packets: 9, ip_bytes: 1_300 },
            received: Side { bytes: 12_000, packets: 12, ip_bytes: 12_600 },
            packets: (77_000, 77_000),
            vlan: 0,
            tunnels: 0,
            cause: EndCause::Logged,
            sampling: 1,
        };
        let (mut bytes, mut writer) = (Vec::new(), Stored::default());
        writer.write(&record, &mut bytes);
        let first = bytes.len();
        writer.write(
            &FlowRecord { id: 1_000_002, start_ns: record.start_ns + 1_000_000, ..record },
            &mut bytes,
        );
        assert!(bytes.len() - first <= 50, "{} bytes", bytes.len() - first);
        assert_eq!(
            Stored::default().read(&[4; 64]),
            Err(StoredError::Wrong("a record begins with unknown flags"))
        );
    }
}
