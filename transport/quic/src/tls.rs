//! Certificates: TLS 1.3 and nothing older, by aws-lc-rs and nothing else.

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of certificates below a data folder.
const FOLDER: &str = "tls";
/// The development certificate, which clients on the machine trust.
const CERTIFICATE: &str = "dev-cert.pem";
/// Its key, for the server's eyes only.
#[cfg(feature = "server")]
const KEY: &str = "dev-key.pem";
/// Names the development certificate is good for.
pub const DEV_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no secure connection to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {act} `{}`", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("`{}` holds no {what}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// There is no certificate to trust.
    #[error("there is no certificate at `{}`: start `tidegate serve` with the same --data once, or name one", path.display())]
    NoTrust {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[cfg(feature = "server")]
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// The certificates to check clients with cannot be used.
    #[cfg(feature = "server")]
    #[error("clients cannot be checked with these certificates")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// The TLS library refuses.
    #[error("the certificate or key cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The cipher suites of the first packets are missing: a build without them.
    #[error("this build lacks a cipher that QUIC needs")]
    Ciphers,
}

pub(crate) fn file<'p>(act: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> TlsError + 'p {
    move |source| TlsError::File { act, path: path.to_path_buf(), source }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whom a client believes.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// The certificates of a PEM file: a CA's, or a server's own.
    ///
    /// # Errors
    /// [`TlsError`] when there is no such file or no certificate in it.
    pub fn of_file(path: &Path) -> Result<Self, TlsError> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TlsError::NoTrust { path: path.to_path_buf() });
            }
            other => other.map_err(file("read", path))?,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let none = || TlsError::Pem { what: "certificate", path: path.to_path_buf() };
            roots.add(certificate.map_err(|_| none())?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Pem { what: "certificate", path: path.to_path_buf() });
        }
        Ok(Self { roots: Arc::new(roots) })
    }

    /// The development certificate that a server on this machine made in its data folder.
    ///
    /// # Errors
    /// As [`Trust::of_file`].
    pub fn of_data(data: &Path) -> Result<Self, TlsError> {
        Self::of_file(&data.join(FOLDER).join(CERTIFICATE))
    }

    /// The library's settings for a client that shows `identity` and speaks `alpn`.
    ///
    /// # Errors
    /// [`TlsError`] when the identity cannot be used.
    #[cfg(feature = "client")]
    pub fn client(&self, identity: Option<&Identity>, alpn: &[u8]) -> Result<quinn::ClientConfig, TlsError> {
        self.client_of(identity, &[alpn])
    }

    /// The same for a client that speaks any of `alpn`; which it is to be, the server says.
    ///
    /// # Errors
    /// [`TlsError`] when the identity cannot be used.
    #[cfg(feature = "client")]
    pub fn client_of(
        &self,
        identity: Option<&Identity>,
        alpn: &[&[u8]],
    ) -> Result<quinn::ClientConfig, TlsError> {
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut tls = match identity {
            Some(Identity { chain, key }) => tls.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        // What is sent before the handshake ends can be replayed by others.
        tls.enable_early_data = false;
        let quic =
            quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|_| TlsError::Ciphers)?;
        Ok(quinn::ClientConfig::new(Arc::new(quic)))
    }
}

