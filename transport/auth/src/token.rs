//! What a token says, how it is made, and when it is believed.

use crate::credential::{CHANNEL_BYTES, Credential, proven};
use crate::keys::{KeyError, PublicKey, SigningKey};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;
use tidegate_proto::access::{AccessError, Scope, Verb, check_principal};
use tidegate_proto::wire::{PROOF_BYTES, TOKEN_BYTES_MAX};

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than any.
    #[error("the token has {found} bytes, allowed are 1 to {TOKEN_BYTES_MAX}")]
    Length {
        /// Its length.
        found: usize,
    },
    /// No token, or one without what every token says.
    #[error("the token cannot be read: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// Signed in another way, or not at all.
    #[error("the token is signed by `{found}`, allowed is EdDSA alone")]
    Algorithm {
        /// The algorithm.
        found: String,
    },
    /// Signed with a key nobody here knows.
    #[error("the token is signed with the key `{id}`, which is not among the {known} this server takes")]
    UnknownKey {
        /// Thumbprint of the key.
        id: String,
        /// Keys known.
        known: usize,
    },
    /// Signed by somebody else, or changed.
    #[error("the token's signature is not of the key it names")]
    Signature,
    /// Its time is over.
    #[error("the token expired {ago_s} s ago")]
    Expired {
        /// How long, in seconds.
        ago_s: u64,
    },
    /// Its time has not come.
    #[error("the token is good in {in_s} s only; do the clocks agree?")]
    NotYet {
        /// How long, in seconds.
        in_s: u64,
    },
    /// It lives longer than tokens may.
    #[error("the token is good for {found_s} s, allowed are 1 to {max_s}")]
    Lifetime {
        /// How long, in seconds; 0 when it ends before it begins.
        found_s: u64,
        /// How long it may be.
        max_s: u64,
    },
    /// For others.
    #[error("the token is for {found}, this is `{expected}`")]
    Audience {
        /// Whom it is for.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// Its principal has no name that one can have.
    #[error("the token's `sub`: {0}")]
    Principal(#[source] AccessError),
    /// What it allows cannot be understood.
    #[error("the token's `tidegate`: {0}")]
    Scope(#[source] AccessError),
    /// Good for whoever has it, which is not enough here.
    #[error("the token is bound to no key (`cnf`), and this connection asks for one")]
    Unbound,
    /// Bound to a key, where no proof can be given.
    #[error("the token is bound to a key, which cannot be shown here; issue one with --bearer")]
    Bound,
    /// Shown by somebody without its key, or on another connection than the proof was made for.
    #[error("the proof is not of the token's key on this connection: the token was shown elsewhere before")]
    Proof,
}

/// Bounds on what is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLimits {
    /// How long a token may be good, in seconds: 1 to 86,400.
    pub lifetime_max_s: u64,
    /// How far clocks may be apart, in seconds: 0 to 300.
    pub skew_max_s: u64,
}

impl Default for TokenLimits {
    fn default() -> Self {
        Self { lifetime_max_s: 15 * 60, skew_max_s: 5 }
    }
}

impl TokenLimits {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`AccessError::Range`] for the first out of range.
    pub fn check(&self) -> Result<(), AccessError> {
        let check = |what, found: u64, min, max| {
            if (min..=max).contains(&found) {
                Ok(())
            } else {
                Err(AccessError::Range { what, found, min, max })
            }
        };
        check("lifetime_max_s", self.lifetime_max_s, 1, 86_400)?;
        check("skew_max_s", self.skew_max_s, 0, 300)
    }
}

/// What a token allows of what the rules allow its principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrow {
    /// What may be done.
    #[serde(default = "verbs")]
    pub verbs: Vec<Verb>,
    /// Streams: names, or beginnings of names as `bars.*`.
    #[serde(default = "all")]
    pub streams: Vec<String>,
    /// Symbols, likewise.
    #[serde(default = "all")]
    pub symbols: Vec<String>,
}

