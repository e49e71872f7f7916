//! The two ends of a TCP connection, as Zeek sees them: states, sizes and letters of the history.
//!
//! Follows the published behaviour of Zeek's analyzer (its `conn.log` documentation and state transitions), so that records can
//! be compared with its logs.

use crate::packet::{Packet, tcp_flag};
use crate::record::{ConnState, History};

/// Where one end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndState {
    /// Nothing was seen of it.
    #[default]
    Inactive,
    /// It sent a SYN.
    SynSent,
    /// The originator's first packet was a SYN with ACK.
    SynAckSent,
    /// It was seen talking, but not its SYN.
    Partial,
    /// Its handshake is done.
    Established,
    /// It sent a FIN.
    Closed,
    /// It sent a RST.
    Reset,
}

/// One end.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// Where it is.
    pub state: EndState,
    previous: EndState,
    /// It sent FIN or RST.
    pub closed: bool,
    fin: bool,
    start: u32,
    /// Sequence space used, from `start`: the highest end of a segment, and the highest number acknowledged by the peer.
    sent: u64,
    acknowledged: u64,
    seen: u8,
    /// Where the last of each was, modulo 2^32.
    last_syn: u32,
    last_fin: u32,
    last_rst: u32,
    retransmitted: u32,
    zero_windows: u32,
}

/// A jump in sequence numbers past this is no progress but nonsense (Zeek's constant).
const JUMP_MAX: i64 = 1 << 20;

const SEEN_SYN: u8 = 1;
const SEEN_FIN: u8 = 2;
const SEEN_RST: u8 = 4;
const SEEN_DATA: u8 = 8;
const SEEN_ACK: u8 = 16;
const SEEN_MULTI: u8 = 32;

impl End {
    /// Payload bytes by sequence numbers: what was sent or acknowledged, without SYN and FIN.
    #[must_use]
    pub fn size(&self, peer: &Self) -> u64 {
        if self.previous == EndState::SynSent
            && self.state == EndState::Reset
            && peer.state == EndState::Inactive
        {
            return 0;
        }
        let space = self.sent.max(self.acknowledged);
        space.saturating_sub(1).saturating_sub(u64::from(self.fin && space > 1))
    }

    fn enter(&mut self, state: EndState) {
        self.previous = self.state;
        self.state = state;
    }

    /// Place of a sequence number relative to the start, nearest to `near`; negative before the start.
    fn relative(&self, number: u32, near: u64) -> i64 {
        let expected = self.start.wrapping_add(near as u32);
        near as i64 + i64::from(number.wrapping_sub(expected) as i32)
    }

    fn letter(&mut self, history: &mut History, letter: u8, bit: u8, last: Option<(u32, u32)>) {
        if self.seen & bit == 0 {
            self.seen |= bit;
            history.push(letter);
        } else if last.is_some_and(|(last, now)| last != now) {
            history.push(letter);
        }
    }
}

/// Whether a count is one that Zeek writes another letter for: 1, 10, 100, ...
fn is_power_of_ten(mut count: u32) -> bool {
    while count >= 10 && count.is_multiple_of(10) {
        count /= 10;
    }
    count == 1
}

/// A connection's ends and history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp {
    /// Who opened it.
    pub originator: End,
    /// Who was asked.
    pub responder: End,
}

/// What a packet changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// The responder answered the SYN.
    pub established: bool,
    /// Both ends are done, or one reset it.
    pub complete: bool,
    /// Retransmitted payload.
    pub retransmitted: bool,
}

