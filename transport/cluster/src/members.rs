//! Keeps the links, and the file of a node's folder, as metadata has who belongs to the cluster.

use crate::copies::Held;
use crate::links::Links;
use crate::metadata::Consensus;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_replica::Book;

/// Between two attempts to write the file.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows for as long as there is metadata.
pub(crate) async fn follow(dir: PathBuf, links: Arc<Links>, consensus: Consensus) {
    let (mut state, mut parties) = (consensus.state(), consensus.parties());
    loop {
        let mut book: Book = state.borrow_and_update().book.clone();
        {
            // Who has left is heard as long as the others need its vote to let it go.
            let parties = parties.borrow_and_update();
            book.left.retain(|node| !parties.contains(&u64::from(*node)));
        }
        let mut written = true;
        let known = links.config();
        let followed = known.following(&book);
        let moved = Held::has_moved(&dir).then(|| followed.as_ref().unwrap_or(&known).moved()).flatten();
        if let Some(config) = moved.or(followed) {
            let (path, copy) = (dir.clone(), config.clone());
            links.follow(config);
            let wrote = tokio::task::spawn_blocking(move || copy.write(&path)).await;
            written = wrote.is_ok_and(|wrote| wrote.is_ok());
        }
        while !written {
            tokio::time::sleep(AGAIN).await;
            let (path, config) = (dir.clone(), links.config());
            let wrote = tokio::task::spawn_blocking(move || config.write(&path)).await;
            written = wrote.is_ok_and(|wrote| wrote.is_ok());
        }
        let changed = tokio::select! {
            changed = state.changed() => changed,
            changed = parties.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
