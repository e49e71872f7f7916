//! Digest files: what a run came to and what it computed, so that a later run can be held against it.

use crate::exit::{Exit, Failure};
use crate::plan::{describe, from_description};
use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use std::path::Path;
use tidegate_engine::Digest;
use tidegate_replay::{LogOptions, Plan};

/// A digest as a file holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    /// One number over all slots.
    pub(crate) digest: String,
    /// Results digested.
    pub(crate) outputs: u64,
    /// What was computed, as text.
    pub(crate) settings: Value,
}

impl Recorded {
    pub(crate) fn of(digest: &Digest, plan: &Plan, log: &LogOptions) -> Self {
        Self { digest: digest.short(), outputs: digest.outputs(), settings: describe(plan, log) }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = json!({
            "tidegate_digest": 1, "digest": self.digest, "outputs": self.outputs, "settings": self.settings,
        });
        std::fs::write(path, format!("{text:#}\n"))
            .with_context(|| format!("cannot write `{}`", path.display()))
            .map_err(|error| Failure::new(Exit::Output, error))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let input = |error| Failure::new(Exit::Input, error);
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))
            .map_err(input)?;
        let no_digest = || {
            input(anyhow!(
                "`{}` is no digest; `tidegate replay --digest-out FILE` writes one",
                path.display()
            ))
        };
        let value: Value = serde_json::from_str(&text).map_err(|_| no_digest())?;
        match (value["tidegate_digest"].as_u64(), value["digest"].as_str(), value["outputs"].as_u64()) {
            (Some(1), Some(digest), Some(outputs)) => {
                Ok(Self { digest: digest.to_owned(), outputs, settings: value["settings"].clone() })
            }
            _ => Err(no_digest()),
        }
    }

    /// What the recorded run computed.
    pub(crate) fn plan(&self, path: &Path) -> Result<(Plan, LogOptions), Failure> {
        from_description(&self.settings).ok_or_else(|| {
            let error = anyhow!("`{}` does not say what was computed; say it with --bars", path.display());
            Failure::new(Exit::Input, error)
        })
    }
}
