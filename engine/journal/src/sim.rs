//! A disk in memory that does what disks do on bad days, the same for the same seed.

use crate::format::SECTOR_BYTES;
use crate::storage::Storage;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Random numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// True `part` times of `whole`.
    pub fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }
}

#[derive(Debug, Default)]
struct SimFile {
    /// What reads see.
    now: Vec<u8>,
    /// What would be there after a loss of power, apart from sectors in `dirty`.
    kept: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl SimFile {
    fn sector(bytes: &[u8], sector: usize) -> &[u8] {
        &bytes[sector * SECTOR_BYTES..bytes.len().min((sector + 1) * SECTOR_BYTES)]
    }

    /// Writes a sector to where it lasts.
    fn keep(&mut self, sector: usize) {
        let (start, end) = (sector * SECTOR_BYTES, self.now.len().min((sector + 1) * SECTOR_BYTES));
        self.kept[start..end].copy_from_slice(&self.now[start..end]);
    }
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, SimFile>,
    capacity: u64,
    /// Syncs until one fails; every later one says that all is well, as systems do.
    syncs_until_error: Option<u64>,
    syncs: u64,
}

/// Handle to a simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(State { capacity, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another size; smaller than what is on it means that nothing more fits.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The sync after `count` good ones fails; part of what it was to keep is lost then and never told again.
    pub fn fail_sync_after(&self, count: u64) {
        self.state().syncs_until_error = Some(count);
    }

    /// Syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The power goes: of each sector that was not synced, either the old or the new content is left.
    pub fn lose_power(&self, random: &mut Random) {
        for file in self.state().files.values_mut() {
            for sector in std::mem::take(&mut file.dirty) {
                if random.chance(1, 2) {
                    file.keep(sector);
                }
            }
            file.now.clone_from(&file.kept);
        }
    }

    /// Flips one bit of a segment, on the disk as in what is read.
    pub fn flip(&self, index: u64, bit: u64) {
        let mut state = self.state();
        if let Some(file) = state.files.get_mut(&index)
            && let Some(byte) = usize::try_from(bit / 8).ok().filter(|byte| *byte < file.now.len())
        {
            file.now[byte] ^= 1 << (bit % 8);
            file.kept[byte] ^= 1 << (bit % 8);
        }
    }

    /// What reads see of a segment.
    #[must_use]
    pub fn content(&self, index: u64) -> Option<Vec<u8>> {
        self.state().files.get(&index).map(|file| file.now.clone())
    }

    /// Puts a segment there, for good.
    pub fn put(&self, index: u64, bytes: Vec<u8>) {
        let file = SimFile { kept: bytes.clone(), now: bytes, dirty: BTreeSet::new() };
        self.state().files.insert(index, file);
    }
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.now.len() as u64).sum()
    }

    fn file(&mut self, index: u64) -> io::Result<&mut SimFile> {
        self.files.get_mut(&index).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Storage for SimDisk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn create(&mut self, index: u64, bytes: u64, header: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.used().saturating_add(bytes) > state.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut content = header.to_vec();
        content.resize(bytes as usize, 0);
        state.files.insert(index, SimFile { kept: content.clone(), now: content, dirty: BTreeSet::new() });
        Ok(())
    }

    fn bytes(&mut self, index: u64) -> io::Result<u64> {
        Ok(self.state().file(index)?.now.len() as u64)
    }

    fn read(&mut self, index: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let content = &state.file(index)?.now;
        let from = content.get(at as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write(&mut self, index: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(index)?;
        let (start, end) = (at as usize, at as usize + bytes.len());
        if end > file.now.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        file.now[start..end].copy_from_slice(bytes);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            if SimFile::sector(&file.now, sector) != SimFile::sector(&file.kept, sector) {
                file.dirty.insert(sector);
            }
        }
        Ok(())
    }

    fn sync(&mut self, index: u64) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        let fails = state.syncs_until_error == Some(0);
        state.syncs_until_error = state.syncs_until_error.and_then(|left| left.checked_sub(1));
        let file = state.file(index)?;
        for (at, sector) in std::mem::take(&mut file.dirty).into_iter().enumerate() {
            // Every other sector of a failed sync is lost, and no later sync looks at it again.
            if !fails || at % 2 == 1 {
                file.keep(sector);
            }
        }
        if fails { Err(io::Error::other("the device reports an error")) } else { Ok(()) }
    }

    fn clear(&mut self, index: u64, from: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let grows = bytes.saturating_sub(state.file(index)?.now.len() as u64);
        if state.used().saturating_add(grows) > state.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.file(index)?;
        file.now.truncate(from as usize);
        file.now.resize(bytes as usize, 0);
        file.kept.clone_from(&file.now);
        file.dirty.clear();
        Ok(())
    }

    fn remove(&mut self, index: u64) -> io::Result<()> {
        self.state().files.remove(&index).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}
