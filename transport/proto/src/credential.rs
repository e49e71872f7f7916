//! What a client shows of itself, and the versions of the protocol that go with it.

use crate::close::{Close, CloseCode};
use crate::frame::{Credential, Hello};
use crate::wire::{
    PROOF_BYTES, PROTOCOL_CREDENTIAL, PROTOCOL_GROUPS, PROTOCOL_MAX, PROTOCOL_MIN, TOKEN_BYTES_MAX,
};
use std::ops::RangeInclusive;

/// What a client's next HELLO shows.
#[derive(Clone, Default)]
pub(crate) struct Shown(Option<([u8; PROOF_BYTES], Box<[u8]>)>);

impl std::fmt::Debug for Shown {
    /// Without the token: what is printed is read by others.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Shown(token)" } else { "Shown(nothing)" })
    }
}

impl Shown {
    pub(crate) fn new(credential: Option<Credential<'_>>) -> Self {
        Self(credential.map(|Credential { proof, token }| {
            assert!((1..=TOKEN_BYTES_MAX).contains(&token.len()), "tokens have 1 to {TOKEN_BYTES_MAX} bytes");
            (*proof, token.into())
        }))
    }

    pub(crate) fn credential(&self) -> Option<Credential<'_>> {
        self.0.as_ref().map(|(proof, token)| Credential { proof, token })
    }

    /// Versions to offer for a session of this group: a server that cannot read a credential must not take the connection for somebody
    /// else's, nor one that knows of no groups for the only one's.
    pub(crate) fn versions(&self, group: Option<u16>) -> RangeInclusive<u8> {
        let least = match (group, &self.0) {
            (Some(_), _) => PROTOCOL_GROUPS,
            (None, Some(_)) => PROTOCOL_CREDENTIAL,
            (None, None) => PROTOCOL_MIN,
        };
        least..=PROTOCOL_MAX
    }
}

/// The version that both speak: the highest in common, where the server's is `most`.
pub(crate) fn agreed(hello: &Hello<'_>, most: u8) -> Result<u8, Close> {
    let (min, max) = (hello.version_min, hello.version_max);
    if min > most || max < PROTOCOL_MIN {
        let reason =
            format!("versions {min} to {max} were offered, this server speaks {PROTOCOL_MIN} to {most}");
        return Err(Close::new(CloseCode::VERSION, reason));
    }
    Ok(max.min(most))
}
