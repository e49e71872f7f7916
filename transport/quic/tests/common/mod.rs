//! A real server on loopback, with a CA of its own, and clients of every kind.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_actors::BarSpec;
use tidegate_actors::bars::BarOptions;
use tidegate_auth::{Credential, SigningKey, TokenRequest};
use tidegate_engine::{Event, Price, Size, Stage};
use tidegate_live::{Live, LiveOptions, LiveReport};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;
use tidegate_quic::certs::{self, CertsRequest};
use tidegate_quic::{
    ClientOptions, CredentialSource, Identity, Limits, Publisher, PublisherOptions, QuicServer,
    SecurityOptions, ServerSecurity, Trust,
};

/// The time of day for the whole of a test run: it stands still, so that what is good stays good.
pub fn now() -> u64 {
    static NOW: OnceLock<u64> = OnceLock::new();
    let since = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    *NOW.get_or_init(|| since().as_secs())
}

/// A folder with a CA, a server's certificate and those of clients, made once for all tests of a file.
pub struct Pki {
    dir: tempfile::TempDir,
    pub issuer: SigningKey,
}

impl Pki {
    pub fn new(clients: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let request = CertsRequest {
            hosts: vec!["localhost".into()],
            clients: clients.iter().map(|&name| name.to_owned()).collect(),
            days: 10,
            force: false,
        };
        certs::init(dir.path(), &request, now()).unwrap();
        let issuer = SigningKey::generate().unwrap();
        std::fs::write(dir.path().join("tokens.pub.pem"), issuer.public().to_pem()).unwrap();
        Self { dir, issuer }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn client(&self, name: &str) -> Identity {
        let file = |what: &str| self.file(&format!("client-{name}-{what}.pem"));
        Identity::of_files(&file("cert"), &file("key")).unwrap()
    }

    pub fn trust(&self) -> Trust {
        Trust::of_file(&self.file("ca-cert.pem")).unwrap()
    }

    /// The server's certificate, and no more than that.
    pub fn options(&self) -> SecurityOptions {
        let mut options = SecurityOptions::default();
        options.tls.cert = Some(self.file("server-cert.pem"));
        options.tls.key = Some(self.file("server-key.pem"));
        options
    }

    /// The same, and tokens of this issuer.
    pub fn with_tokens(&self) -> SecurityOptions {
        let mut options = self.options();
        options.auth.token_keys = vec![self.file("tokens.pub.pem")];
        options.auth.audience = Some("here".into());
        options
    }

    pub fn request(&self, principal: &str) -> TokenRequest {
        TokenRequest {
            principal: principal.into(),
            audience: "here".into(),
            from_s: now(),
            lifetime_s: 300,
            narrow: None,
        }
    }

    pub fn token(&self, principal: &str) -> Arc<Credential> {
        Arc::new(self.issuer.issue(&self.request(principal)).unwrap())
    }
}

pub fn load(pki: &Pki, options: &SecurityOptions) -> ServerSecurity {
    options.load(pki.path(), now).unwrap().0
}

pub struct Server {
    pub live: Live,
    pub quic: QuicServer,
    pub client: ClientOptions,
}

pub fn start(pki: &Pki, options: &SecurityOptions) -> Server {
    start_with(pki, load(pki, options), LiveOptions::default(), Limits::default())
}

pub fn start_with(pki: &Pki, security: ServerSecurity, options: LiveOptions, limits: Limits) -> Server {
    let spec: BarSpec = "1s".parse().unwrap();
    let stages = Arc::new(move || vec![Stage::new("bars.1s", 0, spec.operator(BarOptions::default()))]);
    let streams = vec![StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] }];
    let live = Live::start(stages, streams, options).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let quic = QuicServer::start(any, security, limits, live.ingest(), live.hub()).unwrap();
    let client = ClientOptions {
        give_up_after: Duration::from_secs(30),
        ..ClientOptions::new(quic.address(), pki.trust())
    };
    Server { live, quic, client }
}

impl Server {
    /// As this client.
    pub fn known(&self, identity: Identity) -> ClientOptions {
        ClientOptions { identity: Some(identity), ..self.client.clone() }
    }

    /// With this token.
    pub fn holding(&self, credential: Arc<Credential>) -> ClientOptions {
        ClientOptions { credential: Some(CredentialSource::Fixed(credential)), ..self.client.clone() }
    }

    /// Ends in order and checks that all adds up.
    pub async fn end(self) -> LiveReport {
        self.quic.refuse_new();
        let report = tokio::task::spawn_blocking(|| self.live.finish()).await.unwrap().unwrap();
        self.quic.close().await;
        assert_eq!(report.imbalance(), 0);
        report
    }
}

pub const NAMES: [&str; 3] = ["A", "B", "C"];

pub fn trades(count: u64) -> Vec<Event> {
    (0..count)
        .map(|at| Event::trade(at * 50_000_000, (at % 3) as u32, 9, Price(1_000 + at as i64), Size(5), 0))
        .collect()
}

pub fn named(source_id: u64, name: &str) -> PublisherOptions {
    PublisherOptions { source_id, name: name.into(), ..PublisherOptions::default() }
}

/// A publisher with its names.
pub async fn publisher(client: ClientOptions, options: PublisherOptions) -> Publisher {
    let publisher = Publisher::connect(client, options).await.unwrap();
    for name in NAMES {
        publisher.define(name).unwrap();
    }
    publisher
}

/// A connection below the client library.
pub async fn raw_connect(
    pki: &Pki,
    endpoint: &quinn::Endpoint,
    server: std::net::SocketAddr,
    alpn: &[u8],
) -> Result<quinn::Connection, quinn::ConnectionError> {
    endpoint.connect_with(raw_config(pki, alpn), server, "localhost").unwrap().await
}

pub fn raw_config(pki: &Pki, alpn: &[u8]) -> quinn::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca-cert.pem")).unwrap()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = true;
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    let mut transport = quinn::TransportConfig::default();
    // In a crowd the packet that ends a connection may be lost; then silence tells.
    transport.max_idle_timeout(Some(Duration::from_secs(3).try_into().unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

pub fn raw_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// The last frame of a stream, which must be CLOSE.
pub async fn closed(receive: &mut quinn::RecvStream) -> (tidegate_proto::CloseCode, String) {
    let bytes = receive.read_to_end(1 << 20).await.unwrap();
    let mut buffer = tidegate_proto::FrameBuffer::new(4);
    buffer.push(&bytes);
    let mut last = None;
    while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
        if let tidegate_proto::Frame::Close { code, reason } =
            tidegate_proto::Frame::read(offset, &head, body).unwrap()
        {
            last = Some((code, reason.to_owned()));
        }
    }
    last.expect("the server says why")
}
