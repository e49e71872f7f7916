//! Other streams while the engine runs: announced to the hub, changed by every shard at one place of the log, and open to readers once all
//! shards have passed it. No event is lost or counted twice on the way, and what goes on notices nothing.

use crate::derived::{Began, Derive};
use crate::egress::{HubGone, HubHandle};
use crate::ingest::{IngestGone, IngestHandle, Legacy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_actors::runtime::{Phase, StageFactory, StatsHandle};
use tidegate_proto::hub::{Announced, HubError, StreamMeta};

/// How often it is looked whether all shards have passed the place.
const LOOK: Duration = Duration::from_millis(2);

/// Other streams. What is neither named as ending nor as coming goes on as it is.
pub struct NewStreams {
    /// Numbers of those that end: removed, or changed and to come again under the same name.
    pub ended: Vec<u16>,
    /// Those that begin, in the order of their numbers. One with the name of one that ends, or has
    /// ended before, numbers its records on.
    pub coming: Vec<StreamMeta>,
    /// Names of the stages that go on with what they know.
    pub kept: Vec<String>,
    /// Makes the maker of all stages, given the number of the first stream that begins.
    pub stages: Box<dyn FnOnce(u16) -> StageFactory + Send>,
}

/// Why streams do not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is a journal, or a cluster.
    #[error(
        "with a journal or in a cluster streams change by a restart: what is in the log must lead to the same results wherever it is read"
    )]
    Logged,
    /// The change before has not been carried out yet.
    #[error("the streams are still being changed; ask again in a moment")]
    Busy,
    /// The hub cannot serve them.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The server ends.
    #[error(transparent)]
    Readers(#[from] HubGone),
    /// The server ends.
    #[error(transparent)]
    Feeds(#[from] IngestGone),
}

/// The way to other streams.
#[derive(Clone)]
pub struct StreamChanges {
    ingest: IngestHandle,
    hub: HubHandle,
    stats: StatsHandle,
    logged: bool,
    busy: Arc<AtomicBool>,
}

/// Lets go of a change when it is over, however that comes.
struct Under(Arc<AtomicBool>);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl StreamChanges {
    pub(crate) fn new(ingest: &IngestHandle, hub: &HubHandle, stats: &StatsHandle, logged: bool) -> Self {
        let (ingest, hub, stats) = (ingest.clone(), hub.clone(), stats.clone());
        Self { ingest, hub, stats, logged, busy: Arc::default() }
    }

    /// Whether streams can change without a restart.
    ///
    /// # Errors
    /// [`ChangeError::Logged`] when not.
    pub fn possible(&self) -> Result<(), ChangeError> {
        if self.logged { Err(ChangeError::Logged) } else { Ok(()) }
    }

    /// Changes the streams. Comes back when readers can ask for the new ones, which is as soon as every shard has worked off what was
    /// accepted before. To be called on a tokio runtime and not to be given up half-way: give it a task of its own.
    ///
    /// # Errors
    /// [`ChangeError`]. [`ChangeError::Logged`], [`ChangeError::Busy`] and [`ChangeError::Hub`] come before anything has changed.
    pub async fn change(&self, new: NewStreams) -> Result<(), ChangeError> {
        self.possible()?;
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(ChangeError::Busy);
        }
        let _under = Under(Arc::clone(&self.busy));
        let NewStreams { ended, coming, kept, stages } = new;
        let ending = ended.clone();
        let Announced { first, behind } = self.hub.ask(move |hub, _| hub.announce(&ending, coming)).await??;
        let barrier = self.ingest.restage(stages(first), Legacy { kept, behind }).await?;
        loop {
            let shards = self.stats.stats();
            let gone = shards.iter().filter(|shard| shard.phase >= Phase::Quarantined).count();
            let passed = self.hub.ask(move |hub, _| hub.reached_by(barrier)).await? as usize;
            // A shard that panicked on the way may be counted twice: its last records are of the streams before either way.
            if passed.saturating_add(gone) >= shards.len() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(self.hub.switch(ended).await?)
    }

    /// Has streams begin, and others of their kind end, that somebody in this process computes: see [`crate::derived`]. No shard knows of
    /// them, so this is possible with a journal and in a cluster too. One at a time: who computed before is told by the end of its
    /// ring.
    ///
    /// # Errors
    /// [`ChangeError::Busy`] while streams are being changed, and [`ChangeError::Hub`]: then nothing has changed.
    pub async fn derive(&self, asked: Derive) -> Result<Began, ChangeError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(ChangeError::Busy);
        }
        let _under = Under(Arc::clone(&self.busy));
        Ok(self.hub.derive(asked).await??)
    }
}
