//! The pages of a Parquet column before anything of them is decoded: a header decides how much memory its page takes, and
//! nobody vouches for it.
//!
//! **Invariant:** of a row group that passes, no page unpacks to more than [`PAGE_BYTES_MAX`], and no column to more than
//! [`BATCH_BYTES_MAX`] for one batch of rows.

use super::parquet::Store;
use crate::source::Place;
use ::parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use ::parquet::file::reader::{ChunkReader, Length};
use std::collections::VecDeque;
use std::io::Read;

/// Most bytes a page may unpack to. Writers aim at 1 MiB; the largest bound among them is DuckDB's, 100 MB.
pub(super) const PAGE_BYTES_MAX: u64 = 128 << 20;
/// Most bytes of the pages that hold one batch of rows of a column, the dictionary included.
pub(super) const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of a page's header: its statistics may hold the two longest values of a column.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// How deep a header's structures may nest; the format has three.
const DEPTH_MAX: u32 = 8;

/// Why a row group is not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The library's word; the place is the row it was to give next.
    Damaged(String),
    /// Damaged at a byte of the file.
    DamagedAt(Place, String),
    /// A limit, at a byte of the file.
    Limit(Place, String),
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

/// What a page's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Page {
    header: u64,
    packed: u64,
    unpacked: u64,
    /// Of data pages; a dictionary has none that count.
    values: u64,
    is_dictionary: bool,
}

/// Checks the chunks and page headers of the columns wanted, for batches of `batch_rows`.
pub(super) fn check(
    store: &Store,
    group: &RowGroupMetaData,
    batch_rows: u64,
    wanted: impl Fn(usize) -> bool,
) -> Result<(), Trouble> {
    let columns = group.columns().iter().enumerate().filter(|(at, _)| wanted(*at));
    columns.into_iter().try_for_each(|(_, column)| check_column(store, column, batch_rows))
}

fn check_column(store: &Store, column: &ColumnChunkMetaData, batch_rows: u64) -> Result<(), Trouble> {
    let name = column.column_path().string();
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let bounds = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
    let end = bounds.and_then(|(start, length)| start.checked_add(length));
    let (Some((start, _)), Some(end)) = (bounds, end.filter(|&end| end <= store.len())) else {
        let length = column.compressed_size();
        let reason =
            format!("column `{name}` is said to be {length} bytes long, in a file of {}", store.len());
        return Err(Trouble::DamagedAt(Place::Byte(u64::try_from(start).unwrap_or(0)), reason));
    };
    let (mut at, mut values) = (start, 0u64);
    // The dictionary, and the pages that the next batch may need: all but the first have fewer values than a batch.
    let (mut dictionary, mut pages, mut held) = (0, VecDeque::new(), (0u64, 0u64));
    while at < end {
        let page = match read_page(store, at, end)? {
            Some(page) if at + page.header + page.packed <= end => page,
            // Some writers pad. What the values do not need the library refuses by itself, should it come so far.
            _ if values >= u64::try_from(column.num_values()).unwrap_or(0) => return Ok(()),
            _ => {
                let reason =
                    format!("no page header of column `{name}` that keeps within its {} bytes", end - start);
                return Err(Trouble::DamagedAt(Place::Byte(at), reason));
            }
        };
        if page.unpacked > PAGE_BYTES_MAX {
            let reason = format!(
                "a page of column `{name}` unpacks to {} bytes; {PAGE_BYTES_MAX} are allowed",
                page.unpacked
            );
            return Err(Trouble::Limit(Place::Byte(at), reason));
        }
        if page.is_dictionary {
            dictionary = page.unpacked;
        } else {
            pages.push_back((page.values, page.unpacked));
            held = (held.0 + page.values, held.1 + page.unpacked);
            while let Some(&(first, bytes)) = pages.front()
                && held.0 - first >= batch_rows
            {
                pages.pop_front();
                held = (held.0 - first, held.1 - bytes);
            }
            values += page.values;
        }
        if dictionary + held.1 > BATCH_BYTES_MAX {
            let reason = format!(
                "{batch_rows} rows of column `{name}` unpack to {} bytes; {BATCH_BYTES_MAX} are allowed",
                dictionary + held.1
            );
            return Err(Trouble::Limit(Place::Byte(at), reason));
        }
        at += page.header + page.packed;
    }
    Ok(())
}

