//! Tokens good and bad against a real server: whoever is not believed is told why, and nobody else notices.

mod common;

use common::*;
use std::sync::Arc;
use std::time::Duration;
use tidegate_auth::{CHANNEL_BYTES, CHANNEL_LABEL, Credential, Narrow, SigningKey, TokenRequest};
use tidegate_proto::access::Verb;
use tidegate_proto::frame::Hello;
use tidegate_proto::subscription::{Keys, Subscription};
use tidegate_proto::{ALPN_FEED, ALPN_SUBSCRIBE, AckMode, Close, CloseCode, FrameWriter, Plane};
use tidegate_quic::{ClientError, ClientOptions, CredentialSource, Publisher, Subscriber};

/// Why both planes refuse this client; it must be the same.
async fn refusal(client: ClientOptions) -> Close {
    let feed = Publisher::connect(client.clone(), named(1, "feed")).await.err();
    let reader = Subscriber::connect(client, "reader", Subscription::to(["bars.1s"])).await.err();
    match (feed, reader) {
        (Some(ClientError::Closed(feed)), Some(ClientError::Closed(reader))) => {
            assert_eq!(feed, reader);
            feed
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_by_name() {
    let pki = Pki::new(&[]);
    let server = start(&pki, &pki.with_tokens());
    let good = publisher(server.holding(pki.token("feed")), named(7, "good")).await;
    good.send(&trades(500)).await.unwrap();

    let issue = |request: TokenRequest| Arc::new(pki.issuer.issue(&request).unwrap());
    let stranger = SigningKey::generate().unwrap();
    let garbled = |token: &str| {
        let json = pki.token("feed").to_json().unwrap();
        let rest = json.splitn(5, '"').last().unwrap();
        let json = format!("{{\"token\":\"{token}\"{rest}");
        Arc::new(Credential::of_json(json.as_bytes()).unwrap())
    };
    for (credential, says) in [
        (issue(TokenRequest { from_s: now() - 400, ..pki.request("feed") }), "the token expired 100 s ago"),
        (issue(TokenRequest { from_s: now() + 60, ..pki.request("feed") }), "the token is good in 60 s only"),
        (
            issue(TokenRequest { audience: "there".into(), ..pki.request("feed") }),
            "the token is for `there`, this is `here`",
        ),
        (
            issue(TokenRequest { lifetime_s: 3_600, ..pki.request("feed") }),
            "the token is good for 3600 s, allowed",
        ),
        (Arc::new(stranger.issue(&pki.request("feed")).unwrap()), "the token is signed with the key `"),
        (garbled("garbage"), "the token cannot be read: it is not three parts"),
        (garbled("e30.e30.AAAA"), "the token cannot be read: "),
    ] {
        let close = refusal(server.holding(credential)).await;
        assert_eq!(close.code, CloseCode::UNAUTHORIZED, "{close}");
        assert!(close.reason.starts_with(says), "{close}");
    }
    let close = refusal(server.client.clone()).await;
    assert_eq!(close, Close::new(CloseCode::UNAUTHORIZED, "show who you are: this server asks for a token"));

    // Who was believed goes on.
    good.send(&trades(1_000).split_off(500)).await.unwrap();
    assert_eq!(good.finish().await.unwrap().acked, 1_000);
    assert_eq!(server.quic.stats().unauthorized, 16);
    let report = server.end().await;
    let sources = &report.ingest.stats.sources;
    assert_eq!((sources.len(), &*sources[0].principal), (1, "feed"), "no stranger took a place");
    assert_eq!(sources[0].ledger.accepted, 1_000);
}

/// HELLO with what another connection showed, or with nothing.
fn hello(credential: Option<(&[u8; 64], &[u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    FrameWriter::new(&mut out).hello(&Hello {
        version_min: 2,
        version_max: 2,
        plane: Plane::Feed,
        group: None,
        ack_mode: AckMode::Leader,
        source_id: 1,
        session: 1,
        name: "feed",
        credential: credential.map(|(proof, token)| tidegate_proto::Credential { proof, token }),
    });
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_seen_on_one_connection_opens_no_other() {
    let pki = Pki::new(&[]);
    let server = start(&pki, &pki.with_tokens());
    let endpoint = raw_endpoint();
    let credential = pki.token("feed");
    let first = raw_connect(&pki, &endpoint, server.quic.address(), ALPN_FEED).await.unwrap();
    let mut channel = [0; CHANNEL_BYTES];
    first.export_keying_material(&mut channel, CHANNEL_LABEL, b"").unwrap();
    let proof = credential.proof(&channel);
    let words = hello(Some((&proof, credential.token().as_bytes())));
    let (mut send, mut receive) = first.open_bi().await.unwrap();
    send.write_all(&words).await.unwrap();
    let mut head = [0; 6];
    receive.read_exact(&mut head).await.unwrap();
    assert_eq!(head[5], 0x02, "HELLO is answered");

    // Byte for byte the same, on another connection.
    let second = raw_connect(&pki, &endpoint, server.quic.address(), ALPN_FEED).await.unwrap();
    let (mut send, mut receive) = second.open_bi().await.unwrap();
    send.write_all(&words).await.unwrap();
    let (code, reason) = closed(&mut receive).await;
    assert_eq!(code, CloseCode::UNAUTHORIZED);
    assert!(reason.contains("the token was shown elsewhere before"), "{reason}");

    // Longer than any token: refused by the head of the frame, before anything is read or checked.
    let (mut send, mut receive) = {
        let third = raw_connect(&pki, &endpoint, server.quic.address(), ALPN_FEED).await.unwrap();
        third.open_bi().await.unwrap()
    };
    let mut long = hello(None);
    long[8..12].copy_from_slice(&4_400u32.to_le_bytes());
    send.write_all(&long[..16]).await.unwrap();
    let (code, reason) = closed(&mut receive).await;
    assert_eq!(code, CloseCode::PROTOCOL);
    assert!(reason.contains("a Hello body of 4400 bytes, allowed are 40 to 4392"), "{reason}");

    // The first goes on; the same holder may come again, with a new proof.
    drop((first, second));
    let again = publisher(server.holding(credential), named(1, "feed")).await;
    again.send(&trades(10)).await.unwrap();
    assert_eq!(again.finish().await.unwrap().acked, 10);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_token_keys_takes_none() {
    let pki = Pki::new(&[]);
    let server = start(&pki, &pki.options());
    let close = refusal(server.holding(pki.token("feed"))).await;
    assert_eq!(close, Close::new(CloseCode::UNAUTHORIZED, "this server takes no tokens"));
    // Without one everybody is welcome, as ever.
    publisher(server.client.clone(), named(1, "feed")).await.finish().await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_tokens_can_change_while_both_are_taken() {
    let pki = Pki::new(&[]);
    let next = SigningKey::generate().unwrap();
    let file = pki.file("next.pub.pem");
    std::fs::write(&file, next.public().to_pem()).unwrap();
    let mut options = pki.with_tokens();
    options.auth.token_keys.push(file.clone());
    let server = start(&pki, &options);
    let new = Arc::new(next.issue(&pki.request("feed")).unwrap());
    for credential in [pki.token("feed"), Arc::clone(&new)] {
        publisher(server.holding(credential), named(1, "feed")).await.finish().await.unwrap();
    }
    // The old key goes, without a stop.
    options.auth.token_keys = vec![file];
    server.quic.reload(load(&pki, &options)).unwrap();
    let close = refusal(server.holding(pki.token("feed"))).await;
    assert!(close.reason.starts_with("the token is signed with the key `"), "{close}");
    publisher(server.holding(new), named(1, "feed")).await.finish().await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_file_keeps_a_client_connected() {
    let pki = Pki::new(&[]);
    let mut options = pki.with_tokens();
    // So short that connections end while the test looks on, and come back with what the file then holds.
    options.auth.session_max = Duration::from_secs(1);
    let server = start(&pki, &options);
    let file = pki.file("feed.token");
    // At once, as whoever renews a file that is read meanwhile does.
    let write = |request: TokenRequest| {
        let next = file.with_extension("next");
        std::fs::write(&next, pki.issuer.issue(&request).unwrap().to_json().unwrap()).unwrap();
        std::fs::rename(&next, &file).unwrap();
    };
    write(pki.request("feed"));
    let client =
        ClientOptions { credential: Some(CredentialSource::File(file.clone())), ..server.client.clone() };
    let publisher = publisher(client, named(1, "feed")).await;
    let (mut sent, events) = (0, trades(100_000));
    while publisher.stats().connections < 3 {
        publisher.send(&events[sent..sent + 1]).await.unwrap();
        publisher.settle().await.unwrap();
        write(TokenRequest { lifetime_s: 301 + sent as u64 % 100, ..pki.request("feed") });
        sent = (sent + 1).min(events.len() - 1);
    }
    // An expired one ends it, with the reason.
    write(TokenRequest { from_s: now() - 400, ..pki.request("feed") });
    let error = loop {
        match publisher.settle().await {
            Ok(()) => match publisher.send(&events[sent..sent + 1]).await {
                Ok(()) => sent = (sent + 1).min(events.len() - 1),
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the token expired 100 s ago"), "{error}");
    assert!(server.quic.stats().expired >= 3);
    let report = server.end().await;
    let ledger = report.ingest.stats.sources[0].ledger;
    assert_eq!((ledger.duplicate, ledger.ahead, ledger.refused), (0, 0, 0), "exactly once: {ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_tokens_say_what_may_be_done() {
    let pki = Pki::new(&["desk"]);
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let rule = |who: &str, verb, streams: &[&str], symbols: &[&str]| tidegate_proto::access::PrincipalRule {
        principal: who.into(),
        verbs: vec![verb],
        streams: owned(streams),
        symbols: owned(symbols),
    };
    let mut options = pki.with_tokens();
    options.tls.client_ca = Some(pki.file("ca-cert.pem"));
    options.auth.rules = vec![
        rule("feed", Verb::Publish, &["cme"], &["A", "B*"]),
        rule("desk", Verb::Subscribe, &["bars.*"], &["A", "B*"]),
        rule("all", Verb::Subscribe, &["*"], &["*"]),
    ];
    let server = start(&pki, &options);
    let feed = server.holding(pki.token("feed"));

    // Feeds: the source, then each name.
    let error = Publisher::connect(feed.clone(), named(1, "ice")).await.err().unwrap();
    assert!(error.to_string().contains("`feed` may not publish `ice`"), "{error}");
    let bad = Publisher::connect(feed.clone(), named(1, "cme")).await.unwrap();
    bad.define("A").unwrap();
    bad.define("C").unwrap();
    bad.send(&trades(1)).await.unwrap();
    let error = bad.settle().await.unwrap_err();
    assert!(error.to_string().contains("`feed` may not publish `C` of `cme`, allowed are B*, A"), "{error}");
    let good = Publisher::connect(feed.clone(), named(2, "cme")).await.unwrap();
    for name in ["A", "B", "BB"] {
        good.define(name).unwrap();
    }
    good.send(&trades(3_000)).await.unwrap();
    good.settle().await.unwrap();
    // Somebody else cannot take the source over.
    let thief = server.holding(pki.token("all"));
    let error = Publisher::connect(thief.clone(), named(2, "cme")).await.err().unwrap();
    assert!(error.to_string().contains("`all` may not publish `cme`"), "{error}");

    // Readers: by certificate and by token; what is asked for beyond the rules is refused, never left out.
    let desk = server.known(pki.client("desk"));
    let ask = |client: &ClientOptions, keys: &[&str]| {
        let keys = Keys::of_patterns(keys.iter().copied());
        Subscriber::connect(client.clone(), "reader", Subscription { keys, ..Subscription::to(["bars.1s"]) })
    };
    for keys in [&["A"][..], &["B*"], &["BB", "A"]] {
        ask(&desk, keys).await.unwrap().close().await;
    }
    for (keys, says) in [
        (&[][..], "`desk` may not subscribe all symbols of `bars.1s`, allowed are B*, A"),
        (&["A*"], "`desk` may not subscribe `A*` of `bars.1s`, allowed are B*, A"),
        (&["A", "C"], "`desk` may not subscribe `C` of `bars.1s`, allowed are B*, A"),
    ] {
        let mut subscriber = ask(&desk, keys).await.unwrap();
        let error = subscriber.next().await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let narrow = Narrow { verbs: vec![Verb::Subscribe], symbols: owned(&["B*"]), ..Narrow::default() };
    let request = TokenRequest { narrow: Some(narrow), ..pki.request("desk") };
    let token = server.holding(Arc::new(pki.issuer.issue(&request).unwrap()));
    let mut subscriber = ask(&token, &["A"]).await.unwrap();
    let error = subscriber.next().await.unwrap_err();
    assert!(
        error.to_string().contains("`desk` may not subscribe `A` of `bars.1s`, allowed are B*"),
        "{error}"
    );
    let mut feed_reads = ask(&feed, &["A"]).await.unwrap();
    let error = feed_reads.next().await.unwrap_err();
    assert!(error.to_string().contains("`feed` may not subscribe `bars.1s`"), "{error}");
    ask(&thief, &[]).await.unwrap().close().await;
    good.finish().await.unwrap();
    let report = server.end().await;
    assert_eq!(report.ingest.stats.sources.iter().map(|source| source.ledger.accepted).sum::<u64>(), 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_before_hello_gets_nowhere() {
    let pki = Pki::new(&[]);
    let server = start(&pki, &pki.with_tokens());
    let endpoint = raw_endpoint();
    for alpn in [ALPN_FEED, ALPN_SUBSCRIBE] {
        let connection = raw_connect(&pki, &endpoint, server.quic.address(), alpn).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let mut words = Vec::new();
        FrameWriter::new(&mut words).heartbeat(1, 1);
        words.extend(hello(None));
        send.write_all(&words).await.unwrap();
        let (code, reason) = closed(&mut receive).await;
        assert_eq!(code, CloseCode::PROTOCOL);
        assert_eq!(reason, "at byte 0: a Heartbeat frame is not expected before HELLO");
    }
    server.end().await;
}
