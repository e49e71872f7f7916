//! Tokens: bytes of a stranger, and bytes that somebody with a key we believe was brought to sign.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::OnceLock;
use tidegate_auth::{Credential, PublicKey, SigningKey, TokenLimits, TokenRequest, TokenVerifier};
use tidegate_proto::access::{ANONYMOUS, Policy, Symbols, Verb};
use tidegate_proto::{Quotas, wire};

/// The private key of RFC 8410, section 10.3: no secret.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const NOW_S: u64 = 1_800_000_000;
/// Most bytes of an error's message, whatever it quotes.
const MESSAGE_BYTES_MAX: usize = 1_024;

struct Issuer {
    key: SigningKey,
    raw: Ed25519KeyPair,
    verifier: TokenVerifier,
}

fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let key = SigningKey::of_pem(KEY.as_bytes()).expect("a key that is known");
        let der: Vec<u8> = URL_SAFE_NO_PAD
            .decode("MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp-K06_nwoy_HU--CXqI9EdVhC")
            .expect("the same");
        let raw = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("the same");
        let verifier = TokenVerifier::new(&[key.public()], "here", TokenLimits::default());
        Issuer { key, raw, verifier }
    })
}

fn signed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
    let signature = issuer().raw.sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
}

/// Whatever is believed is somebody who can be, for no longer than may be; whatever is not is told why, briefly. A stranger
/// is never believed.
///
/// # Panics
/// When it is not so.
pub fn token(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else { return };
    let Issuer { key, verifier, .. } = issuer();
    let head = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, key.public().id());
    let (token, own) = match what % 5 {
        0 => (bytes.to_vec(), false),
        1 => (signed(head.as_bytes(), bytes), true),
        2 => {
            let cut = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            (signed(&bytes[..cut], &bytes[(cut + 1).min(bytes.len())..]), true)
        }
        3 => {
            if let Ok(credential) = Credential::of_json(bytes) {
                let json = credential.to_json().expect("what was read can be written");
                let again = Credential::of_json(json.as_bytes()).expect("what was written can be read");
                assert_eq!(again.proof(&[1; 32]), credential.proof(&[1; 32]));
                assert!((1..=wire::TOKEN_BYTES_MAX).contains(&credential.token().len()));
            }
            return;
        }
        _ => {
            if let Ok(keys) = PublicKey::all_of_pem(bytes) {
                assert!(
                    keys.iter().all(|key| PublicKey::all_of_pem(key.to_pem().as_bytes()) == Ok(vec![*key]))
                );
            }
            let _ = SigningKey::of_pem(bytes);
            return;
        }
    };
    for outcome in [verifier.bearer(&token, NOW_S), verifier.bound(&token, &[7; 64], &[7; 32], NOW_S)] {
        match outcome {
            Ok(verified) => {
                assert!(own, "a stranger is believed");
                assert!(verified.principal != ANONYMOUS && !verified.principal.is_empty());
                let until = verified.until_s;
                assert!((NOW_S - 5..=NOW_S + 905).contains(&until), "{until}");
                let whole = Policy::default().grant("x", None, Quotas::default());
                let grant =
                    Policy::default().grant(&verified.principal, verified.narrowed, Quotas::default());
                for verb in Verb::ALL {
                    // All is never more than each.
                    if grant.allows(verb, "s", Symbols::All) {
                        assert!(
                            grant.allows(verb, "s", Symbols::Name("A"))
                                && whole.allows(verb, "s", Symbols::All)
                        );
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(
                    !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'),
                    "{text}"
                );
            }
        }
    }
}

/// Tokens and files as they should be. What strangers show is signed by a key that is made anew and believed by nobody.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let key = &issuer().key;
    let request = TokenRequest {
        principal: "desk".into(),
        audience: "here".into(),
        from_s: NOW_S,
        lifetime_s: 300,
        narrow: None,
    };
    let stranger =
        SigningKey::generate().ok().and_then(|key| key.issue_bearer(&request).ok()).unwrap_or_default();
    let credential =
        key.issue(&request).ok().and_then(|credential| credential.to_json().ok()).unwrap_or_default();
    let body = r#"{"sub":"desk","aud":["here","there"],"nbf":1800000000,"exp":1800000300,"tidegate":{"verbs":["publish"],"streams":["bars.*"],"symbols":["BTC*","A"]}}"#;
    let bound = r#"{"sub":"desk","aud":"here","nbf":1800000000,"exp":1800000300,"cnf":{"jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}}"#;
    let head = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"JWT"}}"#, key.public().id());
    let seed = |what: u8, text: &str| [&[what], text.as_bytes()].concat();
    vec![
        seed(0, &stranger),
        seed(1, body),
        seed(1, bound),
        seed(2, &format!("{head}\0{body}")),
        seed(3, &credential),
        seed(4, &key.public().to_pem()),
        seed(4, KEY),
    ]
}
