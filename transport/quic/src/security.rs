//! Who may connect, how they show who they are, and what they may do: options as people write them, and what a server makes
//! of them.
//!
//! A peer is known by a token (`tidegate-auth`), or by its client certificate; a token comes first, because it says more. A
//! certificate's principal is the common name of its subject, or, where that has none, its first DNS name or URI. Nobody is
//! asked per event: a connection gets its rights when it opens and keeps them until it ends, at the latest after
//! [`AuthOptions::session_max`], when it is closed and comes back by itself with what it then has to show.

use crate::certs::{self, CertsError};
use crate::tls::{Identity, TlsError, Trust, file};
use quinn::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_auth::{CHANNEL_BYTES, CHANNEL_LABEL, KeyError, PublicKey, TokenLimits, TokenVerifier};
use tidegate_proto::access::{ANONYMOUS, AccessError, Policy, PrincipalRule};
use tidegate_proto::frame::Hello;
use tidegate_proto::{Admission, Close, CloseCode, Grant, Quotas};

/// The server's certificate, and whose certificates it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The server's certificate chain (PEM); the development certificate of the data folder when left out.
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// Certificates that sign those of clients (PEM). Given, clients may show one, and must unless tokens are taken too.
    pub client_ca: Option<PathBuf>,
}

/// How peers show who they are, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthOptions {
    /// Public keys (PEM) of those whose tokens are taken, old and new ones while they change.
    pub token_keys: Vec<PathBuf>,
    /// Whom tokens must be for. Named together with `token_keys`.
    pub audience: Option<String>,
    /// Whether peers must show who they are. Left out: yes, if there is a way to.
    pub required: Option<bool>,
    /// What principals may do. Without a rule everybody who gets in may do everything.
    pub rules: Vec<PrincipalRule>,
    /// What tokens are believed.
    pub tokens: TokenLimits,
    /// How long a connection may stand before it must show again who it is: 1 s to 30 days. Applies where there is a way to.
    pub session_max: Duration,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            token_keys: Vec::new(),
            audience: None,
            required: None,
            rules: Vec::new(),
            tokens: TokenLimits::default(),
            session_max: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Everything about a server's security that is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// Certificates.
    pub tls: TlsOptions,
    /// Who, and what they may do.
    pub auth: AuthOptions,
    /// How much of it each principal may use.
    pub quotas: Quotas,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// Options that mean nothing without each other, or not together.
    #[error("{0}")]
    Options(&'static str),
    /// A number out of its range, or a rule that cannot be.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server's certificate.
    #[error("the certificate `{}` cannot be served", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertsError,
    },
    /// A file of token keys.
    #[error("`{}` cannot be used as a key of tokens", path.display())]
    TokenKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// Longest audience, in bytes.
const AUDIENCE_BYTES_MAX: usize = 255;

impl SecurityOptions {
    /// Checks everything that needs no file.
    ///
    /// # Errors
    /// [`SecurityError`] for the first option that cannot be.
    pub fn check(&self) -> Result<(), SecurityError> {
        let options = |text| Err(SecurityError::Options(text));
        let Self { tls, auth, quotas } = self;
        match (&tls.cert, &tls.key) {
            (Some(_), None) => return options("a certificate (cert) needs its key (key)"),
            (None, Some(_)) => return options("a key (key) needs its certificate (cert)"),
            _ => {}
        }
        match (&auth.audience, auth.token_keys.is_empty()) {
            (None, false) => {
                return options(
                    "token keys need an audience: the name that tokens for this server are issued for",
                );
            }
            (Some(_), true) => return options("an audience means nothing without token keys"),
            (Some(name), false) if !(1..=AUDIENCE_BYTES_MAX).contains(&name.len()) => {
                return options("an audience has 1 to 255 bytes");
            }
            _ => {}
        }
        if auth.required == Some(true) && !self.can_know() {
            return options(
                "peers must show who they are (required), but there is no client_ca and no token key: nobody could",
            );
        }
        auth.tokens.check()?;
        let (found, max) = (auth.session_max.as_secs(), 30 * 24 * 3_600);
        if !(1..=max).contains(&found) {
            let what = "session_max in s";
            return Err(AccessError::Range { what, found, min: 1, max }.into());
        }
        Policy::new(&auth.rules)?;
        Ok(quotas.check()?)
    }