impl Tcp {
    /// Takes one packet of the originator or of the responder.
    pub fn take(&mut self, from_originator: bool, packet: &Packet<'_>, history: &mut History) -> Step {
        let (end, peer) = if from_originator {
            (&mut self.originator, &mut self.responder)
        } else {
            (&mut self.responder, &mut self.originator)
        };
        let mut step = Step::default();
        let flags = packet.tcp_flags;
        let has = |bit: u8| flags & bit != 0;
        let (syn, fin, rst, ack) =
            (has(tcp_flag::SYN), has(tcp_flag::FIN), has(tcp_flag::RST), has(tcp_flag::ACK));
        let payload = packet.payload_bytes;
        let length = payload.wrapping_add(u32::from(syn)).wrapping_add(u32::from(fin));

        let jumps = end.state == EndState::SynSent && syn && packet.sequence != end.start;
        if end.state == EndState::Inactive || jumps {
            // As if there had been a SYN before, where there was none.
            end.start = if syn { packet.sequence } else { packet.sequence.wrapping_sub(1) };
            end.sent = u64::from(length) + u64::from(!syn);
            end.acknowledged = 0;
        }
        let at = end.relative(packet.sequence, end.sent);

        // History.
        let case = |letter: u8| if from_originator { letter } else { letter.to_ascii_lowercase() };
        match u8::from(syn) + u8::from(fin) + u8::from(rst) {
            0 if payload > 0 => end.letter(history, case(b'D'), SEEN_DATA, None),
            0 if ack => end.letter(history, case(b'A'), SEEN_ACK, None),
            0 => {}
            1 if syn => {
                let letter = case(if ack { b'H' } else { b'S' });
                let last = (end.last_syn, at as u32);
                end.letter(history, letter, SEEN_SYN, Some(last));
                end.last_syn = at as u32;
            }
            1 if fin => {
                let now = at.wrapping_add(i64::from(payload)) as u32;
                let last = (end.last_fin, now);
                end.letter(history, case(b'F'), SEEN_FIN, Some(last));
                end.last_fin = now;
            }
            1 => {
                let last = (end.last_rst, at as u32);
                end.letter(history, case(b'R'), SEEN_RST, Some(last));
                end.last_rst = at as u32;
            }
            _ => end.letter(history, case(if fin && rst { b'I' } else { b'Q' }), SEEN_MULTI, None),
        }
        if packet.window == 0 && !rst {
            end.zero_windows += 1;
            if is_power_of_ten(end.zero_windows) {
                history.push(case(b'W'));
            }
        }
        end.fin |= fin;

        // Acknowledgments.
        if ack {
            if peer.state == EndState::Inactive {
                peer.start = packet.acknowledged.wrapping_sub(1);
                peer.sent = 0;
            } else if !rst {
                let place = peer.relative(packet.acknowledged, peer.acknowledged.max(peer.sent));
                let ahead = place - peer.acknowledged as i64;
                if ahead > 0 && !(packet.acknowledged == 0 && ahead > JUMP_MAX) {
                    peer.acknowledged = place as u64;
                }
            }
        }

        // Sequence numbers.
        let end_at = at + i64::from(length);
        let delta = end_at - end.sent as i64;
        if (syn || rst) && delta.abs() > JUMP_MAX {
            // A RST with a number out of the blue says nothing about sizes.
        } else if fin && end.sent == 1 && end_at > 0 {
            end.sent = end_at as u64;
        } else if end.state == EndState::Reset {
            // What comes after a RST is not to be trusted.
        } else if delta > 0 {
            end.sent = end_at as u64;
        } else if payload > 0 && end.state != EndState::Inactive {
            step.retransmitted = true;
            end.retransmitted += 1;
            if is_power_of_ten(end.retransmitted) {
                history.push(case(b'T'));
            }
        }

        // States.
        let mut closes = false;
        match end.state {
            EndState::Inactive => {
                if syn {
                    if from_originator {
                        end.enter(if ack { EndState::SynAckSent } else { EndState::SynSent });
                    } else {
                        if peer.state == EndState::SynSent {
                            peer.enter(EndState::Established);
                        }
                        end.enter(EndState::Established);
                        step.established = peer.state != EndState::Partial;
                    }
                }
                if fin {
                    end.enter(EndState::Closed);
                    closes = true;
                }
                if rst {
                    end.enter(EndState::Reset);
                    closes = true;
                }
                if end.state == EndState::Inactive {
                    let early_ack = !from_originator && payload == 0 && peer.state == EndState::SynSent;
                    if early_ack {
                        // Some servers acknowledge a SYN before they answer it.
                    } else if ack && peer.state == EndState::Established {
                        end.enter(EndState::Established);
                    } else {
                        end.enter(EndState::Partial);
                    }
                }
            }
            EndState::SynSent | EndState::SynAckSent => {
                if fin {
                    end.enter(EndState::Closed);
                    closes = true;
                }
                if rst {
                    end.enter(EndState::Reset);
                    closes = true;
                }
            }
            EndState::Established | EndState::Partial => {
                if syn && !ack && end.state == EndState::Partial && peer.state == EndState::Inactive {
                    end.enter(EndState::SynSent);
                }
                if fin && !rst {
                    end.enter(EndState::Closed);
                    if peer.state == EndState::Reset && peer.previous == EndState::Closed {
                        peer.enter(EndState::Closed);
                    }
                    closes = true;
                }
                if rst {
                    end.enter(EndState::Reset);
                    closes = true;
                }
            }
            EndState::Closed => {
                if rst && peer.state != EndState::Closed {
                    end.enter(EndState::Reset);
                    closes = true;
                }
            }
            EndState::Reset => {}
        }
        if closes {
            end.closed = true;
            step.complete = end.state == EndState::Reset || peer.closed;
        }
        step
    }

    /// Whether nothing but the originator's SYN was seen.
    #[must_use]
    pub fn is_attempt(&self) -> bool {
        matches!(self.originator.state, EndState::SynSent | EndState::SynAckSent)
            && self.responder.state == EndState::Inactive
    }

    /// Whether a SYN without ACK and with this sequence number begins another connection on the same ports.
    #[must_use]
    pub fn is_reused_by(&self, sequence: u32, idle_ns: u64) -> bool {
        let ends = [self.originator.state, self.responder.state];
        if ends.contains(&EndState::Reset) {
            // Refused clients ask again with the same number, some within half a second.
            return idle_ns > 100_000_000 || sequence != self.originator.start;
        }
        if sequence == self.originator.start || self.originator.state == EndState::SynAckSent {
            return false;
        }
        self.originator.closed || self.responder.closed || idle_ns > 6_000_000_000
    }

    /// Exchanges the ends.
    pub fn flip(&mut self) {
        std::mem::swap(&mut self.originator, &mut self.responder);
    }

    /// Zeek's summary of the connection.
    #[must_use]
    pub fn conn_state(&self) -> ConnState {
        use EndState::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};
        let (o, r) = (self.originator.state, self.responder.state);
        let silent = |state: EndState| matches!(state, Inactive | Partial);
        let empty = self.originator.size(&self.responder) == 0 && self.responder.size(&self.originator) == 0;
        match (o, r) {
            (SynSent | SynAckSent, Reset) => ConnState::Rej,
            (Reset, Reset) if empty => ConnState::Rej,
            (o, Reset) if silent(o) => ConnState::RstRH,
            (_, Reset) => ConnState::RstR,
            (Reset, r) if silent(r) => ConnState::RstOS0,
            (Reset, _) => ConnState::RstO,
            (Closed, Closed) => ConnState::Sf,
            (Closed, r) if silent(r) => ConnState::Sh,
            (Closed, _) => ConnState::S2,
            (o, Closed) if silent(o) => ConnState::Shr,
            (_, Closed) => ConnState::S3,
            (SynSent, Inactive) => ConnState::S0,
            (Established, Established) => ConnState::S1,
            _ => ConnState::Oth,
        }
    }
}
