//! The configuration file: a text becomes a [`Config`], or a list of [`Problem`]s that name place, key, what is allowed and the
//! nearest spelling.
//!
//! Every key is declared once, in [`sections`]: its type, its default, its range and what it means. The reader, the explanations,
//! the JSON Schema and the plan of a reload all follow from that.
//!
//! **Invariant:** no file, environment, clock or thread; a text of any content ends in a configuration or in problems, in time and
//! memory bounded by [`BYTES_MAX`].
#![forbid(unsafe_code)]

pub mod units;

mod problem;
mod value;

pub mod derived;

mod rules;
pub mod sections;

mod change;
mod read;
mod schema;
mod templates;

pub use change::{Change, Changes, StreamStep, changes};
pub use problem::{Problem, ProblemKind, Problems};
pub use read::{BYTES_MAX, Read, read};
pub use schema::schema;
pub use sections::{AuthRule, Config, Risk, Spectrum, Stream, Surface};
pub use templates::{TEMPLATES, Template};
pub use value::{Bytes, Key, Kind, Off, SectionInfo, Span};
