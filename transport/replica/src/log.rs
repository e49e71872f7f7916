//! The log of one replica.

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<I> {
    /// An input of a source.
    Input {
        /// Who sent it.
        source: u32,
        /// The source's number of it, from 1.
        sequence: u64,
        /// The input.
        input: I,
    },
    /// What the state of the leader was.
    Digest {
        /// Behind this many entries.
        at: u64,
        /// The digest of it.
        value: u64,
    },
}

/// An entry, and the epoch of the leader that took it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<I> {
    /// The epoch.
    pub epoch: u32,
    /// What it says.
    pub body: Body<I>,
}

/// Entries from an offset on: from 0, or from where a snapshot has what was in front. A pair of (offset, epoch) names all entries up to
/// it: two logs that agree on one pair agree on everything before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log<I> {
    base: u64,
    base_epoch: u32,
    entries: Vec<Entry<I>>,
}

impl<I> Default for Log<I> {
    fn default() -> Self {
        Self { base: 0, base_epoch: 0, entries: Vec::new() }
    }
}

impl<I: Clone> Log<I> {
    /// A log with these entries from offset 0 on.
    #[must_use]
    pub fn of(entries: Vec<Entry<I>>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// A log that begins behind the entry named by `base` and `epoch`.
    #[must_use]
    pub fn behind(base: u64, epoch: u32, entries: Vec<Entry<I>>) -> Self {
        Self { base, base_epoch: epoch, entries }
    }

    /// Offset of its first entry: what is in front of it is in a snapshot only.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Offset behind the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    fn index(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.base)?).ok()
    }

    /// Epoch of the entry in front of `offset`; 0 in front of the first, and where it is not known.
    #[must_use]
    pub fn epoch_before(&self, offset: u64) -> u32 {
        if offset == self.base {
            return self.base_epoch;
        }
        let before = offset.checked_sub(1).and_then(|at| self.entries.get(self.index(at)?));
        before.map_or(0, |entry| entry.epoch)
    }

    /// Where the run of entries of one epoch begins that ends in front of `offset`, as far as it is here.
    #[must_use]
    pub fn run_start(&self, offset: u64) -> u64 {
        let (mut at, epoch) = (offset.min(self.end()), self.epoch_before(offset));
        while at > self.base && self.epoch_before(at) == epoch {
            at -= 1;
        }
        at
    }

    /// Entries from `from` on, `most` of them at most; none from an offset on that is in front of the first.
    #[must_use]
    pub fn slice(&self, from: u64, most: usize) -> &[Entry<I>] {
        let Some(from) = self.index(from) else { return &[] };
        let from = from.min(self.entries.len());
        &self.entries[from..self.entries.len().min(from.saturating_add(most))]
    }

    /// All entries that are here.
    #[must_use]
    pub fn entries(&self) -> &[Entry<I>] {
        &self.entries
    }

    pub(crate) fn push(&mut self, entry: Entry<I>) {
        self.entries.push(entry);
    }

    pub(crate) fn truncate(&mut self, end: u64) {
        self.entries.truncate(self.index(end).unwrap_or(0));
    }

    /// Forgets what is in front of `offset`.
    pub(crate) fn cut(&mut self, offset: u64) {
        let offset = offset.min(self.end());
        let Some(count) = self.index(offset).filter(|count| *count > 0) else { return };
        (self.base_epoch, self.base) = (self.epoch_before(offset), offset);
        self.entries.drain(..count);
    }
}
