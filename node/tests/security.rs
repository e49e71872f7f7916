//! Certificates and tokens as their user makes and shows them, with the real binary.

mod common;

use common::http::{self, Said, WebSocket};
use common::{Running, ends as run, folder};
use serde_json::{Value, json};
use std::net::SocketAddr;
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
        Self::start_with(folder, &format!("--bars 1s {security}"))
    }

    #[track_caller]
    fn start_with(folder: &Path, line: &str) -> Self {
        let (running, hello) = Running::serve(folder, line);
        let (quic, http) = (hello["listening"].as_str().unwrap(), hello["http"].as_str().unwrap());
        Self { quic: format!("--server {quic}"), http: http.to_owned(), running }
    }

    /// Its summary.
    #[track_caller]
    fn end(self) -> Value {
        serde_json::from_str(&self.running.interrupted()).expect("one JSON value")
    }

    fn address(&self) -> SocketAddr {
        self.http.trim_start_matches("http://").parse().expect("an address")
    }

    /// The status of an answer over HTTP.
    fn get(&self, path: &str, token: &str) -> u16 {
        http::get(self.address(), path, token).status
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

/// A server that takes tokens and lets others in too, as far as rules say, and the words that a feed shows who it is with.
fn open_to_others(dir: &Path, rules: &str) -> Server {
    run(dir, "token keygen --dir keys", 0);
    let config = format!(
        "[auth]\ntoken_keys = [\"keys/token-key.pub.pem\"]\naudience = \"here\"\nrequired = false\n\n[[auth.rule]]\n\
         principal = \"*\"\nverbs = [\"publish\", \"subscribe\"]\n\n{rules}"
    );
    std::fs::write(dir.join("server.toml"), config).expect("a file");
    let server = Server::start_with(dir, "--bars 1s,1m --config server.toml");
    let issue = "token issue --key keys/token-key.pem --audience here --principal";
    run(dir, &format!("{issue} feed --verbs publish --out feed.token"), 0);
    run(dir, &format!("{issue} desk --bearer --out desk.bearer"), 0);
    let feed = "publish generate market --events 20000 --symbols 40 --token feed.token --data data";
    run(dir, &format!("{feed} {}", server.quic), 0);
    server
}

/// How often HTTP refused something for this reason, as its counters say.
#[track_caller]
fn refused(metrics: &str, front: &str, reason: &str) -> u64 {
    let name = format!("tidegate_refusals_total{{front=\"{front}\",reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().expect("a count"))
}

#[test]
fn nobody_in_particular_may_do_what_the_configuration_says_and_no_more() {
    let folder = folder();
    let dir = folder.path();
    let server = open_to_others(
        dir,
        "[[auth.rule]]\nprincipal = \"anonymous\"\nverbs = [\"subscribe\"]\nstreams = [\"bars.1s\"]\nsymbols = [\"AQA*\"]\n",
    );
    let desk = std::fs::read_to_string(dir.join("desk.bearer")).expect("a token");
    let desk = desk.trim();
    let address = server.address();
    let names = |path: &str, list: &str, token: &str| -> Vec<String> {
        let answer = http::get(address, path, token);
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let list = answer[list].as_array().expect("a list");
        list.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = names("/v1/keys?limit=1000&stream=bars.1s", "keys", desk);
    let own: Vec<String> = all.iter().filter(|name| name.starts_with("AQA")).cloned().collect();
    let other = all.iter().find(|name| !name.starts_with("AQA")).expect("a name that is not for everybody");
    assert!(!own.is_empty());
    let key = &own[0];

    // What nobody in particular gets, and what somebody gets.
    let mut forbidden = 0;
    for (path, nobody, somebody) in [
        ("/v1/health".to_owned(), 200, 200),
        ("/v1/ready".to_owned(), 200, 200),
        ("/v1/docs".to_owned(), 200, 200),
        ("/v1/streams".to_owned(), 200, 200),
        ("/v1/keys".to_owned(), 200, 200),
        ("/v1/keys?stream=bars.1s".to_owned(), 200, 200),
        ("/v1/keys?stream=bars.1m".to_owned(), 403, 200),
        ("/v1/status".to_owned(), 200, 200),
        ("/metrics".to_owned(), 403, 200),
        (format!("/v1/latest?stream=bars.1s&key={key}"), 200, 200),
        (format!("/v1/latest?stream=bars.1s&key={other}"), 403, 200),
        ("/v1/latest?stream=bars.1s".to_owned(), 403, 200),
        ("/v1/latest?stream=bars.1m".to_owned(), 403, 200),
        (format!("/v1/bars?stream=bars.1s&key={key}"), 200, 200),
        (format!("/v1/bars?stream=bars.1s&key={other}"), 403, 200),
        (format!("/v1/bars?stream=bars.1m&key={key}"), 403, 200),
        (format!("/v1/arrow?stream=bars.1s&key={key}"), 200, 200),
        (format!("/v1/arrow?stream=bars.1s&key={other}"), 403, 200),
        (format!("/v1/arrow?stream=bars.1m&key={key}"), 403, 200),
    ] {
        let answer = http::get(address, &path, "");
        assert_eq!(answer.status, nobody, "{path}: {}", answer.text());
        if nobody == 403 {
            assert_eq!(answer.code(), "forbidden", "{path}");
            forbidden += 1;
        }
        assert_eq!(http::get(address, &path, desk).status, somebody, "{path}");
    }
    assert_eq!(names("/v1/streams", "streams", ""), ["bars.1s"]);
    assert_eq!(names("/v1/keys?limit=1000&stream=bars.1s", "keys", ""), own);
    let status: Value = serde_json::from_slice(&http::get(address, "/v1/status", "").body).expect("JSON");
    assert_eq!((&status["feeds"], &status["subscribers"]), (&Value::Null, &Value::Null));
    // A token that is none does not become nobody in particular.
    assert_eq!(http::get(address, "/v1/streams", "wrong").code(), "unauthorized");

    // Event streams.
    for path in
        ["/v1/sse?streams=bars.1s", "/v1/sse?streams=bars.1m&keys=AQA*", "/v1/sse?streams=bars.1s&keys=A*"]
    {
        let (status, text) = http::events(address, path, "", |text| text.contains("\"forbidden\""));
        assert_eq!(status, 403, "{path}: {text}");
        forbidden += 1;
    }
    let path = "/v1/sse?streams=bars.1s&keys=AQA*&from=snapshot";
    let (status, text) = http::events(address, path, "", |text| text.contains("event: live"));
    assert_eq!((status, text.matches("event: record").count()), (200, own.len()), "{text}");

    // WebSockets: what nobody may, and somebody may over the same connection.
    let mut socket = WebSocket::open(address, "").expect("nobody is let in");
    let subscribe = |id: u64, streams: &str, keys: &str| {
        format!("{{\"op\":\"subscribe\",\"id\":{id},\"streams\":[\"{streams}\"],\"keys\":{keys}}}")
    };
    for (streams, keys) in
        [("bars.1s", "\"all\""), ("bars.1m", "[\"AQA*\"]"), ("bars.1s", "[\"AQA*\",\"B*\"]")]
    {
        let said = socket.ask(&subscribe(1, streams, keys));
        assert_eq!((&said["op"], &said["code"]), (&json!("error"), &json!("forbidden")), "{said}");
        forbidden += 1;
    }
    let said = socket.ask(&subscribe(1, "bars.1s", "[\"AQA*\"]"));
    assert_eq!(said["op"], "subscribed", "{said}");
    assert_eq!(socket.next(), Said::Message(json!({"op": "live", "id": 1, "stream": "bars.1s"})));
    let said = socket.ask(&format!("{{\"op\":\"auth\",\"token\":\"{desk}\"}}"));
    assert_eq!((&said["op"], &said["principal"]), (&json!("authorized"), &json!("desk")), "{said}");
    let left = said["expires_in_ms"].as_u64().expect("tokens end");
    assert!(
        (1..=905_000).contains(&left),
        "five minutes or as long as they may, and the clocks' difference: {left}"
    );
    assert_eq!(socket.ask(&subscribe(2, "bars.1m", "\"all\""))["op"], "subscribed");
    assert_eq!(WebSocket::open(address, "wrong").err(), Some(401));

    // QUIC, by the same rules.
    let quic = format!("{} --data data", server.quic);
    run(dir, &format!("subscribe bars.1s --keys AQA* --from snapshot --count 1 {quic}"), 0);
    let (_, error) = run(dir, &format!("subscribe bars.1s --from snapshot --count 1 {quic}"), 3);
    assert!(
        error.contains("`anonymous` may not subscribe all symbols of `bars.1s`, allowed are AQA*"),
        "{error}"
    );
    let (_, error) = run(dir, &format!("publish generate market --events 10 {quic}"), 3);
    assert!(error.contains("`anonymous` may not publish"), "{error}");

    let metrics = http::get(address, "/metrics", desk).text();
    let counts = [("http", "forbidden"), ("http", "unauthorized"), ("quic", "unauthorized")]
        .map(|(front, reason)| refused(&metrics, front, reason));
    assert_eq!(counts, [forbidden, 2, 2]);
    assert_eq!(server.end()["imbalance"], 0);
}

#[test]
fn nobody_in_particular_may_nothing_where_no_rule_says_so() {
    let folder = folder();
    let dir = folder.path();
    let server = open_to_others(dir, "");
    let address = server.address();
    for path in [
        "/v1/streams",
        "/v1/keys",
        "/v1/status",
        "/v1/latest?stream=bars.1s",
        "/metrics",
        "/v1/sse?streams=bars.1s",
    ] {
        let answer = http::get(address, path, "");
        assert_eq!((answer.status, answer.code()), (403, "forbidden".to_owned()), "{path}");
    }
    // A page must be able to say who it is, and is told nothing before.
    let mut socket = WebSocket::open(address, "").expect("it may be opened");
    assert_eq!(socket.ask(r#"{"op":"status","every_ms":100}"#)["code"], "unauthorized");
    assert_eq!(socket.ask(r#"{"op":"auth","token":"wrong"}"#)["code"], "unauthorized");
    assert_eq!(socket.next(), Said::Closed(4401));
    server.end();
}

#[test]
fn a_connection_ends_with_its_token() {
    let folder = folder();
    let dir = folder.path();
    let server = open_to_others(dir, "");
    let issue = "token issue --key keys/token-key.pem --principal desk --audience here --bearer";
    run(dir, &format!("{issue} --ttl 2s --out short.bearer"), 0);
    let short = std::fs::read_to_string(dir.join("short.bearer")).expect("a token");
    let mut socket = WebSocket::open(server.address(), short.trim()).expect("it is good");
    let mut kept = WebSocket::open(server.address(), short.trim()).expect("it is good");
    run(dir, &format!("{issue} --out long.bearer"), 0);
    let long = std::fs::read_to_string(dir.join("long.bearer")).expect("a token");
    let said = kept.ask(&format!("{{\"op\":\"auth\",\"token\":\"{}\"}}", long.trim()));
    assert_eq!(said["op"], "authorized", "{said}");
    let (status, text) = http::events(server.address(), "/v1/sse?streams=bars.1s", short.trim(), |text| {
        text.contains("closed")
    });
    assert!(status == 200 && text.contains("\"code\":\"expired\""), "{status} {text}");
    let Said::Message(said) = socket.next() else { panic!("a word before the end") };
    assert_eq!((&said["op"], &said["code"]), (&json!("error"), &json!("expired")));
    assert_eq!(socket.next(), Said::Closed(4401));
    assert_eq!(kept.ask(r#"{"op":"ping"}"#)["op"], "pong");
    server.end();
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
