//! Certificates, quotas, changes without a stop, and crowds: against a real server.

mod common;

use common::*;
use std::time::Duration;
use tidegate_live::LiveOptions;
use tidegate_proto::access::{Policy, PrincipalRule, Verb};
use tidegate_proto::feed::FeedServerOptions;
use tidegate_proto::subscription::{Keys, Subscription};
use tidegate_proto::{ALPN_FEED, ALPN_SUBSCRIBE, AckMode, CloseCode, FrameWriter, Plane};
use tidegate_quic::{
    ClientError, ClientOptions, Identity, Limits, Publisher, SecurityError, ServerError, Subscriber,
    TlsError, Update,
};

#[track_caller]
fn refused_in_handshake(outcome: Result<Publisher, ClientError>, says: &str) {
    match outcome.err() {
        Some(ClientError::Handshake { reason, .. }) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_who_is_who() {
    let pki = Pki::new(&["desk"]);
    let other = Pki::new(&["desk"]);
    let mut options = pki.options();
    options.tls.client_ca = Some(pki.file("ca-cert.pem"));
    let server = start(&pki, &options);
    let good = publisher(server.known(pki.client("desk")), named(1, "feed")).await;
    good.send(&trades(100)).await.unwrap();

    // No certificate, one of another CA, and a server's in place of a client's.
    let connect = |client: ClientOptions| Publisher::connect(client, named(2, "feed"));
    refused_in_handshake(connect(server.client.clone()).await, "peer sent no certificates");
    refused_in_handshake(connect(server.known(other.client("desk"))).await, "UnknownIssuer");
    let swapped = Identity::of_files(&pki.file("server-cert.pem"), &pki.file("server-key.pem")).unwrap();
    refused_in_handshake(
        connect(server.known(swapped)).await,
        "does not allow extended key usage for client authentication",
    );
    // A server that the client has no reason to believe, or that is somebody else.
    let doubting = ClientOptions { trust: other.trust(), ..server.known(pki.client("desk")) };
    refused_in_handshake(connect(doubting).await, "UnknownIssuer");
    let elsewhere = ClientOptions { server_name: "example.org".into(), ..server.known(pki.client("desk")) };
    refused_in_handshake(connect(elsewhere).await, "not valid for name");
    // Readers are told as well.
    let spec = Subscription::to(["bars.1s"]);
    let error = Subscriber::connect(server.client.clone(), "reader", spec).await.err().unwrap();
    assert!(matches!(error, ClientError::Handshake { .. }), "{error}");

    good.send(&trades(200).split_off(100)).await.unwrap();
    assert_eq!(good.finish().await.unwrap().acked, 200);
    let report = server.end().await;
    let sources = &report.ingest.stats.sources;
    assert_eq!((sources.len(), &*sources[0].principal, sources[0].ledger.accepted), (1, "desk", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_the_handshake_ends_is_not_taken() {
    let pki = Pki::new(&[]);
    let server = start(&pki, &pki.options());
    let endpoint = raw_endpoint();
    // One configuration, so that the second connection has all there is to remember of the first.
    let config = raw_config(&pki, ALPN_FEED);
    for _ in 0..2 {
        let connecting = endpoint.connect_with(config.clone(), server.quic.address(), "localhost").unwrap();
        let connecting =
            connecting.into_0rtt().map(drop).expect_err("the server gives nothing to resume with");
        let connection = connecting.await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(b"nonsense").await.unwrap();
        assert_eq!(closed(&mut receive).await.0, CloseCode::PROTOCOL);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_back_one_principal_and_nobody_else() {
    let pki = Pki::new(&[]);
    let mut options = pki.with_tokens();
    options.quotas.events_per_second = Some(4_000);
    options.quotas.symbols = Some(2);
    let server = start(&pki, &options);
    // Twice what is saved up: the second half comes as the rate brings it.
    let fast = publisher(server.holding(pki.token("fast")), named(1, "fast")).await;
    fast.send(&trades(8_000)).await.unwrap();
    let calm = publisher(server.holding(pki.token("calm")), named(2, "calm")).await;
    calm.send(&trades(1_000)).await.unwrap();
    assert_eq!(calm.finish().await.unwrap().acked, 1_000);
    let stats = fast.finish().await.unwrap();
    assert_eq!((stats.acked, stats.connections), (8_000, 1));
    let report = server.end().await;
    let sources = &report.ingest.stats.sources;
    assert!(sources[0].throttled > 0 && sources[1].throttled == 0, "{sources:?}");
    assert_eq!((sources[0].ledger.accepted, sources[0].ledger.refused), (8_000, 0), "late, not lost");
    // The third name had no place: its events are counted under one name for all such.
    assert_eq!((sources[0].ledger.overflowed, sources[1].ledger.overflowed), (2_666, 333));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_over_the_quota_wait_in_their_own_connection() {
    let pki = Pki::new(&[]);
    let mut options = pki.with_tokens();
    options.quotas.bytes_per_second = Some(70_000);
    let server = start(&pki, &options);
    let fast = publisher(server.holding(pki.token("fast")), named(1, "fast")).await;
    // Some 200 kB of packed events.
    fast.send(&trades(24_000)).await.unwrap();
    let calm = publisher(server.holding(pki.token("calm")), named(2, "calm")).await;
    calm.send(&trades(100)).await.unwrap();
    calm.finish().await.unwrap();
    assert_eq!(fast.finish().await.unwrap().acked, 24_000);
    assert!(server.quic.stats().throttled > 0);
    let report = server.end().await;
    assert_eq!(report.ingest.stats.sources[0].ledger.accepted, 24_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_counted_by_principal() {
    let pki = Pki::new(&[]);
    let mut options = pki.with_tokens();
    options.quotas.subscriptions = Some(2);
    let server = start(&pki, &options);
    let ask = |who: &str| {
        let client = server.holding(pki.token(who));
        async move {
            let mut subscriber = Subscriber::connect(client, "reader", Subscription::to(["bars.1s"])).await?;
            match subscriber.next().await? {
                Some(Update::Live(_)) => Ok(subscriber),
                other => panic!("{other:?}"),
            }
        }
    };
    let first = ask("desk").await.unwrap();
    let _second = ask("desk").await.unwrap();
    match ask("desk").await.err() {
        Some(ClientError::Closed(close)) => {
            assert_eq!(close.to_string(), "quota: `desk` has 2 subscriptions, which is its quota");
        }
        other => panic!("{other:?}"),
    }
    ask("other").await.unwrap();
    assert_eq!(server.quic.stats().over_quota, 1);
    // A place comes back when its reader has left; the server notices in its own time.
    first.close().await;
    let mut again = ask("desk").await;
    while again.is_err() {
        again = ask("desk").await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_without_a_stop() {
    let (old, new) = (Pki::new(&[]), Pki::new(&[]));
    let server = start(&old, &old.options());
    let events = trades(30_000);
    let standing = publisher(server.client.clone(), named(1, "standing")).await;
    standing.send(&events[..10_000]).await.unwrap();

    // Broken ones change nothing: a key that is not the certificate's, no certificate, one whose time is over.
    let mut mixed = old.options();
    mixed.tls.key = new.options().tls.key;
    let error = server.quic.reload(load(&old, &mixed)).unwrap_err();
    assert!(matches!(error, ServerError::Tls(TlsError::Rustls(_))), "{error}");
    let mut none = old.options();
    none.tls.cert = Some(old.file("ca-key.pem"));
    let error = none.load(old.path(), now).unwrap_err();
    assert!(matches!(error, SecurityError::Tls(TlsError::Pem { what: "certificate", .. })), "{error}");
    let late = || now() + 11 * 86_400;
    let error = old.options().load(old.path(), late).unwrap_err();
    assert!(matches!(error, SecurityError::Certificate { .. }), "{error}");
    publisher(server.client.clone(), named(2, "after")).await.finish().await.unwrap();

    server.quic.reload(load(&new, &new.options())).unwrap();
    // Who comes now meets the new one.
    let believing = ClientOptions { trust: new.trust(), ..server.client.clone() };
    refused_in_handshake(Publisher::connect(server.client.clone(), named(3, "old")).await, "UnknownIssuer");
    publisher(believing, named(3, "new")).await.finish().await.unwrap();
    // Who was there stays, and loses nothing.
    standing.send(&events[10_000..]).await.unwrap();
    let stats = standing.finish().await.unwrap();
    assert_eq!((stats.acked, stats.connections), (30_000, 1));
    let report = server.end().await;
    assert_eq!(report.ingest.stats.sources[0].ledger.accepted, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_for_those_who_come_later() {
    let pki = Pki::new(&[]);
    let mut options = pki.with_tokens();
    let server = start(&pki, &options);
    let standing = publisher(server.holding(pki.token("feed")), named(1, "standing")).await;
    options.auth.rules = vec![PrincipalRule::new("desk", &[Verb::Subscribe])];
    assert!(Policy::new(&options.auth.rules).is_ok());
    server.quic.reload(load(&pki, &options)).unwrap();
    standing.send(&trades(1_000)).await.unwrap();
    assert_eq!(standing.finish().await.unwrap().acked, 1_000);
    let error = Publisher::connect(server.holding(pki.token("feed")), named(1, "later")).await.err().unwrap();
    assert!(error.to_string().contains("`feed` may not publish `later`"), "{error}");
    // Once it takes nobody, a change does not open it again.
    server.quic.refuse_new();
    server.quic.reload(load(&pki, &options)).unwrap();
    let client = ClientOptions { give_up_after: Duration::ZERO, ..server.holding(pki.token("desk")) };
    let keys = Keys::All;
    let spec = Subscription { keys, ..Subscription::to(["bars.1s"]) };
    let error = Subscriber::connect(client, "reader", spec).await.err().unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    server.end().await;
}

/// Connections of a crowd: more than are believed unasked, and more than are taken at all.
const CROWD: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_is_asked_for_its_address_and_sent_away() {
    let pki = Pki::new(&[]);
    let feed = FeedServerOptions { hello_ns: 1_500_000_000, ..FeedServerOptions::default() };
    let limits = Limits { connections_max: 700, validate_above: 50, ..Limits::default() };
    let options = LiveOptions { feed, ..LiveOptions::default() };
    let server = start_with(&pki, load(&pki, &pki.options()), options, limits);
    let good = publisher(server.client.clone(), named(1, "good")).await;
    good.send(&trades(500)).await.unwrap();

    // Half of them open a stream and write a byte, the others not even that.
    let endpoint = raw_endpoint();
    let mut crowd = tokio::task::JoinSet::new();
    for at in 0..CROWD {
        let (endpoint, address) = (endpoint.clone(), server.quic.address());
        let config = raw_config(&pki, if at % 2 == 0 { ALPN_FEED } else { ALPN_SUBSCRIBE });
        crowd.spawn(async move {
            let connection = endpoint.connect_with(config, address, "localhost").unwrap().await.ok()?;
            let stream = connection.open_bi().await.ok();
            if let (true, Some((mut send, _))) = (at % 4 < 2, stream) {
                let _ = send.write_all(b"T").await;
                // Kept open, until the server has had enough.
                connection.closed().await;
            }
            Some(connection.closed().await)
        });
    }
    let (mut came, mut most) = (0, 0);
    while let Some(one) = crowd.join_next().await {
        came += usize::from(one.unwrap().is_some());
        most = most.max(server.quic.stats().open);
    }
    assert!(came > 50, "some were let in, and each was sent away");
    // Everybody is gone on the server's side too, but for who was there before.
    while server.quic.stats().open > 1 {
        tokio::task::yield_now().await;
    }
    let stats = server.quic.stats();
    assert!(stats.retried > 0 && most <= limits.connections_max, "{most} at once, {stats:?}");

    good.send(&trades(1_000).split_off(500)).await.unwrap();
    assert_eq!(good.finish().await.unwrap().acked, 1_000);
    let report = server.end().await;
    assert_eq!(report.ingest.stats.sources.len(), 1, "nobody else took a place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_now_and_then_keeps_nobody_alive() {
    let pki = Pki::new(&[]);
    let feed = FeedServerOptions {
        hello_ns: 300_000_000,
        silence_ns: 300_000_000,
        heartbeat_ms: 100,
        ..FeedServerOptions::default()
    };
    let options = LiveOptions { feed, ..LiveOptions::default() };
    let server = start_with(&pki, load(&pki, &pki.options()), options, Limits::default());
    let endpoint = raw_endpoint();
    let mut hello = Vec::new();
    FrameWriter::new(&mut hello).hello(&tidegate_proto::frame::Hello {
        version_min: 1,
        version_max: 1,
        plane: Plane::Feed,
        group: None,
        ack_mode: AckMode::Leader,
        source_id: 1,
        session: 1,
        name: "slow",
        credential: None,
    });
    // Before HELLO is whole, and behind it in the middle of the next frame.
    let mut beat = Vec::new();
    FrameWriter::new(&mut beat).heartbeat(1, 1);
    for (at_once, slowly) in [(&[][..], &hello), (&hello, &beat)] {
        let connection = raw_connect(&pki, &endpoint, server.quic.address(), ALPN_FEED).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(at_once).await.unwrap();
        let trickle = async {
            let mut tick = tokio::time::interval(Duration::from_millis(40));
            for byte in slowly.iter().cycle() {
                tick.tick().await;
                if send.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            (code, reason) = closed(&mut receive) => assert_eq!(code, CloseCode::SILENT, "{reason}"),
            () = trickle => panic!("it was let go on"),
        }
    }
    server.end().await;
}