/// A certificate and its key, of a server or of a client.
#[derive(Debug)]
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Certificate chain and key from PEM files.
    ///
    /// # Errors
    /// [`TlsError`] when one cannot be read or holds something else.
    pub fn of_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let bytes = std::fs::read(certificate).map_err(file("read", certificate))?;
        let none = |what, path: &Path| TlsError::Pem { what, path: path.to_path_buf() };
        let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| none("certificate", certificate))?;
        if chain.is_empty() {
            return Err(none("certificate", certificate));
        }
        let bytes = std::fs::read(key).map_err(file("read", key))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| none("private key", key))?;
        Ok(Self { chain, key })
    }

    /// The development identity of a data folder, made on first use: good for this machine's own addresses, trusted by
    /// whoever can read the folder. Returns whether it was made now.
    ///
    /// # Errors
    /// [`TlsError`] when the folder cannot be used.
    #[cfg(feature = "server")]
    pub fn of_data(data: &Path) -> Result<(Self, bool), TlsError> {
        let folder = data.join(FOLDER);
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        let made = !(certificate.exists() && key.exists());
        if made {
            std::fs::create_dir_all(&folder).map_err(file("create", &folder))?;
            let names: Vec<String> = DEV_NAMES.iter().map(|&name| name.to_owned()).collect();
            let fresh = rcgen::generate_simple_self_signed(names)?;
            // The key first: a certificate without its key would be trusted and useless.
            write_private(&key, fresh.signing_key.serialize_pem().as_bytes())?;
            std::fs::write(&certificate, fresh.cert.pem()).map_err(file("write", &certificate))?;
        }
        Ok((Self::of_files(&certificate, &key)?, made))
    }

    /// Settings of the endpoint that follow from the key alone: a server started anew with it knows the connections of the
    /// one before for what they are, and tells their peers at once that these are gone. Otherwise each would find out by
    /// itself, after a long silence.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn endpoint(&self) -> quinn::EndpointConfig {
        use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
        let root = Key::new(HMAC_SHA256, self.key.secret_der());
        let reset = sign(&root, b"tidegate: stateless reset");
        let ids = sign(&root, b"tidegate: connection ids");
        let mut seed = [0; 8];
        seed.copy_from_slice(&ids.as_ref()[..8]);
        let seed = u64::from_le_bytes(seed);
        let mut config = quinn::EndpointConfig::new(Arc::new(Key::new(HMAC_SHA256, reset.as_ref())));
        config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(seed)));
        config
    }

    /// The library's settings for a server that speaks `alpn`, what it prefers first. `clients` is whose certificates clients may show,
    /// and whether they must.
    ///
    /// # Errors
    /// [`TlsError`] when the certificates cannot be used.
    #[cfg(feature = "server")]
    pub fn server(
        self,
        alpn: &[&[u8]],
        clients: Option<(&Trust, bool)>,
    ) -> Result<quinn::ServerConfig, TlsError> {
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let tls = match clients {
            Some((trust, must)) => {
                let roots = Arc::clone(&trust.roots);
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
                tls.with_client_cert_verifier(verifier.build()?)
            }
            None => tls.with_no_client_auth(),
        };
        let mut tls = tls.with_single_cert(self.chain, self.key)?;
        tls.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        // No data before the handshake is done, and no state kept for those who come back.
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        let quic =
            quinn_proto::crypto::rustls::QuicServerConfig::try_from(tls).map_err(|_| TlsError::Ciphers)?;
        Ok(quinn::ServerConfig::with_crypto(Arc::new(quic)))
    }
}

/// Writes a file that only its owner may read. A file that was there goes first: it may be open to others, or lead elsewhere.
///
/// # Errors
/// [`TlsError::File`] when it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    use std::io::Write;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(file("replace", path)(error));
        }
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut out = options.open(path).map_err(file("write", path))?;
    out.write_all(bytes).map_err(file("write", path))
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn a_development_identity_is_made_once_and_kept_private() {
        let data = tempfile::tempdir().unwrap();
        assert!(matches!(Trust::of_data(data.path()), Err(TlsError::NoTrust { .. })));
        let (first, made) = Identity::of_data(data.path()).unwrap();
        assert!(made);
        let (again, made) = Identity::of_data(data.path()).unwrap();
        assert!(!made);
        assert_eq!(first.chain, again.chain);
        Trust::of_data(data.path()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(data.path().join(FOLDER).join(KEY)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        std::fs::write(data.path().join(FOLDER).join(CERTIFICATE), "nothing").unwrap();
        assert!(matches!(Identity::of_data(data.path()), Err(TlsError::Pem { what: "certificate", .. })));
        assert!(matches!(Trust::of_data(data.path()), Err(TlsError::Pem { .. })));
    }
}
