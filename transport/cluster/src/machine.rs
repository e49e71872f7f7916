//! What replicas replicate: the input log, and the digest that tells whether two of them took in the same.

use bytes::Bytes;
use tidegate_live::replication::Input;
use tidegate_replica::{Body, Machine, Message};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A chain over all inputs so far: the digest that the log holds now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    chain: u64,
}

impl Inputs {
    /// Behind inputs with this digest.
    pub(crate) fn behind(chain: u64) -> Self {
        Self { chain }
    }
}

impl Machine for Inputs {
    type Input = Bytes;

    fn apply(&mut self, input: &Bytes) {
        self.chain = xxh3_64_with_seed(input, self.chain);
    }

    fn digest(&self) -> u64 {
        self.chain
    }

    fn bytes(input: &Bytes) -> usize {
        input.len()
    }
}

/// Whether every input in a message is one that an engine can take.
pub(crate) fn check(message: &Message<Bytes>) -> Result<(), String> {
    let Message::Append(append) = message else { return Ok(()) };
    for entry in &append.entries {
        if let Body::Input { input, .. } = &entry.body {
            Input::check(input.clone()).map_err(|error| format!("an input that is none: {error}"))?;
        }
    }
    Ok(())
}
