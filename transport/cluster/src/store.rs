//! What consensus keeps: its log and its vote on disk (`redb`, every write synced), the metadata in memory beside a snapshot on disk.
#![allow(clippy::result_large_err, reason = "the errors are the library's")]

use crate::config::ClusterError;
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use tidegate_replica::{Command, Meta, NodeId, Place};
use tokio::sync::watch;

openraft::declare_raft_types!(
    /// Commands of metadata by consensus.
    pub(crate) Types:
        D = Command,
        R = Decision,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// Why it was refused, for good; nothing if it was taken.
    pub(crate) rejected: Option<String>,
    /// Whether it was refused because metadata has gone on, perhaps by the same command.
    #[serde(default)]
    pub(crate) overtaken: bool,
}

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";

type Failed = StorageError<u64>;

/// The disk, shared by the log and the metadata.
#[derive(Clone)]
pub(crate) struct Store(Arc<Database>);

fn failure(error: impl std::error::Error + 'static) -> AnyError {
    AnyError::new(&error)
}

fn read_failed(error: impl std::error::Error + 'static) -> Failed {
    StorageIOError::read(failure(error)).into()
}

fn write_failed(error: impl std::error::Error + 'static) -> Failed {
    StorageIOError::write(failure(error)).into()
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, ClusterError> {
        let refused =
            |source: redb::Error| ClusterError::Store { path: path.to_owned(), source: Box::new(source) };
        let database = Database::create(path).map_err(|error| refused(error.into()))?;
        let begin = database.begin_write().map_err(|error| refused(error.into()))?;
        // Tables exist from here on, so that nobody need ask.
        begin.open_table(LOG).map_err(|error| refused(error.into()))?;
        begin.open_table(STATE).map_err(|error| refused(error.into()))?;
        begin.commit().map_err(|error| refused(error.into()))?;
        Ok(Self(Arc::new(database)))
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failed> {
        let read = self.0.begin_read().map_err(read_failed)?;
        let table = read.open_table(STATE).map_err(read_failed)?;
        let Some(found) = table.get(key).map_err(read_failed)? else { return Ok(None) };
        serde_json::from_slice(found.value()).map(Some).map_err(read_failed)
    }

    fn put(&self, key: &str, value: &impl Serialize) -> Result<(), Failed> {
        let bytes = serde_json::to_vec(value).map_err(write_failed)?;
        let write = self.0.begin_write().map_err(write_failed)?;
        write.open_table(STATE).map_err(write_failed)?.insert(key, &bytes[..]).map_err(write_failed)?;
        write.commit().map_err(write_failed)
    }

    fn remove(&self, range: impl RangeBounds<u64>) -> Result<(), Failed> {
        let write = self.0.begin_write().map_err(write_failed)?;
        {
            let mut table = write.open_table(LOG).map_err(write_failed)?;
            table.retain_in::<u64, _>(range, |_, _| false).map_err(write_failed)?;
        }
        write.commit().map_err(write_failed)
    }

    fn last(&self) -> Result<Option<Entry<Types>>, Failed> {
        let read = self.0.begin_read().map_err(read_failed)?;
        let table = read.open_table(LOG).map_err(read_failed)?;
        let Some((_, found)) = table.last().map_err(read_failed)? else { return Ok(None) };
        serde_json::from_slice(found.value()).map(Some).map_err(read_failed)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Failed> {
        let read = self.0.begin_read().map_err(read_failed)?;
        let table = read.open_table(LOG).map_err(read_failed)?;
        let bound = |bound: Bound<&u64>| bound.cloned();
        let range = (bound(range.start_bound()), bound(range.end_bound()));
        let mut entries = Vec::new();
        for found in table.range::<u64>(range).map_err(read_failed)? {
            let (_, entry) = found.map_err(read_failed)?;
            entries.push(serde_json::from_slice(entry.value()).map_err(read_failed)?);
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failed> {
        let last_purged_log_id: Option<LogId<u64>> = self.get(PURGED)?;
        let last = self.last()?.map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failed> {
        self.put(VOTE, vote)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failed> {
        self.get(VOTE)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let write = self.0.begin_write().map_err(write_failed)?;
        {
            let mut table = write.open_table(LOG).map_err(write_failed)?;
            for entry in entries {
                let bytes = serde_json::to_vec(&entry).map_err(write_failed)?;
                table.insert(entry.log_id.index, &bytes[..]).map_err(write_failed)?;
            }
        }
        // On disk when it returns.
        write.commit().map_err(write_failed)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        self.remove(log_id.index..)
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        self.put(PURGED, &log_id)?;
        self.remove(..=log_id.index)
    }
}

/// A snapshot as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    meta: SnapshotMeta<u64, BasicNode>,
    state: Meta,
}

/// The metadata and how far it is.
pub(crate) struct Metadata {
    store: Store,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    state: Arc<Meta>,
    /// For metadata of a version that had no address book.
    founders: BTreeMap<NodeId, Place>,
    told: watch::Sender<Arc<Meta>>,
    parties: watch::Sender<BTreeSet<u64>>,
}

/// What is told of metadata whenever it changes: its state, and who has a part in the consensus on it.
pub(crate) struct Watched {
    pub(crate) state: watch::Receiver<Arc<Meta>>,
    pub(crate) parties: watch::Receiver<BTreeSet<u64>>,
}

impl Metadata {
    /// As the last snapshot has it, or as it `begins`.
    pub(crate) fn open(store: Store, begins: Meta) -> Result<(Self, Watched), Failed> {
        let founders = begins.book.places.clone();
        let kept: Option<Kept> = store.get(SNAPSHOT)?;
        let (applied, membership, state) = match kept {
            Some(kept) => (kept.meta.last_log_id, kept.meta.last_membership, kept.state),
            None => (None, StoredMembership::default(), begins),
        };
        let state = Arc::new(state.founded(&founders));
        let (told, watched) = watch::channel(Arc::clone(&state));
        let (parties, taking_part) = watch::channel(parties_of(&membership));
        let watched = Watched { state: watched, parties: taking_part };
        Ok((Self { store, applied, membership, state, founders, told, parties }, watched))
    }

    fn tell(&self) {
        self.told.send_replace(Arc::clone(&self.state));
        let now = parties_of(&self.membership);
        self.parties.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }
}

/// Voters and learners.
fn parties_of(membership: &StoredMembership<u64, BasicNode>) -> BTreeSet<u64> {
    membership.nodes().map(|(&node, _)| node).collect()
}

/// What a snapshot is made of.
pub(crate) struct Builder {
    store: Store,
    kept: Kept,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failed> {
        self.store.put(SNAPSHOT, &self.kept)?;
        let bytes = serde_json::to_vec(&self.kept.state).map_err(write_failed)?;
        Ok(Snapshot { meta: self.kept.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<Types> for Metadata {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Failed> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Decision>, Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut decisions = Vec::new();
        for Entry { log_id, payload } in entries {
            self.applied = Some(log_id);
            let (mut rejected, mut overtaken) = (None, false);
            match payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    if let Err(reason) = Arc::make_mut(&mut self.state).apply(&command) {
                        (rejected, overtaken) = (Some(reason.to_string()), reason.is_overtaken());
                    }
                }
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(log_id), members);
                }
            }
            decisions.push(Decision { rejected, overtaken });
        }
        self.tell();
        Ok(decisions)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let at = self.applied.map_or_else(|| "none".to_owned(), |at| at.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{at}-{}", self.state.revision),
        };
        Builder { store: self.store.clone(), kept: Kept { meta, state: (*self.state).clone() } }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        let state: Meta = serde_json::from_slice(snapshot.get_ref())
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), failure(error)))?;
        self.store.put(SNAPSHOT, &Kept { meta: meta.clone(), state: state.clone() })?;
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        self.state = Arc::new(state.founded(&self.founders));
        self.tell();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failed> {
        let Some(kept) = self.store.get::<Kept>(SNAPSHOT)? else { return Ok(None) };
        let bytes = serde_json::to_vec(&kept.state).map_err(read_failed)?;
        Ok(Some(Snapshot { meta: kept.meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::testing::{StoreBuilder, Suite};
    use tidegate_replica::Rules;

    struct Folders;

    impl StoreBuilder<Types, Store, Metadata, tempfile::TempDir> for Folders {
        async fn build(&self) -> Result<(tempfile::TempDir, Store, Metadata), Failed> {
            let folder = tempfile::tempdir().map_err(write_failed)?;
            let store = Store::open(&folder.path().join("meta.redb")).map_err(write_failed)?;
            let (metadata, _) = Metadata::open(store.clone(), Meta::new(&[1, 2, 3], 2, Rules::default()))?;
            Ok((folder, store, metadata))
        }
    }

    /// The library's own conformance tests of a store.
    #[test]
    fn it_keeps_what_consensus_relies_on() {
        Suite::test_all(Folders).unwrap();
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.redb");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let begins = || Meta::new(&[1, 2, 3], 2, Rules::default());
        let vote = Vote::new(7, 2);
        let state = runtime.block_on(async {
            let mut store = Store::open(&path).unwrap();
            store.save_vote(&vote).await.unwrap();
            let (mut metadata, watched) = Metadata::open(store, begins()).unwrap();
            let fence = Command::Fence { member: tidegate_replica::Member { node: 1, incarnation: 1 } };
            let entry = |index, payload| Entry { log_id: openraft::testing::log_id(7, 2, index), payload };
            let twice = [1, 2].map(|index| entry(index, EntryPayload::Normal(fence.clone())));
            let decisions = metadata.apply(twice).await.unwrap();
            assert_eq!(decisions[0].rejected, None);
            assert!(decisions[1].rejected.as_deref().is_some_and(|why| why.contains("was fenced")));
            metadata.get_snapshot_builder().await.build_snapshot().await.unwrap();
            watched.state.borrow().clone()
        });
        assert_eq!(state.groups[0].epoch, 2);
        runtime.block_on(async {
            let mut store = Store::open(&path).unwrap();
            assert_eq!(store.read_vote().await.unwrap(), Some(vote));
            let (mut metadata, watched) = Metadata::open(store, begins()).unwrap();
            assert_eq!(*watched.state.borrow(), state);
            assert_eq!(metadata.applied_state().await.unwrap().0.map(|at| at.index), Some(2));
        });
    }
}
