//! Which symbols something is of, by their names.

use std::collections::HashMap;
use std::sync::Arc;
use tidegate_live::{HubGone, HubHandle};

/// Names remembered; beyond it all are forgotten and asked for again.
const NAMES_MAX: usize = 1 << 20;

/// Names by hash, as the hub knows them.
#[derive(Default)]
pub(in crate::serve) struct Names {
    known: HashMap<u64, Arc<str>>,
}

impl Names {
    pub(in crate::serve) fn learn(&mut self, hash: u64, name: &str) {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(hash, name.into());
    }

    /// Asks for those that are not known yet.
    pub(in crate::serve) fn ask(&mut self, hub: &HubHandle, mut hashes: Vec<u64>) -> Result<(), HubGone> {
        hashes.retain(|hash| !self.known.contains_key(hash));
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.is_empty() {
            return Ok(());
        }
        let names = hub.names(hashes.clone())?;
        for (hash, name) in hashes.into_iter().zip(names) {
            // A name beyond the hub's bound stays unknown, and nothing is derived of it.
            if let Some(name) = name {
                self.learn(hash, &name);
            }
        }
        Ok(())
    }

    pub(in crate::serve) fn get(&self, hash: u64) -> Option<&Arc<str>> {
        self.known.get(&hash)
    }
}

/// Names, and beginnings of names.
#[derive(Debug, Clone)]
pub(super) struct Symbols {
    names: Vec<String>,
    prefixes: Vec<String>,
}

impl Symbols {
    pub(super) fn new(texts: &[String]) -> Self {
        let (prefixes, names): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.ends_with('*'));
        let prefixes = prefixes.iter().map(|text| text.trim_end_matches('*').to_owned()).collect();
        Self { names: names.into_iter().cloned().collect(), prefixes }
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_of_names() {
        let texts = ["BTC*", "ETHUSD"].map(str::to_owned);
        let symbols = Symbols::new(&texts);
        let covered = ["BTC", "BTCUSD", "ETHUSD", "ETHUSDT", "XBTC", ""].map(|name| symbols.covers(name));
        assert_eq!(covered, [true, true, true, false, false, false]);
        assert!(Symbols::new(&["*".to_owned()]).covers("anything") && !Symbols::new(&[]).covers("anything"));
    }
}
