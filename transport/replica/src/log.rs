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

/// Entries from offset 0 on. A pair of (offset, epoch) names all entries up to it: two logs that agree on one pair agree on
/// everything before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log<I>(Vec<Entry<I>>);

impl<I> Default for Log<I> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<I: Clone> Log<I> {
    /// A log with these entries.
    #[must_use]
    pub fn of(entries: Vec<Entry<I>>) -> Self {
        Self(entries)
    }

    /// Offset behind the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.len() as u64
    }

    /// Epoch of the entry in front of `offset`; 0 in front of the first.
    #[must_use]
    pub fn epoch_before(&self, offset: u64) -> u32 {
        let before = offset.checked_sub(1).and_then(|at| self.0.get(usize::try_from(at).ok()?));
        before.map_or(0, |entry| entry.epoch)
    }

    /// Where the run of entries of one epoch begins that ends in front of `offset`.
    #[must_use]
    pub fn run_start(&self, offset: u64) -> u64 {
        let (mut at, epoch) = (offset.min(self.end()), self.epoch_before(offset));
        while at > 0 && self.epoch_before(at) == epoch {
            at -= 1;
        }
        at
    }

    /// Entries from `from` on, `most` of them at most.
    #[must_use]
    pub fn slice(&self, from: u64, most: usize) -> &[Entry<I>] {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.0.len());
        &self.0[from..self.0.len().min(from.saturating_add(most))]
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry<I>] {
        &self.0
    }

    pub(crate) fn push(&mut self, entry: Entry<I>) {
        self.0.push(entry);
    }

    pub(crate) fn truncate(&mut self, end: u64) {
        self.0.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    }
}
