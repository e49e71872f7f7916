//! What detectors find, turned into alerts people can live with.
//!
//! [`finding`] is one accusation as a detector makes it, [`episode`] what repeats by the same entity, [`policy`] what an operator said
//! (budgets, suppressions, maintenance, feedback), [`desk`] decides what is told and what is held back, [`store`] is how all of that is
//! written down, [`render`] how alerts are told to others.
//!
//! **Invariant:** no file, socket, clock, thread or randomness; time comes in with the findings, every map has a bound and what it drops
//! is counted, and the same findings after the same words of an operator give the same episodes.
#![forbid(unsafe_code)]

pub mod desk;
pub mod episode;
pub mod finding;
pub mod policy;
pub mod render;
pub mod store;
pub mod text;

pub use desk::{Desk, DeskOptions, Told, Verdict};
pub use episode::{Episode, EpisodeId, Held, Hold, Status};
pub use finding::{Finding, Proof, Range, Reason, Severity};
pub use policy::{Calibration, Group, Groups, PolicyError, Quiet, QuietKind, Target};
pub use store::{Action, Entry, Input, State, StoreError};
