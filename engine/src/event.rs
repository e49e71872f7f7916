//! The event record: 32 bytes, two to a cache line, the same on the wire, in the ring, in the journal
//! and in a capture.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(target_endian = "big")]
compile_error!("event records are little-endian in place; a big-endian build needs byte swaps at every edge");

/// One event. Little-endian, no padding; `payload` is read by `kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Event time in nanoseconds, see [`crate::EventTime`].
    pub ts_event: u64,
    /// Partition key: the name's number in the dictionary of the place the record is in. A source numbers
    /// its own names; the router rewrites them to a shard's dense local index.
    pub key: u32,
    /// Rank of the source that sent it.
    pub source: u16,
    /// What the payload means, see [`kind`].
    pub kind: u8,
    /// Bits whose meaning depends on `kind`, see [`flag`].
    pub flags: u8,
    /// Two little-endian words, by `kind`.
    pub payload: [u64; 2],
}

const _: () = assert!(size_of::<Event>() == 32 && align_of::<Event>() == 8);
const _: () = assert!(std::mem::offset_of!(Event, key) == 8 && std::mem::offset_of!(Event, source) == 12);
const _: () = assert!(std::mem::offset_of!(Event, kind) == 14 && std::mem::offset_of!(Event, flags) == 15);
const _: () = assert!(std::mem::offset_of!(Event, payload) == 16);

/// Values of [`Event::kind`]. Data kinds are below [`kind::CONTROL`], control kinds at or above it.
pub mod kind {
    /// `payload = [price i64 1e-9, size u64 1e-8]`.
    pub const TRADE: u8 = 1;
    /// One side's level of a book: `payload = [price, size]`.
    pub const BOOK_LEVEL: u8 = 2;
    /// One order's life: [`super::OrderPayload`].
    pub const ORDER: u8 = 3;
    /// One packet or flow update of a host: [`super::FlowPayload`].
    pub const FLOW: u8 = 4;
    /// A name that was looked up: [`super::NamePayload`].
    pub const NAME: u8 = 5;
    /// `payload = [value f64 bits, metric id]`: any numeric time series.
    pub const SAMPLE: u8 = 6;
    /// `payload = [value u64, tag]`: an integer, for operators that count or compute on integers.
    pub const INTEGER: u8 = 7;
    /// First control kind.
    pub const CONTROL: u8 = 128;
    /// No on-time event of `source` is older than `ts_event` from here on. `payload = [0, 0]`.
    pub const WATERMARK: u8 = 128;
    /// Head of a frame: `payload = [sequence of the frame's first event, receive time ns]`; `key` is the number of data
    /// records up to the next control record, 0 when unknown.
    pub const MARK: u8 = 129;
    /// A point in the log that snapshots and hand-offs cut at: `payload = [barrier id, 0]`.
    pub const BARRIER: u8 = 130;
    /// Names a key: `payload = [xxh3 of the name, slot]`.
    pub const DEFINE: u8 = 131;
    /// A logged timer: `ts_event` is the ingest time. `payload = [timer id, 0]`.
    pub const TIMER: u8 = 132;
    /// `source` lost events: `ts_event` is where it resumed, `payload = [count lost, last event time before]`.
    pub const GAP: u8 = 133;
    /// `source` went idle: its watermark stops holding windows open until its next event.
    pub const IDLE: u8 = 134;
    /// The input ended: close everything that is open. Comes once, last.
    pub const END: u8 = 135;
    /// `source` has come to `ts_event` and has nothing else to say: to watermarks what an event of that time is, to all else nothing.
    pub const TIME: u8 = 136;

    /// Name of a kind, for tables and messages.
    #[must_use]
    pub fn name(kind: u8) -> &'static str {
        match kind {
            TRADE => "trade",
            BOOK_LEVEL => "book-level",
            ORDER => "order",
            FLOW => "flow",
            NAME => "name",
            SAMPLE => "sample",
            INTEGER => "integer",
            WATERMARK => "watermark",
            MARK => "mark",
            BARRIER => "barrier",
            DEFINE => "define",
            TIMER => "timer",
            GAP => "gap",
            IDLE => "idle",
            END => "end",
            TIME => "time",
            _ => "unknown",
        }
    }
}