fn verbs() -> Vec<Verb> {
    Verb::ALL.to_vec()
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Default for Narrow {
    fn default() -> Self {
        Self { verbs: verbs(), streams: all(), symbols: all() }
    }
}

/// One or several, as JSON Web Tokens have audiences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Confirmation {
    jwk: Jwk,
}

/// The token's body. What else a token says is not ours, as RFC 7519 wants it.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    nbf: u64,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tidegate: Option<Narrow>,
}

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Who is to hold it.
    pub principal: String,
    /// For which servers.
    pub audience: String,
    /// From when it is good, in seconds since 1970.
    pub from_s: u64,
    /// How long it is good, in seconds.
    pub lifetime_s: u64,
    /// What it allows of what its principal may; `None` for all of it.
    pub narrow: Option<Narrow>,
}

impl SigningKey {
    fn sign_claims(&self, request: &TokenRequest, cnf: Option<Confirmation>) -> Result<String, TokenError> {
        let TokenRequest { principal, audience, from_s, lifetime_s, narrow } = request;
        check_principal(principal).map_err(TokenError::Principal)?;
        if let Some(Narrow { verbs, streams, symbols }) = narrow {
            Scope::new(verbs, streams, symbols).map_err(TokenError::Scope)?;
        }
        let claims = Claims {
            sub: principal.clone(),
            aud: Audience::One(audience.clone()),
            nbf: *from_s,
            exp: from_s.saturating_add(*lifetime_s),
            cnf,
            tidegate: narrow.clone(),
        };
        let header = Header { kid: Some(self.public().id()), ..Header::new(Algorithm::EdDSA) };
        let malformed = |_| TokenError::Malformed { reason: KeyError::Make.to_string() };
        let key =
            self.0.to_pkcs8v1().map_err(|_| TokenError::Malformed { reason: KeyError::Make.to_string() })?;
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(key.as_ref()));
        let token = token.map_err(malformed)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Length { found: token.len() });
        }
        Ok(token)
    }

    /// A token, and a new key that it is bound to.
    ///
    /// # Errors
    /// [`TokenError`] when the request cannot be put into one.
    pub fn issue(&self, request: &TokenRequest) -> Result<Credential, TokenError> {
        let malformed = |error: KeyError| TokenError::Malformed { reason: error.to_string() };
        let holder = SigningKey::generate().map_err(malformed)?;
        let jwk = Jwk { kty: "OKP".to_owned(), crv: "Ed25519".to_owned(), x: holder.public().x() };
        Ok(Credential::new(self.sign_claims(request, Some(Confirmation { jwk }))?, holder))
    }

    /// A token that is good for whoever has it, for HTTP, where nothing binds it to a connection.
    ///
    /// # Errors
    /// [`TokenError`] when the request cannot be put into one.
    pub fn issue_bearer(&self, request: &TokenRequest) -> Result<String, TokenError> {
        self.sign_claims(request, None)
    }
}

/// What a token that is believed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who it is.
    pub principal: String,
    /// What the token allows of what the rules allow.
    pub narrowed: Option<Scope>,
    /// Until when it is good, in seconds since 1970.
    pub until_s: u64,
}

/// Whose tokens are believed, by whom and for how long.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    keys: HashMap<String, DecodingKey>,
    audience: String,
    limits: TokenLimits,
    validation: Validation,
}

