//! Tokens: who somebody is and what they may do, said by whoever holds a signing key, for a few minutes and one audience.
//!
//! A token is a JSON Web Token (RFC 7519) signed with Ed25519. It is *bound*: it names the public half of a key of its holder
//! (`cnf`, RFC 7800), and is good only together with a proof, a signature by that key over a value that both ends of one TLS
//! connection derive and nobody else (RFC 9266). So a token that was seen, logged or stolen on its way opens nothing, and the
//! holder can reconnect as often as it must while the token lasts: no list of used tokens is kept, and none can overflow.
//!
//! JWT rather than PASETO: gateways, identity providers and every language know it, and its well-known trap, the choice of
//! algorithms, is closed here: one is taken, EdDSA, and keys are found by their thumbprint. The library `jsonwebtoken` does
//! the encoding over the same aws-lc that TLS uses; the libraries for PASETO would bring a second implementation of Ed25519.
//!
//! **Invariant:** no clock, file or socket; time, text and the channel's value come in as arguments. What a peer sends ends in
//! a [`TokenError`], and costs at most two signatures to check.
#![forbid(unsafe_code)]

pub mod keys;
pub mod token;

mod credential;

pub use credential::{CHANNEL_BYTES, CHANNEL_LABEL, Credential, CredentialError};
pub use keys::{KeyError, PublicKey, SigningKey};
pub use token::{Narrow, TokenError, TokenLimits, TokenRequest, TokenVerifier, Verified};
