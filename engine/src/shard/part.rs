//! A slot on its way from a shard of one log to a shard of another: what the first one knows of the slot's keys, as bytes that the second
//! one's log can hold.
//!
//! What is of the slot goes along: open windows, kept trades, the numbers and digests of its results. What shards of a log know alike (frames,
//! sources, declared losses) stays behind, and so do counts, which are of events that the first one took. Time is the one thing that both must agree about:
//! a window that the first one has closed must not be opened again, so the second one goes on no earlier than the first one was
//! ([`Shard::catch_up`]).

use super::{AnalyzerStage, LaneState, RegroupError, Shard, ShardState, Stage, regroup, section};
use crate::output::{Lane, OutputSink, SlotAccount};
use crate::slot::{KeyMeta, SLOT_COUNT};
use crate::snapshot::{self, Reader, SnapshotError, Writer};
use std::borrow::Cow;

/// The head of a part. The other sections have the numbers that they have in a shard's state.
const HEAD: u32 = 16;

/// What a part is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PartHead {
    /// The slot.
    pub slot: u16,
    /// How far its shard had come in event time.
    pub watermark: u64,
    /// Its keys, in the order in which the log defined them; sources are the first log's.
    pub keys: Vec<KeyMeta>,
}

/// A part that is none, or not for this shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// It is damaged, or of other stages.
    #[error("the part of a slot cannot be read")]
    Read(#[from] SnapshotError),
    /// Its head names keys of other slots, or a key twice.
    #[error(
        "the part of slot {slot} has a key of name {name:016x}, which is not one of the slot's, or is there twice"
    )]
    Key {
        /// The slot it says it is of.
        slot: u16,
        /// The key's name.
        name: u64,
    },
    /// The shard is further in time than the slot may go on behind.
    #[error(
        "slot {slot} had come to {watermark}, and the shard it comes to only to {found}: it is to catch up first"
    )]
    Behind {
        /// The slot.
        slot: u16,
        /// How far it had come.
        watermark: u64,
        /// How far the shard has come.
        found: u64,
    },
    /// It does not go together with what the shard has.
    #[error(transparent)]
    Regroup(#[from] RegroupError),
}

/// What a lane has counted of the slot that is written.
type Account<'a> = &'a dyn Fn(&Lane) -> SlotAccount;

fn write_lane(account: SlotAccount, writer: &mut Writer) {
    writer.section(section::LANE, |bytes| {
        bytes.extend_from_slice(&account.sequence.to_le_bytes());
        bytes.extend_from_slice(&account.digest.to_le_bytes());
    });
}

impl AnalyzerStage {
    fn write_part(&self, account: Account<'_>, writer: &mut Writer) {
        write_lane(account(&self.lane), writer);
        writer.section(section::ANALYZER, |bytes| self.analyzer.save(bytes));
        self.children.iter().for_each(|child| child.write_part(account, writer));
    }

    fn expand(&self, slot: u16, part: &mut Reader<'_>, whole: &mut Writer) -> Result<(), SnapshotError> {
        expand_lane(slot, part, whole)?;
        let state = part.section(section::ANALYZER, "analyzer")?;
        whole.section(section::ANALYZER, |bytes| bytes.extend_from_slice(state));
        self.children.iter().try_for_each(|child| child.expand(slot, part, whole))
    }
}

/// The numbers of one slot, as those of all slots of which the others have none.
fn expand_lane(slot: u16, part: &mut Reader<'_>, whole: &mut Writer) -> Result<(), SnapshotError> {
    let wrong = SnapshotError::Section { section: "lane", problem: "not a number and a digest" };
    let words: &[u8; 16] = part.section(section::LANE, "lane")?.try_into().map_err(|_| wrong)?;
    let [a, b, c, d, e, f, g, h, digest @ ..] = *words;
    let mut accounts = vec![SlotAccount::default(); SLOT_COUNT];
    accounts[usize::from(slot)] = SlotAccount {
        sequence: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        digest: u64::from_le_bytes(digest),
    };
    let state = LaneState { accounts: Cow::Owned(accounts), emitted: 0 };
    whole.section(section::LANE, |bytes| snapshot::append(bytes, &state));
    Ok(())
}

impl PartHead {
    /// Reads the head of a part.
    ///
    /// # Errors
    /// [`PartError`] for a part that is damaged, or of no slot.
    pub fn read(part: &[u8]) -> Result<Self, PartError> {
        Self::open(part).map(|(head, _)| head)
    }

    fn open(part: &[u8]) -> Result<(Self, Reader<'_>), PartError> {
        let mut reader = Reader::open(part)?;
        let head: Self = snapshot::read(reader.section(HEAD, "head of a part")?, "head of a part")?;
        if usize::from(head.slot) >= SLOT_COUNT {
            let problem = "of a slot that there is not";
            return Err(SnapshotError::Section { section: "head of a part", problem }.into());
        }
        let mut names: Vec<u64> = head.keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let strange = |key: &&KeyMeta| key.slot != head.slot || crate::slot::slot_of(key.name) != head.slot;
        match head.keys.iter().find(strange).map(|key| key.name).or(twice) {
            Some(name) => Err(PartError::Key { slot: head.slot, name }),
            None => Ok((head, reader)),
        }
    }
}