impl TokenVerifier {
    /// Believes tokens for `audience` that one of `keys` signed.
    #[must_use]
    pub fn new(keys: &[PublicKey], audience: &str, limits: TokenLimits) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times and audience are looked at here, with a time that is passed in and answers that name numbers.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let keys = keys.iter().map(|key| (key.id(), DecodingKey::from_ed_der(&key.0))).collect();
        Self { keys, audience: audience.to_owned(), limits, validation }
    }

    fn claims(&self, token: &[u8], now_s: u64) -> Result<(Claims, Verified), TokenError> {
        if !(1..=TOKEN_BYTES_MAX).contains(&token.len()) {
            return Err(TokenError::Length { found: token.len() });
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| unreadable(&error))?;
        if header.alg != Algorithm::EdDSA {
            return Err(TokenError::Algorithm { found: format!("{:?}", header.alg) });
        }
        if header.crit.is_some() {
            return Err(malformed("it asks for extensions (`crit`), and there are none here"));
        }
        let id = header.kid.unwrap_or_default();
        let Some(key) = self.keys.get(&id) else {
            let id = if id.is_empty() { "(none)" } else { &id };
            return Err(TokenError::UnknownKey { id: clean(id), known: self.keys.len() });
        };
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let claims = claims.map_err(|error| unreadable(&error))?.claims;
        self.times(&claims, now_s)?;
        let (one, several) = match &claims.aud {
            Audience::One(one) => (std::slice::from_ref(one), false),
            Audience::Some(some) => (some.as_slice(), true),
        };
        if !one.contains(&self.audience) {
            let found =
                if several { format!("{} others", one.len()) } else { format!("`{}`", clean(&one[0])) };
            return Err(TokenError::Audience { found, expected: self.audience.clone() });
        }
        check_principal(&claims.sub).map_err(TokenError::Principal)?;
        let narrowed = match &claims.tidegate {
            Some(Narrow { verbs, streams, symbols }) => {
                Some(Scope::new(verbs, streams, symbols).map_err(TokenError::Scope)?)
            }
            None => None,
        };
        let verified = Verified { principal: claims.sub.clone(), narrowed, until_s: claims.exp };
        Ok((claims, verified))
    }

    fn times(&self, claims: &Claims, now_s: u64) -> Result<(), TokenError> {
        let TokenLimits { lifetime_max_s, skew_max_s } = self.limits;
        let found_s = claims.exp.saturating_sub(claims.nbf);
        if !(1..=lifetime_max_s).contains(&found_s) {
            return Err(TokenError::Lifetime { found_s, max_s: lifetime_max_s });
        }
        if claims.nbf > now_s.saturating_add(skew_max_s) {
            return Err(TokenError::NotYet { in_s: claims.nbf - now_s });
        }
        if now_s >= claims.exp.saturating_add(skew_max_s) {
            return Err(TokenError::Expired { ago_s: now_s - claims.exp });
        }
        Ok(())
    }

    /// Believes a token that is bound to a key, shown with a proof on the connection whose derived value is `channel`.
    ///
    /// # Errors
    /// [`TokenError`] for the first thing that is not as it must be.
    pub fn bound(
        &self,
        token: &[u8],
        proof: &[u8; PROOF_BYTES],
        channel: &[u8; CHANNEL_BYTES],
        now_s: u64,
    ) -> Result<Verified, TokenError> {
        let (claims, verified) = self.claims(token, now_s)?;
        let Some(Confirmation { jwk }) = claims.cnf else { return Err(TokenError::Unbound) };
        let holder = PublicKey::of_x(&jwk.x).filter(|_| jwk.kty == "OKP" && jwk.crv == "Ed25519");
        let holder = holder.ok_or_else(|| malformed("`cnf` holds no key of Ed25519"))?;
        if !holder.verifies(&proven(channel, token), proof) {
            return Err(TokenError::Proof);
        }
        Ok(verified)
    }

    /// Believes a token that is good for whoever has it.
    ///
    /// # Errors
    /// [`TokenError`] for the first thing that is not as it must be.
    pub fn bearer(&self, token: &[u8], now_s: u64) -> Result<Verified, TokenError> {
        let (claims, verified) = self.claims(token, now_s)?;
        if claims.cnf.is_some() {
            return Err(TokenError::Bound);
        }
        Ok(verified)
    }
}