    /// Whether there is a way for a peer to show who it is.
    fn can_know(&self) -> bool {
        self.tls.client_ca.is_some() || !self.auth.token_keys.is_empty()
    }

    /// Reads the files. Without a certificate, that of the development is made in `data` on first use; returns whether it was.
    /// `now_s` tells the time of day in seconds since 1970.
    ///
    /// # Errors
    /// [`SecurityError`] for the first option or file that cannot be used.
    pub fn load(&self, data: &Path, now_s: fn() -> u64) -> Result<(ServerSecurity, bool), SecurityError> {
        self.check()?;
        let Self { tls, auth, quotas } = self;
        let (identity, made) = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::of_files(cert, key)?;
                let good = certs::check_time(&identity.chain[0], now_s());
                good.map_err(|source| SecurityError::Certificate { path: cert.clone(), source })?;
                (identity, false)
            }
            _ => Identity::of_data(data)?,
        };
        let client_ca = tls.client_ca.as_deref().map(Trust::of_file).transpose()?;
        let mut keys = Vec::new();
        for path in &auth.token_keys {
            let text = std::fs::read(path).map_err(file("read", path))?;
            let found = PublicKey::all_of_pem(&text);
            keys.extend(found.map_err(|source| SecurityError::TokenKey { path: path.clone(), source })?);
        }
        let verifier =
            auth.audience.as_ref().map(|audience| TokenVerifier::new(&keys, audience, auth.tokens));
        let access = Access {
            verifier,
            policy: Policy::new(&auth.rules)?,
            quotas: *quotas,
            required: auth.required.unwrap_or(self.can_know()),
            session_max: self.can_know().then_some(auth.session_max),
            now_s,
        };
        Ok((ServerSecurity { identity, client_ca, access }, made))
    }
}

/// What a server needs to let peers in. Taken by [`crate::QuicServer::start`] and [`crate::QuicServer::reload`].
#[derive(Debug, Clone)]
pub struct ServerSecurity {
    /// Its certificate and key.
    pub identity: Identity,
    /// Whose certificates clients may show.
    pub client_ca: Option<Trust>,
    /// Who may do what.
    pub access: Access,
}

impl From<Identity> for ServerSecurity {
    /// A server that lets everybody do everything.
    fn from(identity: Identity) -> Self {
        Self { identity, client_ca: None, access: Access::default() }
    }
}

impl ServerSecurity {
    /// Whether a client must have a certificate to connect at all.
    pub(crate) fn certificate_required(&self) -> bool {
        self.access.required && self.access.verifier.is_none()
    }
}

/// Who may do what, by what they show.
#[derive(Debug, Clone)]
pub struct Access {
    verifier: Option<TokenVerifier>,
    policy: Policy,
    quotas: Quotas,
    required: bool,
    /// `None` where nobody shows who it is.
    session_max: Option<Duration>,
    now_s: fn() -> u64,
}

impl Default for Access {
    /// Everybody, everything.
    fn default() -> Self {
        let (policy, quotas) = (Policy::default(), Quotas::default());
        Self { verifier: None, policy, quotas, required: false, session_max: None, now_s: || 0 }
    }
}

/// What whoever shows this token, or none, may do and for how long; or why it is not let in.
pub type BearerGate = dyn Fn(Option<&[u8]>) -> Result<Admission, Close> + Send + Sync;

fn refused(reason: impl Into<String>) -> Close {
    Close::new(CloseCode::UNAUTHORIZED, reason)
}

impl Access {
    /// Whether peers must show who they are.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// How long a connection may stand.
    pub(crate) fn session_max(&self) -> Option<Duration> {
        self.session_max
    }

