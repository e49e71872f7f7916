//! What must be true after every step, written down a second time and without the code under test.

pub mod slots;

use crate::machine::{Folded, Word, mix};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_replica::{Body, Entry, GroupId, Machine, Member, Meta, NodeId, Replica, Role};

/// What all committed entries are, and what was said about them.
#[derive(Debug, Default)]
pub struct Checker {
    lineage: u64,
    /// Each committed entry.
    truth: Vec<Truth>,
    /// The same of all lineages before, of which a new one's beginning may be.
    past: Vec<Vec<Truth>>,
    state: Folded,
    /// Last committed sequence by source.
    last: BTreeMap<u32, u64>,
    committers: BTreeMap<u32, Member>,
    /// What was committed when an epoch began, which its leader must have. (A leader of an epoch that is over may learn of it late; it
    /// lacks what came since, and can commit nothing.)
    began: BTreeMap<u32, usize>,
    /// Nodes that must have everything, by the checker's own reckoning.
    eligible: BTreeSet<NodeId>,
    /// Starts of nodes whose memory is gone, whatever metadata still believes.
    gone: BTreeSet<Member>,
    acked: BTreeMap<u32, u64>,
    /// What was committed of slots since this was looked at last.
    news: Vec<Word>,
    /// A lineage has begun since: everything of slots that it begins with.
    begun: Option<Vec<Word>>,
    /// Behind this offset it is new.
    begun_to: u64,
    /// Entries acknowledged over all lineages.
    pub acks: u64,
    /// Declared losses.
    pub losses: u64,
    /// Replicas that fenced themselves.
    pub fenced: u64,
}

/// A committed entry.
#[derive(Clone, Copy, Debug)]
struct Truth {
    epoch: u32,
    hash: u64,
    /// Source and sequence, of an input.
    input: Option<(u32, u64)>,
    /// Digest of the state behind it, and of what is known of slots.
    state: (u64, u64),
    /// If it is about a slot.
    word: Option<Word>,
}

/// A promise that was broken.
pub type Broken = String;

fn hash(entry: &Entry<u64>) -> u64 {
    match &entry.body {
        Body::Input { source, sequence, input } => mix(mix(u64::from(*source), *sequence), *input),
        Body::Digest { at, value } => mix(mix(u64::MAX, *at), *value),
    }
}

impl Checker {
    /// For a group that begins empty with these members.
    #[must_use]
    pub fn new(meta: &Meta, group: GroupId) -> Self {
        let group = &meta.groups[usize::from(group)];
        Self {
            lineage: group.lineage,
            eligible: group.isr.iter().map(|member| member.node).collect(),
            ..Self::default()
        }
    }