/// Bits of [`Event::flags`].
pub mod flag {
    /// Trade: the buyer took liquidity.
    pub const BUY: u8 = 1;
    /// Trade: the seller took liquidity.
    pub const SELL: u8 = 2;
    /// Trade: below the round lot.
    pub const ODD_LOT: u8 = 4;
    /// Trade: takes back the trade of the same key, time, price and size.
    pub const CANCEL: u8 = 8;
    /// Trade: the new values of a trade that a [`CANCEL`] just took back.
    pub const CORRECTION: u8 = 16;
    /// Trade flags that leave the hot path.
    pub const TRADE_SPECIAL: u8 = CANCEL | CORRECTION;

    /// BookLevel, Order: the bid side; the ask side without it.
    pub const BID: u8 = 1;
    /// BookLevel, Order: part of a snapshot that replaces the book.
    pub const SNAPSHOT: u8 = 2;
    /// BookLevel, Order: last record of one venue event.
    pub const LAST: u8 = 4;
    /// Order: action bits `ADD`, `MODIFY`, `CANCEL_ORDER`, `EXECUTE`, `CLEAR`.
    pub const ORDER_ADD: u8 = 8;
    /// Order: changed price or size.
    pub const ORDER_MODIFY: u8 = 16;
    /// Order: taken off, in part or whole.
    pub const ORDER_CANCEL: u8 = 32;
    /// Order: filled, in part or whole.
    pub const ORDER_EXECUTE: u8 = 64;
    /// Order: the whole book is cleared.
    pub const ORDER_CLEAR: u8 = 128;

    /// Flow: first record of a flow.
    pub const FLOW_START: u8 = 1;
    /// Flow: last record of a flow.
    pub const FLOW_END: u8 = 2;
    /// Flow: the key's host sent it; received without it.
    pub const FLOW_OUTBOUND: u8 = 4;
    /// Flow: the key's host opened the connection.
    pub const FLOW_ORIGINATOR: u8 = 8;
    /// Flow: a summary of a whole connection (Zeek, NetFlow), not one packet.
    pub const FLOW_RECORD: u8 = 16;
    /// Flow: IP version 6.
    pub const FLOW_IPV6: u8 = 32;
}

/// Payload of [`kind::FLOW`]. Counters saturate at their maximum; `packets == u16::MAX` means "at least".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowPayload {
    /// Low 32 bits of the peer's name hash: the same on every node, unlike a dictionary index.
    pub peer: u32,
    /// Bytes on the wire.
    pub bytes: u32,
    /// Packets.
    pub packets: u16,
    /// The service port: the destination port as the originator sees it.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, FIN = 1 to CWR = 128.
    pub tcp_flags: u8,
    /// Duration code, see [`duration_code`].
    pub duration: u16,
}

/// Payload of [`kind::NAME`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NamePayload {
    /// xxh3 of the lower-case name.
    pub name: u64,
    /// Bytes of the name, saturating.
    pub length: u16,
    /// Shannon entropy of the name's bytes in 1/256 bit, saturating.
    pub entropy: u16,
    /// Labels in the name.
    pub labels: u8,
    /// Record or query type, low byte.
    pub record_type: u8,
    /// Answers that came with it.
    pub answers: u16,
}

/// Payload of [`kind::ORDER`], as ITCH has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OrderPayload {
    /// The venue's order number.
    pub order_ref: u64,
    /// Price in 1e-4, as the venue's feed has it.
    pub price: u32,
    /// Size in whole things.
    pub size: u32,
}

const _: () = assert!(size_of::<FlowPayload>() == 16 && size_of::<NamePayload>() == 16);
const _: () = assert!(size_of::<OrderPayload>() == 16);

/// Codes a duration in nanoseconds as a 16-bit float: 5 bits of exponent over 11 of mantissa, in
/// microseconds, rounded down. Relative error under 2^-11; saturates at about 24 days.
#[must_use]
pub fn duration_code(ns: u64) -> u16 {
    let us = ns / 1_000;
    if us < 2048 {
        return us as u16;
    }
    let exponent = us.ilog2() - 10; // us >> exponent is in [1024, 2048)
    if exponent > 31 {
        return u16::MAX;
    }
    ((exponent as u16) << 11) | ((us >> exponent) as u16 & 0x7ff)
}

