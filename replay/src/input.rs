//! Any input by its path: our own captures and every foreign format alike.

use crate::capture::{CaptureReader, MAGIC};
use crate::decode::{ReadOptions, open};
use crate::source::{ReadError, Source};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens a file as whatever it is. A capture is told by its first eight bytes, or by its name where these are broken;
/// `options.from` and `options.to` then use its index. Everything else is [`open`]'s to tell.
///
/// # Errors
/// As [`CaptureReader::open`] and [`open`].
pub fn open_input(path: &Path, options: &ReadOptions) -> Result<Box<dyn Source>, ReadError> {
    if options.format.is_some() || !is_capture(path)? {
        return open(path, options);
    }
    let reader = CaptureReader::open(path)?;
    if options.from.is_none() && options.to.is_none() {
        return Ok(Box::new(reader));
    }
    let from = options.from.map_or(0, |ts| ts.0);
    let to = options.to.map_or(u64::MAX, |ts| ts.0);
    Ok(Box::new(reader.between(from, to)))
}

fn is_capture(path: &Path) -> Result<bool, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mut head = Vec::with_capacity(MAGIC.len());
    File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head)).map_err(io)?;
    // An empty file is nothing, whatever its name.
    let named = path.extension().is_some_and(|extension| extension == "tgc") && !head.is_empty();
    Ok(head == MAGIC || named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureOptions, CaptureWriter};
    use tidegate_engine::{Event, EventTime, Price, Size};

    fn count(path: &Path, options: &ReadOptions) -> usize {
        let mut source = open_input(path, options).unwrap();
        let mut events = Vec::new();
        while source.read(&mut events, 1_000).unwrap() > 0 {}
        events.len()
    }

    #[test]
    fn captures_and_tables_open_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (capture, table) = (folder.path().join("x"), folder.path().join("y.csv"));
        let mut writer = CaptureWriter::create(&capture, CaptureOptions::default()).unwrap();
        let key = writer.define("A").unwrap();
        let trade = |ts| Event::trade(ts, key, 0, Price(1), Size(1), 0);
        writer.push(&[trade(10), trade(20), trade(30)]).unwrap();
        writer.finish().unwrap();
        std::fs::write(&table, "ts,price,size\n10,1,1\n20,1,1\n").unwrap();
        assert_eq!(count(&capture, &ReadOptions::default()), 3);
        assert_eq!(count(&table, &ReadOptions::default()), 2);
        let options = ReadOptions { from: Some(EventTime(20)), to: None, ..ReadOptions::default() };
        assert_eq!(count(&capture, &options), 2);
        let options = ReadOptions { from: None, to: Some(EventTime(20)), ..ReadOptions::default() };
        assert_eq!(count(&capture, &options), 1);
    }

    #[test]
    fn what_is_no_capture_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tgc");
        let error = |path: &Path| open_input(path, &ReadOptions::default()).err().unwrap().to_string();
        assert!(error(&path).contains("cannot read"));
        std::fs::write(&path, b"").unwrap();
        assert!(error(&path).contains("it is empty"));
        std::fs::write(&path, &MAGIC[..5]).unwrap();
        assert!(error(&path).contains("ends inside its header"));
        assert!(error(folder.path()).contains("cannot read"));
    }
}