impl Shard {
    fn names(&self) -> Vec<u64> {
        self.context.keys.iter().map(|key| key.name).collect()
    }

    /// What comes of states takes this shard's place.
    fn become_of(&mut self, mut new: Self) {
        let since: Vec<u64> = self.stages.iter().map(Stage::since).collect();
        new.set_since(&since);
        *self = new;
    }

    /// Takes a slot out of the shard, which goes on without it, its other keys numbered anew in their order. To be called behind a barrier,
    /// everything flushed, nothing of a frame still to come. `stages` makes those that the shard runs.
    ///
    /// # Errors
    /// [`RegroupError`] for stages that cannot be divided, and within a frame; nothing was changed.
    pub fn take_slot(&mut self, stages: &dyn Fn() -> Vec<Stage>, slot: u16) -> Result<Vec<u8>, RegroupError> {
        let state = self.save(Vec::new());
        let of = |other| u32::from(other == slot);
        let mut two = regroup::regroup(stages, &[&state], &self.names(), 2, &of)?.into_iter();
        let (Some(rest), Some(taken)) = (two.next(), two.next()) else {
            return Err(RegroupError::Empty { states: 1, shards: 2 });
        };
        let head = PartHead { slot, watermark: self.context.watermark, keys: taken.context.keys.clone() };
        let part = taken.write_part(&head, &|lane| lane.accounts()[usize::from(slot)]);
        self.become_of(rest);
        Ok(part)
    }

    fn write_part(&self, head: &PartHead, account: Account<'_>) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.section(HEAD, |bytes| snapshot::append(bytes, head));
        for stage in &self.stages {
            write_lane(account(&stage.lane), &mut writer);
            writer.section(section::OPERATOR, |bytes| stage.operator.save(bytes));
            stage.analyzers.iter().for_each(|analyzer| analyzer.write_part(account, &mut writer));
        }
        writer.finish()
    }

    /// The part of a slot of which nothing is known any more but the last number of each stream, by the stream's: what comes of it is numbered
    /// behind that.
    #[must_use]
    pub fn part_of_nothing(stages: Vec<Stage>, slot: u16, last: &dyn Fn(u16) -> u64) -> Vec<u8> {
        let head = PartHead { slot, watermark: 0, keys: Vec::new() };
        let account = |lane: &Lane| SlotAccount { sequence: last(lane.stream()), digest: 0 };
        Self::new(stages).write_part(&head, &account)
    }

    /// Whether keys of a slot are here.
    #[must_use]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.context.keys.iter().any(|key| key.slot == slot)
    }

    /// Goes on from no earlier than this, whatever its sources say. All shards of a log do that at the same barrier.
    pub fn catch_up(&mut self, watermark: u64, out: &mut dyn OutputSink) {
        self.advance(watermark, false, out);
        self.flush(out);
    }

    /// Takes up a slot that left a shard of another log; its keys come behind the shard's own. `sources` says what a source of that log is
    /// called here. To be called as [`Shard::take_slot`], once the shard has caught up with the slot's time.
    ///
    /// # Errors
    /// [`PartError`] by what does not fit; nothing was changed.
    pub fn join_slot(
        &mut self,
        stages: &dyn Fn() -> Vec<Stage>,
        part: &[u8],
        sources: &dyn Fn(u16) -> u16,
    ) -> Result<(), PartError> {
        let (PartHead { slot, watermark, mut keys }, mut reader) = PartHead::open(part)?;
        let found = self.context.watermark;
        if watermark > found {
            return Err(PartError::Behind { slot, watermark, found });
        }
        keys.iter_mut().for_each(|key| key.source = sources(key.source));
        let mut names = self.names();
        names.extend(keys.iter().map(|key| key.name));
        let mut whole = Writer::new();
        let state = ShardState {
            keys: Cow::Owned(keys),
            frame: self.context.frame,
            watermark: found,
            gaps: self.context.gaps.clone(),
            ended: self.context.ended,
            run_left: 0,
            tracker: self.tracker.clone(),
            events: 0,
            controls: 0,
            gaps_forgotten: self.gaps_forgotten,
        };
        whole.section(section::SHARD, |bytes| snapshot::append(bytes, &state));
        for stage in &self.stages {
            expand_lane(slot, &mut reader, &mut whole)?;
            let operator = reader.section(section::OPERATOR, "operator")?;
            whole.section(section::OPERATOR, |bytes| bytes.extend_from_slice(operator));
            for analyzer in &stage.analyzers {
                analyzer.expand(slot, &mut reader, &mut whole)?;
            }
        }
        let (mine, guest) = (self.save(Vec::new()), whole.unsealed());
        let joined = regroup::with_guests(stages, (&[&mine, &guest], 1), &names, 1, &|_| 0)?;
        match joined.into_iter().next() {
            Some(joined) => {
                self.become_of(joined);
                Ok(())
            }
            None => Err(RegroupError::Empty { states: 2, shards: 1 }.into()),
        }
    }
}
