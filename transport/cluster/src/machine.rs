//! What replicas replicate: the input log, and the digest that tells whether two of them took in the same.

use bytes::Bytes;
use tidegate_live::Plain;
use tidegate_live::replication::Input;
use tidegate_replica::{Body, Machine, Message};
use xxhash_rust::xxh3::Xxh3;

/// A chain over all inputs so far, packed ones as what they stand for: the digest that the log holds now and then.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    chain: u64,
    plain: Plain,
}

impl Clone for Inputs {
    fn clone(&self) -> Self {
        Self::behind(self.chain)
    }
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Inputs {}

impl Inputs {
    /// Behind inputs with this digest.
    pub(crate) fn behind(chain: u64) -> Self {
        Self { chain, plain: Plain::default() }
    }
}

impl Machine for Inputs {
    type Input = Bytes;

    fn apply(&mut self, input: &Bytes) {
        let mut chain = Xxh3::with_seed(self.chain);
        self.plain.pieces(input, |piece| chain.update(piece));
        self.chain = chain.digest();
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

/// An input with one trade, packed and as it is.
#[cfg(test)]
pub(crate) fn packed_and_plain() -> [Bytes; 2] {
    let mut packed = vec![1, 0, 0, 0, 1, 0, 0, 0];
    packed.extend([9, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // One key has a name, there is one event, of kind 1, its time is the base, nothing is divided; its words are 2 and 7.
    packed.extend([1, 0, 0, 0, 1, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packed.extend([0, 0, 4, 0, 7, 0, 0, 0]);
    let mut plain = vec![1, 0, 0, 0, 0, 0, 0, 0];
    plain.extend([3, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    plain.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    plain.extend([5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    plain.extend([2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    [packed.into(), plain.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    #[test]
    fn a_digest_does_not_tell_who_packed() {
        let [packed, plain] = packed_and_plain();
        let digest = |inputs: [&Bytes; 2]| {
            let mut machine = Inputs::behind(3);
            inputs.into_iter().for_each(|input| machine.apply(input));
            machine.digest()
        };
        assert!(
            packed != plain && [&packed, &plain].into_iter().all(|input| Input::check(input.clone()).is_ok())
        );
        assert_eq!(digest([&packed, &plain]), digest([&plain, &packed]));
        assert_eq!(digest([&packed, &packed]), digest([&plain, &plain]));
        // As the version before computes it.
        assert_eq!(digest([&packed, &packed]), xxh3_64_with_seed(&plain, xxh3_64_with_seed(&plain, 3)));
    }
}
