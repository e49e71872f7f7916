//! A flow as it is told to others, with Zeek's words.

use crate::address::Ip;
use crate::community::community_id;

/// How a connection went, in the words of Zeek's `conn_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConnState {
    /// Asked for, never answered.
    S0,
    /// Established, not ended.
    S1,
    /// Established; the originator wanted to close, the responder said nothing.
    S2,
    /// Established; the responder wanted to close, the originator said nothing.
    S3,
    /// Established and ended in order; for UDP: both sides spoke.
    Sf,
    /// Refused.
    Rej,
    /// Established; the originator reset it.
    RstO,
    /// The originator sent SYN and RST; the responder said nothing.
    RstOS0,
    /// Established; the responder reset it.
    RstR,
    /// The responder sent SYN with ACK and RST; nothing was seen of a SYN.
    RstRH,
    /// SYN and FIN by the originator, nothing of the responder.
    Sh,
    /// SYN with ACK and FIN by the responder, nothing of a SYN.
    Shr,
    /// None of these: seen from the middle on, or without states.
    #[default]
    Oth,
}

impl ConnState {
    /// Every state.
    pub const ALL: [Self; 13] = [
        Self::S0,
        Self::S1,
        Self::S2,
        Self::S3,
        Self::Sf,
        Self::Rej,
        Self::RstO,
        Self::RstOS0,
        Self::RstR,
        Self::RstRH,
        Self::Sh,
        Self::Shr,
        Self::Oth,
    ];

    /// Zeek's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::Sf => "SF",
            Self::Rej => "REJ",
            Self::RstO => "RSTO",
            Self::RstOS0 => "RSTOS0",
            Self::RstR => "RSTR",
            Self::RstRH => "RSTRH",
            Self::Sh => "SH",
            Self::Shr => "SHR",
            Self::Oth => "OTH",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Zeek's `history`: a letter for what happened, upper case for the originator. Holds the first 22 letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    letters: [u8; Self::LETTERS_MAX],
    count: u8,
}

impl History {
    /// Letters kept.
    pub const LETTERS_MAX: usize = 22;

    /// Appends a letter while there is room.
    pub fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.count)) {
            *place = letter;
            self.count += 1;
        }
    }

    /// Exchanges originator and responder and says so with `^` in front.
    pub fn flip(&mut self) {
        let old = *self;
        *self = Self::default();
        self.push(b'^');
        for &letter in &old.letters[..usize::from(old.count)] {
            self.push(if letter.is_ascii_uppercase() {
                letter.to_ascii_lowercase()
            } else {
                letter.to_ascii_uppercase()
            });
        }
    }

    /// The letters as bytes, which costs nothing.
    #[inline]
    #[must_use]
    pub fn letters(&self) -> &[u8] {
        &self.letters[..usize::from(self.count)]
    }

    /// Whether this is the first letter.
    #[must_use]
    pub fn starts_with(&self, letter: u8) -> bool {
        self.count > 0 && self.letters[0] == letter
    }

    /// The letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.letters[..usize::from(self.count)]).unwrap_or_default()
    }
}

impl From<&str> for History {
    fn from(text: &str) -> Self {
        let mut history = Self::default();
        text.bytes().filter(u8::is_ascii_graphic).for_each(|letter| history.push(letter));
        history
    }
}

/// What one side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Side {
    /// Payload bytes: for TCP by sequence numbers, so also what the capture missed.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub ip_bytes: u64,
}

/// Why a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// Closed or reset.
    Finished,
    /// Silent for its time-out.
    Timeout,
    /// Another connection took its ports.
    Reused,
    /// The table was full and it had been silent for longest.
    Evicted,
    /// It goes on: an interim record with everything so far.
    Interim,
    /// The input ended.
    InputEnd,
    /// Read from a log of flows.
    Logged,
    /// Told by an exporter that was not seen to tell both directions: what was answered is not known.
    OneWay,
}

impl EndCause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Finished,
        Self::Timeout,
        Self::Reused,
        Self::Evicted,
        Self::Interim,
        Self::InputEnd,
        Self::Logged,
        Self::OneWay,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Timeout => "timeout",
            Self::Reused => "reused",
            Self::Evicted => "evicted",
            Self::Interim => "interim",
            Self::InputEnd => "input_end",
            Self::Logged => "logged",
            Self::OneWay => "one_way",
        }
    }
}

/// A flow. In this order: what finds it lies in its first 64 bytes, what each packet changes behind that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FlowRecord {
    /// Who opened it.
    pub originator: Ip,
    /// Who was asked.
    pub responder: Ip,
    /// Port of the originator; for ICMP the type.
    pub originator_port: u16,
    /// Port of the responder; for ICMP the type of the answer, or the code.
    pub responder_port: u16,
    /// Protocol number of IP.
    pub protocol: u8,
    /// How it went.
    pub state: ConnState,
    /// Why the record was written.
    pub cause: EndCause,
    /// Tunnels around its first packet.
    pub tunnels: u8,
    /// VLAN of its first packet, 0 for none.
    pub vlan: u16,
    /// One in so many packets was looked at, and sizes were multiplied by it: 1 for all, 0 where the exporter does not say.
    pub sampling: u32,
    /// Number of the flow, from 1, in order of first packets.
    pub id: u64,
    /// First packet, ns since 1970.
    pub start_ns: u64,
    /// Last packet that counts for the duration, ns since 1970.
    pub last_ns: u64,
    /// Places of its first and last packet in the input.
    pub packets: (u64, u64),
    /// What the originator sent.
    pub sent: Side,
    /// What the responder sent.
    pub received: Side,
    /// What happened.
    pub history: History,
}

const _: () = assert!(size_of::<FlowRecord>() == 160 && std::mem::offset_of!(FlowRecord, last_ns) == 64);

impl FlowRecord {
    /// First to last packet, ns; `None` where there was one packet only.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        (self.sent.packets + self.received.packets > 1).then(|| self.last_ns.saturating_sub(self.start_ns))
    }

    /// Community ID, version 1, seed 0.
    #[must_use]
    pub fn community_id(&self) -> String {
        community_id(
            0,
            (self.originator, self.originator_port),
            (self.responder, self.responder_port),
            self.protocol,
        )
    }

    /// Name of the protocol as Zeek writes it.
    #[must_use]
    pub fn protocol_name(&self) -> &'static str {
        match self.protocol {
            1 | 58 => "icmp",
            6 => "tcp",
            17 => "udp",
            _ => "unknown_transport",
        }
    }
}
