//! Rules that users bring along, over records of traffic: flows, DNS, HTTP, logs of Zeek and Suricata, and alerts themselves; and over rows
//! of results, such as bars and anomalies.
//!
//! [`record`] is what rules see, [`streams`] which results there are, [`extract`] makes records of packets, [`rows`] of lines of logs, [`expr`] are the conditions on them;
//! [`sigma`] compiles Sigma rules and their correlations, [`pattern`] sequences such as `a then b within 5m without c`, [`set`] runs all of
//! them over a stream.
//!
//! **Invariant:** no file, clock, thread or randomness; a rule is compiled whole or refused with its place and what is allowed there;
//! every state has a bound and what it drops is counted; the same records give the same hits.
#![forbid(unsafe_code)]

pub mod expr;
pub mod extract;
pub mod pattern;
pub mod record;
pub mod rows;
pub mod set;
pub mod sigma;
pub mod span;
pub mod streams;
pub mod yaml;

pub use extract::Extract;
pub use pattern::{Pattern, PatternError};
pub use record::{Kind, Origin, Record, Value};
pub use rows::Rows;
pub use set::{Hit, Level, RuleSet};
pub use sigma::RuleError;
pub use streams::{Keys, Streams, Type};