/// The header at `at`; `None` when there is none before `end`.
fn read_page(store: &Store, at: u64, end: u64) -> Result<Option<Page>, Trouble> {
    let mut length = 256;
    loop {
        let length_now = (end - at).min(length);
        let mut bytes = Vec::new();
        let read = store.get_read(at).map_err(|error| error.to_string())?;
        read.take(length_now).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if let Some(page) = page(&bytes) {
            return Ok(Some(page));
        }
        if length_now < length || length >= HEADER_BYTES_MAX {
            return Ok(None);
        }
        length *= 64;
    }
}

/// Reads a header in Thrift's compact protocol; `None` when it is none, or goes on behind `bytes`.
fn page(bytes: &[u8]) -> Option<Page> {
    let mut thrift = Thrift { bytes, at: 0 };
    let mut page = Page::default();
    let (mut unpacked, mut packed) = (None, None);
    let mut id = 0;
    while let Some(kind) = thrift.field(&mut id)? {
        match (id, kind) {
            (2, I32) => unpacked = Some(thrift.number()?),
            (3, I32) => packed = Some(thrift.number()?),
            // The first field of either kind of data page is its number of values.
            (5 | 8, STRUCT) => {
                let mut inner = 0;
                while let Some(kind) = thrift.field(&mut inner)? {
                    match (inner, kind) {
                        (1, I32) => page.values = u64::try_from(thrift.number()?).ok()?,
                        _ => thrift.skip(kind, DEPTH_MAX)?,
                    }
                }
            }
            (7, STRUCT) => {
                page.is_dictionary = true;
                thrift.skip(STRUCT, DEPTH_MAX)?;
            }
            _ => thrift.skip(kind, DEPTH_MAX)?,
        }
    }
    page.unpacked = u64::try_from(unpacked?).ok()?;
    page.packed = u64::try_from(packed?).ok()?;
    page.header = thrift.at as u64;
    Some(page)
}

const I32: u8 = 5;
const STRUCT: u8 = 12;

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Type of the next field, and its number in `id`; `Some(None)` at the end of the structure.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *id = match byte >> 4 {
            0 => self.number()?,
            delta => id.checked_add(delta.into())?,
        };
        Some(Some(byte & 0xf))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.pass(8)?,
            8 => {
                let length = self.varint()?;
                self.pass(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..count {
                    match head & 0xf {
                        // Within a list a boolean takes a byte.
                        1 | 2 => drop(self.byte()?),
                        kind => self.skip(kind, depth)?,
                    }
                }
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth)?;
                }
            }
            // A map: the format's headers have none.
            _ => return None,
        }
        Some(())
    }

    fn pass(&mut self, count: u64) -> Option<()> {
        let at = self.at.checked_add(usize::try_from(count).ok()?)?;
        (at <= self.bytes.len()).then(|| self.at = at)
    }
}

#[cfg(test)]
pub(super) mod forge {
    use super::{Thrift, page};

    fn varint(number: i64) -> Vec<u8> {
        let mut value = ((number << 1) ^ (number >> 63)) as u64;
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// Makes the page at `at` say that it unpacks to `unpacked` bytes. What the header grows by the page loses, so that
    /// everything behind it stays where the footer says.
    pub(in super::super) fn unpacks_to(file: &mut Vec<u8>, at: usize, unpacked: i64) {
        let old = page(&file[at..]).expect("a header");
        let mut thrift = Thrift { bytes: &file[at..], at: 0 };
        let mut id = 0;
        let mut head = Vec::new();
        for field in 1..=3 {
            assert!(thrift.field(&mut id).flatten().is_some() && id == field);
            let number = thrift.number().expect("a number");
            head.extend([vec![0x15], varint(if field == 2 { unpacked } else { number })].concat());
        }
        let grown = head.len() - thrift.at;
        let packed = varint(old.packed as i64 - grown as i64);
        let length = varint(old.packed as i64).len();
        assert_eq!(packed.len(), length, "the page is large enough");
        let place = head.len() - length;
        head[place..].copy_from_slice(&packed);
        let rest = at + thrift.at;
        let page_end = at + (old.header + old.packed) as usize;
        head.extend_from_slice(&file[rest..page_end - grown]);
        file.splice(at..page_end, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(page) = page(&bytes) {
                prop_assert!(page.header <= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn a_list_that_claims_more_than_there_is_ends() {
        // Field 9, a list of 2^60 structures.
        let bytes = [0x99, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(page(&bytes), None);
    }
}
