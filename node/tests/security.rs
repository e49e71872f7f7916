//! Certificates and tokens as their user makes and shows them, with the real binary.

mod common;

use common::{Running, ends as run, folder};
use serde_json::Value;
use std::path::Path;

/// A server, the words that lead to it, and where it answers HTTP.
struct Server {
    running: Running,
    quic: String,
    http: String,
}

impl Server {
    #[track_caller]
    fn start(folder: &Path, security: &str) -> Self {
        let (running, hello) = Running::serve(folder, &format!("--bars 1s {security}"));
        let (quic, http) = (hello["listening"].as_str().unwrap(), hello["http"].as_str().unwrap());
        Self { quic: format!("--server {quic}"), http: http.to_owned(), running }
    }

    /// Its summary.
    #[track_caller]
    fn end(self) -> Value {
        serde_json::from_str(&self.running.interrupted()).expect("one JSON value")
    }

    /// The status of an answer over HTTP.
    fn get(&self, path: &str, token: &str) -> u16 {
        use std::io::{Read, Write};
        let address = self.http.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let token =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{token}connection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }
}

#[test]
fn certificates_and_tokens_from_end_to_end() {
    let folder = folder();
    let dir = folder.path();
    let (made, _) = run(dir, "certs init --dir pki --client feed --json", 0);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made.as_array().map(Vec::len), Some(6), "{made}");
    let (_, error) = run(dir, "certs init --dir pki", 4);
    assert!(error.contains("`pki/ca-key.pem` exists already; --force replaces it"), "{error}");
    run(dir, "certs add --dir pki --client desk", 0);
    let (shown, _) = run(dir, "certs show pki", 0);
    assert!(shown.contains("client-desk-cert.pem") && !shown.contains("chmod"), "{shown}");
    run(dir, "token keygen --dir keys", 0);

    let server = Server::start(
        dir,
        "--cert pki/server-cert.pem --key pki/server-key.pem --client-ca pki/ca-cert.pem --token-key \
         keys/token-key.pub.pem --audience here",
    );
    let (quic, ca) = (&server.quic, "--ca pki/ca-cert.pem");
    // A feed by its certificate.
    let feed = "--cert pki/client-feed-cert.pem --key pki/client-feed-key.pem";
    run(dir, &format!("publish generate market --events 20000 --symbols 5 {quic} {ca} {feed}"), 0);
    // Nobody, and somebody who does not believe the server.
    let (_, error) = run(dir, &format!("publish generate market --events 10 {quic} {ca}"), 3);
    assert!(error.contains("show who you are: this server asks for a token"), "{error}");
    let (_, error) =
        run(dir, &format!("publish generate market --events 10 {quic} --ca pki/client-desk-cert.pem"), 3);
    assert!(error.contains("was refused in its handshake"), "{error}");

    // A reader by its token: what it is for, and what not.
    let issue = "token issue --key keys/token-key.pem --principal desk --audience";
    run(dir, &format!("{issue} here --verbs subscribe --symbols A* --out desk.token"), 0);
    let read = format!("subscribe bars.1s --from snapshot --count 1 {quic} {ca} --token");
    let (records, _) = run(dir, &format!("{read} desk.token --keys A*"), 0);
    assert!(records.contains("bars.1s"), "{records}");
    let (_, error) = run(dir, &format!("{read} desk.token"), 3);
    assert!(error.contains("`desk` may not subscribe all symbols of `bars.1s`, allowed are A*"), "{error}");
    run(dir, &format!("{issue} there --out other.token"), 0);
    let (_, error) = run(dir, &format!("{read} other.token --keys A*"), 3);
    assert!(error.contains("the token is for `there`, this is `here`"), "{error}");
    run(dir, &format!("{issue} here --bearer --out desk.bearer"), 0);
    let (_, error) = run(dir, &format!("{read} desk.bearer --keys A*"), 3);
    assert!(error.contains("the token in `desk.bearer` cannot be used"), "{error}");

    // HTTP: the bearer's token, and nothing else.
    let bearer = std::fs::read_to_string(dir.join("desk.bearer")).unwrap();
    let bound: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("desk.token")).unwrap()).unwrap();
    assert_eq!(server.get("/v1/streams", &bearer), 200);
    assert_eq!(server.get("/v1/streams", ""), 401);
    assert_eq!(server.get("/v1/streams", bound["token"].as_str().unwrap()), 401);
    assert_eq!(server.get("/v1/health", ""), 200);

    let summary = server.end();
    assert_eq!(summary["imbalance"], 0);
    assert_eq!(
        (&summary["sources"][0]["principal"], summary["sources"].as_array().map(Vec::len)),
        (&"feed".into(), Some(1))
    );
    assert_eq!(summary["connections"]["unauthorized"], 3, "{summary}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let folder = folder();
    let dir = folder.path();
    run(dir, "token keygen --dir keys", 0);
    run(dir, "certs init --dir pki", 0);
    for (line, code, says) in [
        ("serve --cert pki/server-cert.pem", 2, "--key"),
        ("serve --token-key keys/token-key.pub.pem", 2, "--audience"),
        ("serve --audience here", 2, "--token-key"),
        (
            "serve --token-key keys/token-key.pem --audience here",
            3,
            "there is no section `PUBLIC KEY`; it has `PRIVATE KEY`",
        ),
        ("serve --token-key nowhere.pem --audience here", 3, "cannot read `nowhere.pem`"),
        ("serve --client-ca keys/token-key.pem", 3, "holds no certificate"),
        ("serve --cert pki/server-cert.pem --key pki/ca-key.pem", 3, "cannot be used"),
        ("certs init --dir other --client ../up", 2, "is no name for a client"),
        ("certs init --dir other --client anonymous", 2, "nobody else can have it"),
        ("certs init --dir other --days 0", 2, "--days"),
        ("certs add --dir pki", 2, "--host NAME or --client NAME"),
        ("certs add --dir nowhere --client a", 3, "cannot read `nowhere/ca-key.pem`"),
        ("certs show keys/token-key.pub.pem", 3, "holds no certificate or key"),
        ("token keygen --dir keys", 4, "exists already"),
        ("token issue --key keys/token-key.pub.pem --principal a --audience b", 3, "cannot sign tokens"),
        (
            "token issue --key keys/token-key.pem --principal anonymous --audience b",
            2,
            "nobody else can have it",
        ),
        (
            "token issue --key keys/token-key.pem --principal a --audience b --ttl 2d",
            2,
            "allowed are 1s to 1d",
        ),
        (
            "token issue --key keys/token-key.pem --principal a --audience b --verbs read",
            2,
            "there is no verb `read`",
        ),
        ("token issue --key keys/token-key.pem --principal a --audience b --symbols A*B", 2, "is no pattern"),
    ] {
        let (_, error) = run(dir, line, code);
        assert!(error.contains(says), "{line}: {error}");
    }
    assert!(!dir.join("other").exists(), "nothing was made");
}
