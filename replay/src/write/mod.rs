//! Results and trades out: CSV, JSON lines, Parquet.
//!
//! **Invariant:** a file under its final name is whole. While it is written it is called `NAME.part`; if writing stops
//! half-way, a `.part` of text is cut back to its last whole record.

mod cells;
mod csv;
mod hold;
mod jsonl;
mod parquet;
mod part;
mod results;
mod row;
mod rows;
mod trades;

pub use cells::{CellValue, Cells};
pub use results::{BarRows, FileSummary, ResultFormat, ResultWriter, Revisions};
pub use rows::{RowText, Rows};
pub use trades::{TradeFormat, TradeSummary, TradeWriter};

use std::path::{Path, PathBuf};

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The file or its folder cannot be created.
    #[error("cannot create `{}`", path.display())]
    Create {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// There is no room left.
    #[error("no space left for `{}`; whole records up to byte {bytes} are kept", path.display())]
    Full {
        /// The file being written.
        path: PathBuf,
        /// Bytes of it that are good.
        bytes: u64,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused a write.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file being written.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
    /// A table could not be encoded.
    #[error("cannot encode `{}`: {reason}", path.display())]
    Encode {
        /// The file being written.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
}

impl OutputError {
    fn from_write(path: &Path, bytes: u64, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full { path, bytes, source }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// Writes a field, quoted where it must be.
fn csv_field(text: &str, row: &mut Vec<u8>) {
    if text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        row.push(b'"');
        row.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        row.push(b'"');
    } else {
        row.extend_from_slice(text.as_bytes());
    }
}
