//! Packets into flows, flows into alerts.
//!
//! [`packet`] reads one captured frame, [`table`] keeps flows as Zeek's `conn.log` would show them, [`detect`] judges hosts
//! by flows and packets. [`export`] reads what exporters tell about flows they saw, [`shown`] what
//! flows show in clear.
//!
//! **Invariant:** no file, socket, clock, thread or randomness; time comes in with the packets, every map and queue has a bound
//! and what it drops is counted, and the same packets give the same flows and alerts.
#![forbid(unsafe_code)]

pub mod address;
pub mod community;
pub mod detect;
pub mod dns;
pub mod export;
pub mod hash;
pub mod packet;
pub mod record;
pub mod shown;
pub mod sketch;
pub mod stored;
pub mod table;
pub mod tcp;

pub use address::Ip;
pub use detect::{Alert, Detectors, Kind, Severity};
pub use export::{Collector, CollectorCounts, CollectorOptions, ExportError};
pub use packet::{Arp, Frame, Packet, Unparsed, parse};
pub use record::{ConnState, EndCause, FlowRecord, History, Side};
pub use shown::{Looker, Shown};
pub use stored::{Stored, StoredError};
pub use table::{Answer, Flow, FlowTable, TableCounts, TableOptions, Watch};