impl TokenVerifier {
    /// How long from `now_s` on a token would still be believed: to its end, and as far beyond as clocks may be apart.
    #[must_use]
    pub fn stands(&self, verified: &Verified, now_s: u64) -> Duration {
        Duration::from_secs(verified.until_s.saturating_add(self.limits.skew_max_s).saturating_sub(now_s))
    }
}

fn malformed(reason: &str) -> TokenError {
    TokenError::Malformed { reason: reason.to_owned() }
}

/// What a peer wrote, fit for a line of text.
fn clean(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

fn unreadable(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm { found: "another".to_owned() },
        ErrorKind::InvalidToken => malformed("it is not three parts with dots between"),
        ErrorKind::Json(error) => malformed(&clean(&error.to_string())),
        ErrorKind::Base64(error) => malformed(&clean(&error.to_string())),
        _ => malformed(&clean(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tidegate_proto::Quotas;
    use tidegate_proto::access::{Policy, Symbols};

    const NOW: u64 = 1_800_000_000;
    const CHANNEL: [u8; CHANNEL_BYTES] = [7; CHANNEL_BYTES];

    fn request() -> TokenRequest {
        TokenRequest {
            principal: "desk".into(),
            audience: "here".into(),
            from_s: NOW,
            lifetime_s: 300,
            narrow: None,
        }
    }

    struct Issuer {
        key: SigningKey,
        verifier: TokenVerifier,
    }

    fn issuer() -> Issuer {
        let (key, old) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let verifier = TokenVerifier::new(&[old.public(), key.public()], "here", TokenLimits::default());
        Issuer { key, verifier }
    }

    impl Issuer {
        fn shown(&self, credential: &Credential, now_s: u64) -> Result<Verified, TokenError> {
            let (token, proof) = (credential.token().as_bytes(), credential.proof(&CHANNEL));
            self.verifier.bound(token, &proof, &CHANNEL, now_s)
        }

        /// A token of any header and body, with a good signature.
        fn any(&self, header: &str, body: &str) -> String {
            let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
            let signature = self.key.sign(text.as_bytes());
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    #[test]
    fn a_token_is_good_in_its_time_and_for_its_audience() {
        let issuer = issuer();
        let credential = issuer.key.issue(&request()).unwrap();
        let good = Verified { principal: "desk".into(), narrowed: None, until_s: NOW + 300 };
        for (now_s, want) in [
            (NOW - 6, Err(TokenError::NotYet { in_s: 6 })),
            (NOW - 5, Ok(good.clone())),
            (NOW, Ok(good.clone())),
            (NOW + 304, Ok(good)),
            (NOW + 305, Err(TokenError::Expired { ago_s: 5 })),
            (u64::MAX, Err(TokenError::Expired { ago_s: u64::MAX - NOW - 300 })),
        ] {
            assert_eq!(issuer.shown(&credential, now_s), want, "at {now_s}");
        }
        let other = issuer.key.issue(&TokenRequest { audience: "there".into(), ..request() }).unwrap();
        let (found, expected) = ("`there`".to_owned(), "here".to_owned());
        assert_eq!(issuer.shown(&other, NOW), Err(TokenError::Audience { found, expected }));
        for (lifetime_s, found_s) in [(901, 901), (0, 0), (u64::MAX, u64::MAX - NOW)] {
            let long = issuer.key.issue(&TokenRequest { lifetime_s, ..request() }).unwrap();
            assert_eq!(issuer.shown(&long, NOW), Err(TokenError::Lifetime { found_s, max_s: 900 }));
        }
    }

    #[test]
    fn a_token_seen_by_others_opens_nothing() {
        let issuer = issuer();
        let credential = issuer.key.issue(&request()).unwrap();
        let token = credential.token().as_bytes();
        let proof = credential.proof(&CHANNEL);
        assert!(issuer.verifier.bound(token, &proof, &CHANNEL, NOW).is_ok());
        // Replayed on another connection, with its proof; or with a proof of a key that is not the token's.
        let elsewhere = [8; CHANNEL_BYTES];
        assert_eq!(issuer.verifier.bound(token, &proof, &elsewhere, NOW), Err(TokenError::Proof));
        let thief = Credential::new(credential.token().to_owned(), SigningKey::generate().unwrap());
        assert_eq!(issuer.shown(&thief, NOW), Err(TokenError::Proof));
        // The proof of one token does not carry another, even of the same key.
        let second = issuer.key.issue(&TokenRequest { principal: "boss".into(), ..request() }).unwrap();
        assert_eq!(
            issuer.verifier.bound(second.token().as_bytes(), &proof, &CHANNEL, NOW),
            Err(TokenError::Proof)
        );
        // Neither kind stands in for the other.
        assert_eq!(issuer.verifier.bearer(token, NOW), Err(TokenError::Bound));
        let bearer = issuer.key.issue_bearer(&request()).unwrap();
        assert!(issuer.verifier.bearer(bearer.as_bytes(), NOW).is_ok());
        assert_eq!(issuer.verifier.bound(bearer.as_bytes(), &proof, &CHANNEL, NOW), Err(TokenError::Unbound));
    }

    #[test]
    fn other_keys_and_other_algorithms_are_refused() {
        let issuer = issuer();
        let stranger = SigningKey::generate().unwrap();
        let credential = stranger.issue(&request()).unwrap();
        let id = stranger.public().id();
        assert_eq!(issuer.shown(&credential, NOW), Err(TokenError::UnknownKey { id, known: 2 }));
        // A stranger's signature under a known name.
        let id = issuer.key.public().id();
        let body = format!(r#"{{"sub":"desk","aud":"here","nbf":{NOW},"exp":{}}}"#, NOW + 60);
        let good = format!(r#"{{"alg":"EdDSA","kid":"{id}"}}"#);
        let other = Issuer { key: stranger, verifier: issuer.verifier.clone() }.any(&good, &body);
        assert_eq!(issuer.verifier.bearer(other.as_bytes(), NOW), Err(TokenError::Signature));
        assert!(issuer.verifier.bearer(issuer.any(&good, &body).as_bytes(), NOW).is_ok());
        // One letter of the body changed.
        let token = issuer.any(&good, &body);
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        parts[1] = URL_SAFE_NO_PAD.encode(body.replace("desk", "boss"));
        assert_eq!(issuer.verifier.bearer(parts.join(".").as_bytes(), NOW), Err(TokenError::Signature));
        // The public key as the secret of a keyed hash, and no signature at all.
        let hashed = issuer.any(&good.replace("EdDSA", "HS256"), &body);
        let found = "HS256".to_owned();
        assert_eq!(issuer.verifier.bearer(hashed.as_bytes(), NOW), Err(TokenError::Algorithm { found }));
        let none = issuer.any(&good.replace("EdDSA", "none"), &body);
        assert!(matches!(issuer.verifier.bearer(none.as_bytes(), NOW), Err(TokenError::Malformed { .. })));
        let crit = issuer.any(&good.replace('}', r#","crit":["b64"]}"#), &body);
        assert!(matches!(issuer.verifier.bearer(crit.as_bytes(), NOW), Err(TokenError::Malformed { .. })));
    }

    #[test]
    fn what_is_no_token_is_told() {
        let issuer = issuer();
        let head = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, issuer.key.public().id());
        let body =
            |rest: &str| format!(r#"{{"sub":"desk","aud":"here","nbf":{NOW},"exp":{}{rest}}}"#, NOW + 60);
        for (token, says) in [
            (String::new(), "the token has 0 bytes, allowed are 1 to 4032"),
            ("x".repeat(4_033), "the token has 4033 bytes, allowed are 1 to 4032"),
            ("garbage".into(), "the token cannot be read: it is not three parts with dots between"),
            ("a.b".into(), "the token cannot be read: it is not three parts"),
            ("\u{7f}..".into(), "the token cannot be read: "),
            (issuer.any("{}", "{}"), "the token cannot be read: missing field `alg`"),
            (issuer.any(r#"{"alg":"EdDSA"}"#, "{}"), "the token is signed with the key `(none)`"),
            (issuer.any(&head, "{}"), "the token cannot be read: missing field `sub`"),
            (issuer.any(&head, "[[[["), "the token cannot be read: "),
            (issuer.any(&head, &body(r#","sub":"boss""#)), "the token cannot be read: duplicate field `sub`"),
            (issuer.any(&head, &body(r#","exp":1"#)), "the token cannot be read: duplicate field `exp`"),
            (
                issuer.any(&head, &body("").replace("\"here\"", "[]")),
                "the token is for 0 others, this is `here`",
            ),
            (issuer.any(&head, &body("").replace("desk", "anonymous")), "the token's `sub`: `anonymous` is"),
            (issuer.any(&head, &body("").replace("desk", "")), "the token's `sub`: `` is no name"),
            (
                issuer.any(&head, &body(r#","tidegate":{"verbs":["read"]}"#)),
                "the token cannot be read: unknown variant",
            ),
            (
                issuer.any(&head, &body(r#","tidegate":{"keys":["*"]}"#)),
                "the token cannot be read: unknown field",
            ),
            (
                issuer.any(&head, &body(r#","tidegate":{"symbols":[]}"#)),
                "the token's `tidegate`: symbols names nothing",
            ),
        ] {
            let error = issuer.verifier.bearer(token.as_bytes(), NOW).unwrap_err().to_string();
            assert!(error.starts_with(says), "{token}: {error}");
        }
        // What is not ours is let be.
        let token = issuer.any(&head, &body(r#","iss":"somebody","scope":"x""#));
        assert!(issuer.verifier.bearer(token.as_bytes(), NOW).is_ok());
    }

    #[test]
    fn a_token_says_what_it_is_for() {
        let issuer = issuer();
        let narrow = Narrow {
            verbs: vec![Verb::Subscribe],
            streams: vec!["bars.*".into()],
            symbols: vec!["BTC*".into()],
        };
        let credential = issuer.key.issue(&TokenRequest { narrow: Some(narrow), ..request() }).unwrap();
        let verified = issuer.shown(&credential, NOW).unwrap();
        let grant = Policy::default().grant(&verified.principal, verified.narrowed, Quotas::default());
        assert!(grant.allows(Verb::Subscribe, "bars.1s", Symbols::Name("BTCUSD")));
        assert!(!grant.allows(Verb::Publish, "bars.1s", Symbols::Name("BTCUSD")));
        assert!(!grant.allows(Verb::Subscribe, "ind.1s", Symbols::Name("BTCUSD")));
        let many = (0..2_000).map(|at| format!("SYMBOL{at}")).collect();
        let narrow = Some(Narrow { symbols: many, ..Narrow::default() });
        let error = issuer.key.issue(&TokenRequest { narrow, ..request() }).unwrap_err();
        assert!(matches!(error, TokenError::Length { .. }), "{error}");
    }

    #[test]
    fn a_credential_comes_back_from_its_file() {
        let issuer = issuer();
        let credential = issuer.key.issue(&request()).unwrap();
        let again = Credential::of_json(credential.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(issuer.shown(&again, NOW), issuer.shown(&credential, NOW));
        let json = credential.to_json().unwrap();
        for (bad, says) in [
            ("{}".to_owned(), "this is no credential"),
            (json.replace("OKP", "EC"), "the key is none of Ed25519"),
            (json.replace("\"d\":\"", "\"d\":\"A"), "the key is none of Ed25519"),
            (r#"{"token":"a.b.c"}"#.to_owned(), "the token comes without a key"),
            (r#"{"token":""}"#.to_owned(), "the token has 0 bytes"),
        ] {
            let error = Credential::of_json(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
