//! Where the public data is.

use std::path::{Path, PathBuf};

/// A folder of it: below TIDEGATE_DATA, or `../shared/data` beside the workspace. Without it tests say so and pass.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TIDEGATE_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let found = root.join(name);
    if !found.is_dir() {
        eprintln!("SKIPPED: no data at {}", found.display());
        return None;
    }
    Some(found)
}