/// Inverse of [`duration_code`], in nanoseconds.
#[must_use]
pub fn duration_decode(code: u16) -> u64 {
    let (exponent, mantissa) = (u64::from(code >> 11), u64::from(code & 0x7ff));
    (mantissa << exponent) * 1_000
}

impl Event {
    /// A trade.
    #[must_use]
    pub fn trade(
        ts_event: u64,
        key: u32,
        source: u16,
        price: crate::Price,
        size: crate::Size,
        flags: u8,
    ) -> Self {
        Self { ts_event, key, source, kind: kind::TRADE, flags, payload: [price.0 as u64, size.0] }
    }

    /// A control record.
    #[must_use]
    pub fn control(kind: u8, ts_event: u64, key: u32, source: u16, payload: [u64; 2]) -> Self {
        debug_assert!(kind >= kind::CONTROL);
        Self { ts_event, key, source, kind, flags: 0, payload }
    }

    /// A packet or flow record.
    #[must_use]
    pub fn flow(ts_event: u64, key: u32, source: u16, flags: u8, payload: FlowPayload) -> Self {
        Self { ts_event, key, source, kind: kind::FLOW, flags, payload: zerocopy::transmute!(payload) }
    }

    /// A looked-up name.
    #[must_use]
    pub fn name(ts_event: u64, key: u32, source: u16, payload: NamePayload) -> Self {
        Self { ts_event, key, source, kind: kind::NAME, flags: 0, payload: zerocopy::transmute!(payload) }
    }

    /// A step of an order's life.
    #[must_use]
    pub fn order(ts_event: u64, key: u32, source: u16, flags: u8, payload: OrderPayload) -> Self {
        Self { ts_event, key, source, kind: kind::ORDER, flags, payload: zerocopy::transmute!(payload) }
    }

    /// Whether this is a control record.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.kind >= kind::CONTROL
    }

    /// Whether its stamp is its source's time: of data, and of records that tell nothing else.
    #[must_use]
    pub const fn tells_time(&self) -> bool {
        self.kind < kind::CONTROL || self.kind == kind::TIME
    }

    /// Price of a trade or book level.
    #[must_use]
    pub const fn price(&self) -> i64 {
        self.payload[0] as i64
    }

    /// Size of a trade or book level.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.payload[1]
    }

    /// The payload as a flow update; meaningful for [`kind::FLOW`].
    #[must_use]
    pub fn as_flow(&self) -> FlowPayload {
        zerocopy::transmute!(self.payload)
    }

    /// The payload as a looked-up name; meaningful for [`kind::NAME`].
    #[must_use]
    pub fn as_name(&self) -> NamePayload {
        zerocopy::transmute!(self.payload)
    }

    /// The payload as an order step; meaningful for [`kind::ORDER`].
    #[must_use]
    pub fn as_order(&self) -> OrderPayload {
        zerocopy::transmute!(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let event = Event {
            ts_event: 0x0807_0605_0403_0201,
            key: 0x0c0b_0a09,
            source: 0x0e0d,
            kind: 0x0f,
            flags: 0x10,
            payload: [0x1817_1615_1413_1211, 0x201f_1e1d_1c1b_1a19],
        };
        let expected: Vec<u8> = (1..=32).collect();
        assert_eq!(event.as_bytes(), expected);
    }

    #[test]
    fn payload_views_round_trip() {
        let flow = FlowPayload {
            peer: 7,
            bytes: 1500,
            packets: 1,
            port: 443,
            protocol: 6,
            tcp_flags: 2,
            duration: 9,
        };
        assert_eq!(Event::flow(1, 2, 3, 4, flow).as_flow(), flow);
        let order = OrderPayload { order_ref: u64::MAX, price: 1, size: 2 };
        assert_eq!(Event::order(1, 2, 3, 4, order).as_order(), order);
    }

    #[test]
    fn duration_codes_are_monotone_and_close() {
        let mut last = 0;
        for shift in 0..52 {
            for step in [0u64, 1, 3] {
                let us = (1u64 << shift) + (step << shift) / 4;
                let code = duration_code(us * 1_000);
                assert!(code >= last || us < 4, "{us}");
                last = code.max(last);
                if us < 1 << 41 {
                    let back = duration_decode(code) / 1_000;
                    assert!(back <= us && us - back <= us / 1024, "{us} -> {back}");
                }
            }
        }
    }
}