    /// What may be done by whoever comes by another way than QUIC, where a certificate cannot be shown and nothing binds a token
    /// to a connection.
    pub(crate) fn by_other_ways(&self, token: Option<&[u8]>) -> Result<Admission, Close> {
        match (token, &self.verifier) {
            (Some(token), Some(verifier)) => {
                let now_s = (self.now_s)();
                let verified = verifier.bearer(token, now_s);
                let verified = verified.map_err(|error| refused(error.to_string()))?;
                let stands = verifier.stands(&verified, now_s);
                let stands = Some(self.session_max.map_or(stands, |max| stands.min(max)));
                let grant = self.policy.grant(&verified.principal, verified.narrowed, self.quotas);
                Ok(Admission { grant, stands })
            }
            (Some(_), None) => Err(refused("this server takes no tokens")),
            (None, Some(_)) if self.required => {
                Err(refused("show who you are: this server asks for a token"))
            }
            (None, _) => {
                let grant = self.policy.grant(ANONYMOUS, None, self.quotas);
                Ok(Admission { grant, stands: self.session_max })
            }
        }
    }

    /// What the peer of a connection may do, by its first words.
    pub(crate) fn grant(&self, connection: &Connection, hello: &Hello<'_>) -> Result<Grant, Close> {
        if let Some(shown) = hello.credential {
            let Some(verifier) = &self.verifier else { return Err(refused("this server takes no tokens")) };
            let mut channel = [0; CHANNEL_BYTES];
            let derived = connection.export_keying_material(&mut channel, CHANNEL_LABEL, b"");
            derived.map_err(|_| Close::new(CloseCode::INTERNAL, "the connection has no value to bind to"))?;
            let verified = verifier.bound(shown.token, shown.proof, &channel, (self.now_s)());
            let verified = verified.map_err(|error| refused(error.to_string()))?;
            return Ok(self.policy.grant(&verified.principal, verified.narrowed, self.quotas));
        }
        let shown = connection.peer_identity().and_then(|any| any.downcast().ok());
        let shown: Option<Box<Vec<rustls::pki_types::CertificateDer<'static>>>> = shown;
        if let Some(certificate) = shown.as_ref().and_then(|chain| chain.first()) {
            let principal = certs::principal(certificate).map_err(|error| refused(error.to_string()))?;
            return Ok(self.policy.grant(&principal, None, self.quotas));
        }
        if self.required {
            let token = if self.verifier.is_some() { "a token" } else { "a client certificate" };
            return Err(refused(format!("show who you are: this server asks for {token}")));
        }
        Ok(self.policy.grant(ANONYMOUS, None, self.quotas))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_proto::access::Verb;

    #[test]
    fn options_that_mean_nothing_are_named() {
        let options = |change: fn(&mut SecurityOptions)| {
            let mut options = SecurityOptions::default();
            change(&mut options);
            options.check().map_err(|error| error.to_string())
        };
        assert_eq!(options(|_| {}), Ok(()));
        let says = [
            options(|o| o.tls.cert = Some("c".into())),
            options(|o| o.tls.key = Some("k".into())),
            options(|o| o.auth.token_keys = vec!["t".into()]),
            options(|o| o.auth.audience = Some("a".into())),
            options(|o| o.auth.required = Some(true)),
            options(|o| o.auth.session_max = Duration::ZERO),
            options(|o| o.auth.tokens.lifetime_max_s = 0),
            options(|o| o.auth.rules = vec![PrincipalRule::new("a*b", &[Verb::Publish])]),
            options(|o| o.quotas.bytes_per_second = Some(1)),
        ];
        let expected = [
            "a certificate (cert) needs its key (key)",
            "a key (key) needs its certificate (cert)",
            "token keys need an audience",
            "an audience means nothing without token keys",
            "peers must show who they are (required), but",
            "session_max in s: 0, allowed are 1 to 2592000",
            "lifetime_max_s: 0, allowed are 1 to 86400",
            "`a*b` in principal is no pattern",
            "bytes_per_second: 1, allowed are 65536",
        ];
        for (found, expected) in says.into_iter().zip(expected) {
            let found = found.unwrap_err();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