    /// Entries committed in this lineage.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.truth.len() as u64
    }

    /// The last committed sequence of a source.
    #[must_use]
    pub fn last(&self, source: u32) -> u64 {
        self.last.get(&source).copied().unwrap_or(0)
    }

    /// Metadata has changed from `before`.
    ///
    /// # Errors
    /// What is broken.
    pub fn meta(&mut self, before: &Meta, after: &Meta, group: GroupId) -> Result<(), Broken> {
        let (old, new) = (&before.groups[usize::from(group)], &after.groups[usize::from(group)]);
        if new.epoch < old.epoch || new.version < old.version || new.lineage < old.lineage {
            return Err("epoch, version or lineage went back".to_owned());
        }
        if new.epoch == old.epoch && new.leader != old.leader {
            return Err(format!("two leaders in epoch {}", new.epoch));
        }
        if let Some(node) = after.nodes.keys().find(|node| before.book.left.contains(node)) {
            return Err(format!("node {node} has left, and is back"));
        }
        for &node in before.nodes.keys().filter(|node| !after.book.left.contains(node)) {
            if after.newest(group, node) < before.newest(group, node) {
                return Err(format!("the incarnation of node {node} went back in group {group}"));
            }
        }
        if let Some(over) = new.isr.iter().chain(&new.leader).find(|member| !after.is_live(group, **member)) {
            return Err(format!("{over} is in sync in group {group}, and was given up"));
        }
        if new.epoch > old.epoch {
            self.began.insert(new.epoch, self.truth.len());
        }
        if new.lineage > old.lineage {
            if !self.eligible.is_empty() {
                return Err(format!("a loss is declared although {:?} have everything", self.eligible));
            }
            self.losses += 1;
            self.eligible.clear();
        }
        if new.lineage > old.lineage || new.isr != old.isr && new.isr.len() >= new.min_isr {
            let kept = new.isr.iter().filter(|member| !self.gone.contains(member));
            self.eligible = kept.map(|member| member.node).collect();
        }
        Ok(())
    }

    /// A start of a node has lost its memory.
    pub fn forgot(&mut self, member: Member) {
        self.eligible.remove(&member.node);
        self.gone.insert(member);
    }

    /// A node told metadata that it cannot vouch for what it has, which may be more careful than need be.
    pub fn renounced(&mut self, node: NodeId) {
        self.eligible.remove(&node);
    }

    /// The state behind so many committed entries.
    #[must_use]
    pub fn state(&self, commit: u64) -> Option<u64> {
        self.states(commit).map(|state| state.0)
    }

    /// The same, and a digest of what is known of slots.
    fn states(&self, commit: u64) -> Option<(u64, u64)> {
        if commit == 0 {
            return Some((Folded::default().0, 0));
        }
        self.truth.get(commit as usize - 1).map(|entry| entry.state)
    }

    /// What was committed of slots since this was asked last, and if a lineage has begun, what that began with.
    pub fn of_slots(&mut self) -> (Option<Vec<Word>>, Vec<Word>) {
        (self.begun.take(), std::mem::take(&mut self.news))
    }

    /// A replica has made a step. `seen` is its commit before it, `led` whether it led, `flipped` the commit at which a bit of its state
    /// was flipped, if one was.
    ///
    /// # Errors
    /// What is broken.
    pub fn step(
        &mut self,
        replica: &Replica<Folded>,
        seen: u64,
        led: bool,
        flipped: Option<u64>,
    ) -> Result<(), Broken> {
        let me = replica.me();
        if replica.lineage() > self.lineage && replica.role() == Role::Leader {
            // What it has is where the new lineage begins.
            self.lineage = replica.lineage();
            self.past.push(std::mem::take(&mut self.truth));
            self.last.clear();
            self.acked.clear();
            self.began.clear();
            self.begin_from(replica)?;
            return self.learn(replica, replica.log().base(), true);
        }
        if replica.lineage() != self.lineage {
            return Ok(());
        }
        if replica.commit() < seen {
            return Err(format!("the commit of {me} went back from {seen} to {}", replica.commit()));
        }
        if replica.role() == Role::Leader && !led {
            // What is in its snapshot was looked at when it began with it.
            let (base, has) = (replica.log().base() as usize, replica.log().entries());
            let before = self.began.get(&replica.epoch()).copied().unwrap_or(0);
            for (offset, known) in self.truth[..before].iter().enumerate().skip(base) {
                let found = has.get(offset - base).map(|entry| (entry.epoch, hash(entry)));
                if found != Some((known.epoch, known.hash)) {
                    return Err(format!(
                        "{me} leads epoch {} without committed entry {offset}",
                        replica.epoch()
                    ));
                }
            }
        }
        if replica.role() == Role::Leader && !led && self.committed() < self.begun_to {
            // Whoever began the lineage may have fallen with the end of its log.
            self.begun_with(replica, self.committed());
        }
        if replica.commit() == seen {
            return Ok(());
        }
        self.learn(replica, seen, replica.led() == replica.epoch())?;
        let Some(flipped) = flipped else {
            let same = self.state(replica.commit()) == Some(replica.machine().0);
            return if same {
                Ok(())
            } else {
                Err(format!("the state of {me} differs at {}", replica.commit()))
            };
        };
        // The digest of a state behind the flip has come by, and nobody noticed.
        let entries = replica.log().slice(seen, (replica.commit() - seen) as usize);
        let noticed = |entry: &Entry<u64>| matches!(entry.body, Body::Digest { at, .. } if at > flipped);
        if replica.role() != Role::Fenced && entries.iter().any(noticed) {
            return Err(format!("{me} goes on with a state of its own, flipped at {flipped}"));
        }
        Ok(())
    }

    /// A new lineage begins with what this replica has; what is in its snapshot is known of a lineage before.
    fn begin_from(&mut self, replica: &Replica<Folded>) -> Result<(), Broken> {
        let (base, epoch) = (replica.log().base() as usize, replica.log().epoch_before(replica.log().base()));
        if base > 0 {
            let known = self.past.iter().rev();
            let known = known.filter_map(|truth| truth.get(..base));
            let Some(front) = known.clone().find(|front| front.last().map(|last| last.epoch) == Some(epoch))
            else {
                return Err(format!("{} begins a lineage with a snapshot of nothing", replica.me()));
            };
            self.truth = front.to_vec();
        }
        self.state = Folded(self.state(base as u64).unwrap_or_default(), None);
        let words: Vec<Word> = self.truth.iter().filter_map(|entry| entry.word).collect();
        for word in &words {
            self.state.1.get_or_insert_default().apply(*word);
        }
        self.begun_with(replica, base as u64);
        for (source, sequence) in self.truth.iter().filter_map(|entry| entry.input) {
            self.last.insert(source, sequence);
        }
        Ok(())
    }

    /// All that a leader has is what a lineage begins with, committed or not.
    fn begun_with(&mut self, replica: &Replica<Folded>, from: u64) {
        let words = self.truth.iter().filter_map(|entry| entry.word);
        let rest = replica.log().slice(from, usize::MAX).iter().filter_map(|entry| match entry.body {
            Body::Input { input, .. } => Word::of(input),
            Body::Digest { .. } => None,
        });
        (self.begun, self.news) = (Some(words.chain(rest).collect()), Vec::new());
        self.begun_to = replica.log().end();
    }

    /// A replica begins with what its disk or another one's snapshot has.
    ///
    /// # Errors
    /// What is broken.
    pub fn begins(&self, replica: &Replica<Folded>) -> Result<(), Broken> {
        if replica.lineage() != self.lineage {
            return Ok(()); // of another history, which is void
        }
        let (me, commit) = (replica.me(), replica.commit());
        if self.state(commit) != Some(replica.machine().0) {
            return Err(format!("{me} begins with a state that never was, at {commit}"));
        }
        if self.states(commit).map(|state| state.1) != Some(replica.machine().held_digest()) {
            return Err(format!("{me} begins with moves of slots that never were, at {commit}"));
        }
        let front = (replica.log().base() as usize).checked_sub(1);
        let known = front.and_then(|at| self.truth.get(at)).map(|entry| entry.epoch);
        if known != front.map(|_| replica.log().epoch_before(replica.log().base())) {
            return Err(format!("{me} begins with a log of something else"));
        }
        Ok(())
    }

    /// A replica's commit must not be behind `commit` when it begins anew with a snapshot in place of what it had.
    ///
    /// # Errors
    /// When it is.
    pub fn replaced(&self, replica: &Replica<Folded>, commit: u64) -> Result<(), Broken> {
        if replica.commit() < commit {
            let (me, now) = (replica.me(), replica.commit());
            return Err(format!("a snapshot takes {me} back from {commit} to {now}"));
        }
        Ok(())
    }

    fn learn(&mut self, replica: &Replica<Folded>, seen: u64, leads: bool) -> Result<(), Broken> {
        let me = replica.me();
        let count = replica.commit().saturating_sub(seen) as usize;
        for (at, entry) in replica.log().slice(seen, count).iter().enumerate() {
            let (offset, found) = (seen as usize + at, hash(entry));
            match self.truth.get(offset) {
                Some(known) if (known.epoch, known.hash) == (entry.epoch, found) => {}
                Some(_) => return Err(format!("{me} commits another entry at offset {offset}")),
                None => {
                    if !leads {
                        return Err(format!("{me} follows and commits offset {offset} before its leader"));
                    }
                    let (mut of, mut word) = (None, None);
                    if let Body::Input { source, sequence, input } = &entry.body {
                        let last = self.last.entry(*source).or_default();
                        if *sequence != *last + 1 {
                            return Err(format!("source {source}: {sequence} is applied behind {last}"));
                        }
                        *last = *sequence;
                        self.state.apply(input);
                        of = Some((*source, *sequence));
                        word = Word::of(*input);
                        self.news.extend(word.filter(|_| offset as u64 >= self.begun_to));
                    }
                    let state = (self.state.0, self.state.held_digest());
                    self.truth.push(Truth { epoch: entry.epoch, hash: found, input: of, state, word });
                    let committer = *self.committers.entry(replica.epoch()).or_insert(me);
                    if committer != me {
                        return Err(format!("{me} and {committer} commit in epoch {}", replica.epoch()));
                    }
                }
            }
        }
        Ok(())
    }

    /// A source was told that it is committed up to `sequence`.
    ///
    /// # Errors
    /// What is broken.
    pub fn acked(&mut self, lineage: u64, source: u32, sequence: u64) -> Result<(), Broken> {
        if lineage != self.lineage {
            return Ok(());
        }
        if sequence > self.last(source) {
            return Err(format!("source {source}: {sequence} is acknowledged and not committed"));
        }
        let acked = self.acked.entry(source).or_default();
        self.acks += sequence.saturating_sub(*acked);
        *acked = sequence.max(*acked);
        Ok(())
    }

    /// An output left for subscribers.
    ///
    /// # Errors
    /// What is broken.
    pub fn published(&self, lineage: u64, offset: u64) -> Result<(), Broken> {
        if lineage == self.lineage && offset >= self.committed() {
            return Err(format!("the output of offset {offset} left before it was committed"));
        }
        Ok(())
    }

    /// All faults are over and there was time: everybody has everything.
    ///
    /// # Errors
    /// What is not so.
    pub fn converged<'a>(
        &self,
        meta: &Meta,
        group: GroupId,
        replicas: impl Iterator<Item = &'a Replica<Folded>>,
    ) -> Result<(), Broken> {
        for replica in replicas {
            let me = replica.me();
            let isr = &meta.groups[usize::from(group)].isr;
            if !isr.contains(&me) {
                let isr: Vec<String> = isr.iter().map(ToString::to_string).collect();
                return Err(format!("{me} is not in sync in group {group}, but {}", isr.join(", ")));
            }
            if replica.commit() != self.committed() {
                return Err(format!("{me} has {} of {}", replica.commit(), self.committed()));
            }
            if *replica.machine() != self.state {
                return Err(format!("the digest of {me} differs"));
            }
        }
        Ok(())
    }
}
