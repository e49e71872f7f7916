//! Keys of Ed25519, in the files that `openssl` writes and reads as well.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What precedes the 32 bytes of a public key in its file: SubjectPublicKeyInfo of Ed25519 (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Most keys of a file.
const KEYS_MAX: usize = 64;

/// Why a text holds no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no such PEM section.
    #[error("there is no section `{wanted}`; it has {found}")]
    Section {
        /// The section looked for.
        wanted: &'static str,
        /// Sections there are.
        found: String,
    },
    /// The section is no key of Ed25519.
    #[error("the section `{0}` holds no key of Ed25519; `tidegate token keygen` makes one")]
    NotEd25519(&'static str),
    /// More keys than there may be.
    #[error("{0} keys, allowed are 1 to {KEYS_MAX}")]
    TooMany(usize),
    /// The system's random numbers failed.
    #[error("no key could be made")]
    Make,
}

fn sections(text: &[u8], wanted: &'static str) -> Result<Vec<Vec<u8>>, KeyError> {
    let all = pem::parse_many(text).unwrap_or_default();
    let found: Vec<_> =
        all.iter().filter(|one| one.tag() == wanted).map(|one| one.contents().to_vec()).collect();
    if found.is_empty() {
        let mut tags: Vec<String> = all.iter().take(4).map(|one| format!("`{}`", one.tag())).collect();
        if tags.is_empty() {
            tags.push("none".to_owned());
        }
        return Err(KeyError::Section { wanted, found: tags.join(", ") });
    }
    Ok(found)
}

/// The half of a key that everybody may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub(crate) [u8; 32]);

impl PublicKey {
    /// The keys of a PEM file, in sections `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`KeyError`] when there is none, too many, or one of another kind.
    pub fn all_of_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        const WANTED: &str = "PUBLIC KEY";
        let found = sections(text, WANTED)?;
        if found.len() > KEYS_MAX {
            return Err(KeyError::TooMany(found.len()));
        }
        let key = |der: Vec<u8>| {
            let raw = der.strip_prefix(&SPKI_HEAD).and_then(|raw| raw.try_into().ok());
            raw.map(Self).ok_or(KeyError::NotEd25519(WANTED))
        };
        found.into_iter().map(key).collect()
    }

    /// As a PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PUBLIC KEY", [&SPKI_HEAD[..], &self.0].concat()))
    }

    /// Its thumbprint (RFC 7638, RFC 8037): how tokens name the key that signed them.
    #[must_use]
    pub fn id(&self) -> String {
        let text = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x());
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
    }

    pub(crate) fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    pub(crate) fn of_x(x: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(x).ok()?.try_into().ok().map(Self)
    }

    /// Whether this key made the signature.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// A key that signs: of whoever issues tokens, or of whoever holds one.
pub struct SigningKey(pub(crate) Ed25519KeyPair);

impl std::fmt::Debug for SigningKey {
    /// By its public half: what is printed is read by others.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::Make`] when the system has no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| KeyError::Make)
    }

    /// The key of a PEM file, in a section `PRIVATE KEY` (PKCS #8).
    ///
    /// # Errors
    /// [`KeyError`] when there is none or one of another kind.
    pub fn of_pem(text: &[u8]) -> Result<Self, KeyError> {
        const WANTED: &str = "PRIVATE KEY";
        let found = sections(text, WANTED)?;
        let [der] = found.as_slice() else { return Err(KeyError::TooMany(found.len())) };
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self).map_err(|_| KeyError::NotEd25519(WANTED))
    }

    /// As a PEM file, for its owner's eyes only.
    ///
    /// # Errors
    /// [`KeyError::Make`] when the key cannot be encoded.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der = self.0.to_pkcs8v1().map_err(|_| KeyError::Make)?;
        Ok(pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref())))
    }

    /// The half that everybody may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(raw)
    }

    pub(crate) fn seed(&self) -> Result<String, KeyError> {
        let seed = self.0.seed().and_then(|seed| seed.as_be_bytes());
        Ok(URL_SAFE_NO_PAD.encode(seed.map_err(|_| KeyError::Make)?.as_ref()))
    }

    pub(crate) fn of_seed(seed: &str, public: &PublicKey) -> Option<Self> {
        let seed = URL_SAFE_NO_PAD.decode(seed).ok()?;
        Ed25519KeyPair::from_seed_and_public_key(&seed, &public.0).ok().map(Self)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_files() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::of_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(key.public(), again.public());
        let other = SigningKey::generate().unwrap().public();
        let both = key.public().to_pem() + &other.to_pem();
        assert_eq!(PublicKey::all_of_pem(both.as_bytes()).unwrap(), [key.public(), other]);
        let signature = key.sign(b"text");
        assert!(key.public().verifies(b"text", &signature));
        assert!(!key.public().verifies(b"texT", &signature) && !other.verifies(b"text", &signature));
    }

    #[test]
    fn a_key_of_openssl_is_one() {
        // openssl genpkey -algorithm ed25519, and openssl pkey -pubout: RFC 8410, section 10.
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let key = SigningKey::of_pem(private.as_bytes()).unwrap();
        assert_eq!(PublicKey::all_of_pem(public.as_bytes()).unwrap(), [key.public()]);
        // The thumbprint of RFC 8037, appendix A.3.
        let known = PublicKey::of_x("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(known.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_is_no_key_is_named() {
        let error = |text: &str| PublicKey::all_of_pem(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("nothing"), "there is no section `PUBLIC KEY`; it has none");
        let private = SigningKey::generate().unwrap().to_pem().unwrap();
        assert_eq!(error(&private), "there is no section `PUBLIC KEY`; it has `PRIVATE KEY`");
        let short = pem::encode(&pem::Pem::new("PUBLIC KEY", &SPKI_HEAD[..]));
        assert!(error(&short).starts_with("the section `PUBLIC KEY` holds no key of Ed25519"));
        assert!(SigningKey::of_pem(short.as_bytes()).is_err());
    }
}
