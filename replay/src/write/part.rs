//! A file that has its name only once it is whole.

use super::OutputError;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes gathered before they go to the file.
const BUFFER_BYTES: usize = 256 << 10;

/// A file under construction. Text comes record by record through [`Part::record`]; encoders that do their own framing
/// write through [`Write`].
pub(super) struct Part {
    file: File,
    path: PathBuf,
    part: PathBuf,
    buffer: Vec<u8>,
    /// Bytes in the file, always up to the end of a record.
    bytes: u64,
}

impl Part {
    pub(super) fn create(path: &Path) -> Result<Self, OutputError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file =
            File::create(&part).map_err(|source| OutputError::Create { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), part, buffer: Vec::with_capacity(BUFFER_BYTES), bytes: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record, whole or not at all.
    pub(super) fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), OutputError> {
        write(&mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES { self.empty() } else { Ok(()) }
    }

    fn empty(&mut self) -> Result<(), OutputError> {
        if let Err(error) = self.file.write_all(&self.buffer) {
            // The buffer ends with a record and began with one. Cutting back needs no space.
            let _ = self.file.set_len(self.bytes);
            self.buffer.clear();
            return Err(OutputError::from_write(&self.part, self.bytes, error));
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Puts everything on the disk and gives the file its name; returns its bytes.
    pub(super) fn finish(mut self) -> Result<u64, OutputError> {
        self.empty()?;
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.part, &self.path))
            .map_err(|source| OutputError::from_write(&self.part, self.bytes, source))?;
        Ok(self.bytes)
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let mut part = Part::create(&path).unwrap();
        for _ in 0..100_000 {
            part.record(|row| row.extend_from_slice(b"a,b\n")).unwrap();
        }
        assert!(!path.exists());
        let kept = std::fs::read(folder.path().join("x.csv.part")).unwrap();
        assert!(kept.len() > BUFFER_BYTES / 2 && kept.ends_with(b"a,b\n"));
        assert_eq!(part.finish().unwrap(), 400_000);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 400_000);
        let missing = Part::create(&folder.path().join("none/x.csv")).err().unwrap();
        assert!(matches!(missing, OutputError::Create { .. }));
    }
}
