//! A token together with the key it is bound to: what a client keeps in a file and shows when it connects.

use crate::keys::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};
use tidegate_proto::wire::{PROOF_BYTES, TOKEN_BYTES_MAX};

/// Under which label both ends of a TLS connection derive the value that a proof is over (RFC 8446, section 7.5).
pub const CHANNEL_LABEL: &[u8] = b"EXPORTER-tidegate-credential-1";
/// Bytes of that value.
pub const CHANNEL_BYTES: usize = 32;
/// What a proof is over begins with this, so that the key signs nothing else by it.
const PROOF_HEAD: &[u8] = b"tidegate proof 1\0";

/// What a proof is over: this connection and this token.
pub(crate) fn proven(channel: &[u8; CHANNEL_BYTES], token: &[u8]) -> Vec<u8> {
    [PROOF_HEAD, channel, token].concat()
}

/// Why a file is no credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It is not the JSON that `tidegate token issue` writes.
    #[error("this is no credential as `tidegate token issue` writes it")]
    Json(#[source] serde_json::Error),
    /// The token has a length that none has.
    #[error("the token has {0} bytes, allowed are 1 to {TOKEN_BYTES_MAX}")]
    Length(usize),
    /// A token for plain bearers.
    #[error("the token comes without a key: it is for HTTP, and no proof can be made with it")]
    NoKey,
    /// The key is none.
    #[error("the key is none of Ed25519")]
    Key,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Jwk>,
}

/// A private key as RFC 8037 has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    d: String,
}

/// A token and the key of its holder.
#[derive(Debug)]
pub struct Credential {
    token: String,
    key: SigningKey,
}

impl Credential {
    pub(crate) fn new(token: String, key: SigningKey) -> Self {
        Self { token, key }
    }

    /// Reads what [`Credential::to_json`] wrote.
    ///
    /// # Errors
    /// [`CredentialError`] when it is something else.
    pub fn of_json(text: &[u8]) -> Result<Self, CredentialError> {
        let file: File = serde_json::from_slice(text).map_err(CredentialError::Json)?;
        if !(1..=TOKEN_BYTES_MAX).contains(&file.token.len()) {
            return Err(CredentialError::Length(file.token.len()));
        }
        let jwk = file.key.ok_or(CredentialError::NoKey)?;
        let public = PublicKey::of_x(&jwk.x).filter(|_| jwk.kty == "OKP" && jwk.crv == "Ed25519");
        let key =
            public.and_then(|public| SigningKey::of_seed(&jwk.d, &public)).ok_or(CredentialError::Key)?;
        Ok(Self { token: file.token, key })
    }

    /// As a file, for its holder's eyes only.
    ///
    /// # Errors
    /// [`CredentialError::Key`] when the key cannot be encoded.
    pub fn to_json(&self) -> Result<String, CredentialError> {
        let d = self.key.seed().map_err(|_| CredentialError::Key)?;
        let jwk = Jwk { kty: "OKP".to_owned(), crv: "Ed25519".to_owned(), x: self.key.public().x(), d };
        let file = File { token: self.token.clone(), key: Some(jwk) };
        serde_json::to_string(&file).map_err(CredentialError::Json)
    }

    /// The token. Whoever sees it can do nothing with it.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Shows on one connection, by the value derived from it, that the key is here.
    #[must_use]
    pub fn proof(&self, channel: &[u8; CHANNEL_BYTES]) -> [u8; PROOF_BYTES] {
        self.key.sign(&proven(channel, self.token.as_bytes()))
    }
}
