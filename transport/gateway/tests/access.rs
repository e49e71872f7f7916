//! A gateway that asks who is there: tokens in the one header they may come in, and rules for what is read.

mod common;

use common::{Client, World, request};
use std::sync::Arc;
use tidegate_gateway::GatewayOptions;
use tidegate_proto::access::{ANONYMOUS, Policy, PrincipalRule, Verb};
use tidegate_proto::{Close, CloseCode, Grant, Quotas};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// The principal is what the token says; nobody without one.
fn gate(token: Option<&[u8]>) -> Result<Grant, Close> {
    let some = PrincipalRule {
        streams: vec!["bars.*".into()],
        symbols: vec!["AQA*".into()],
        ..PrincipalRule::new("some", &[Verb::Subscribe])
    };
    let rules = Policy::new(&[some, PrincipalRule::new("all", &[Verb::Subscribe])]).unwrap();
    match token.and_then(|token| std::str::from_utf8(token).ok()) {
        Some(name @ ("some" | "all" | "other")) => Ok(rules.grant(name, None, Quotas::default())),
        Some(_) => Err(Close::new(CloseCode::UNAUTHORIZED, "the token cannot be read")),
        None => Err(Close::new(CloseCode::UNAUTHORIZED, format!("{ANONYMOUS} may not"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_for_those_who_may() {
    let mut world = World::start_behind(Some(Arc::new(gate)), GatewayOptions::default()).await;
    world.feed(2_000).await;
    let one = "/v1/latest?stream=bars.1s&key=AQAA";
    for (path, authorization, status, code) in [
        // What says nothing about anybody's data.
        ("/v1/health", None, 200, ""),
        ("/v1/ready", None, 200, ""),
        ("/v1/openapi.json", None, 200, ""),
        // Nobody, and what is no token or comes in another way.
        (one, None, 401, "unauthorized"),
        ("/v1/streams", None, 401, "unauthorized"),
        ("/v1/keys", None, 401, "unauthorized"),
        ("/v1/status", None, 401, "unauthorized"),
        ("/v1/bars?stream=bars.1s&key=AQAA", None, 401, "unauthorized"),
        ("/v1/arrow?stream=bars.1s&key=AQAA", None, 401, "unauthorized"),
        ("/v1/sse?streams=bars.1s", None, 401, "unauthorized"),
        ("/v1/ws", None, 401, "unauthorized"),
        ("/metrics", None, 401, "unauthorized"),
        (one, Some("Bearer wrong"), 401, "unauthorized"),
        (one, Some("Basic c29tZTo="), 401, "unauthorized"),
        (one, Some("Bearer"), 401, "unauthorized"),
        (one, Some("Bearer all\r\nauthorization: Bearer all"), 401, "unauthorized"),
        ("/v1/latest?stream=bars.1s&key=AQAA&token=all", Some("Bearer all"), 400, "unknown_parameter"),
        // Somebody who may read everything, and one who may read some.
        (one, Some("Bearer all"), 200, ""),
        ("/v1/latest?stream=bars.1s", Some("bearer all"), 200, ""),
        ("/metrics", Some("Bearer all"), 200, ""),
        (one, Some("Bearer some"), 200, ""),
        ("/v1/bars?stream=bars.1s&key=AQAA", Some("Bearer some"), 200, ""),
        ("/v1/arrow?stream=bars.1s&key=AQAA", Some("Bearer some"), 200, ""),
        ("/v1/latest?stream=bars.1s", Some("Bearer some"), 403, "forbidden"),
        ("/v1/latest?stream=bars.1s&key=B", Some("Bearer some"), 403, "forbidden"),
        ("/v1/bars?stream=bars.1s&key=B", Some("Bearer some"), 403, "forbidden"),
        ("/v1/arrow?stream=ind.1s&key=AQAA", Some("Bearer some"), 403, "forbidden"),
        ("/v1/sse?streams=bars.1s", Some("Bearer some"), 403, "forbidden"),
        ("/v1/sse?streams=bars.1s&keys=A*", Some("Bearer some"), 403, "forbidden"),
        // Somebody about whom no rule is.
        (one, Some("Bearer other"), 403, "forbidden"),
    ] {
        let header = authorization.map_or_else(String::new, |text| format!("authorization: {text}\r\n"));
        let host = world.address;
        let text = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{header}connection: close\r\n\r\n");
        let answer = request(world.address, &text).await;
        assert_eq!(answer.status, status, "{path} as {authorization:?}: {:?}", answer.head);
        if !code.is_empty() {
            assert_eq!(answer.json()["error"]["code"], code, "{path} as {authorization:?}");
        }
        assert_eq!(answer.header("www-authenticate"), (status == 401).then_some("Bearer"));
    }

    // A WebSocket has the rights it was opened with, for each of its subscriptions.
    let mut upgrade = format!("ws://{}/v1/ws", world.address).into_client_request().unwrap();
    upgrade.headers_mut().insert("authorization", "Bearer some".parse().unwrap());
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(upgrade, stream).await.unwrap();
    let mut client = Client { socket };
    let refused = client.ask(r#"{"op":"subscribe","id":1,"streams":["bars.1s"]}"#).await;
    assert_eq!(
        (&refused["op"], &refused["id"], &refused["code"]),
        (&"error".into(), &1.into(), &"forbidden".into())
    );
    let message = refused["message"].as_str().unwrap();
    assert_eq!(message, "`some` may not subscribe all symbols of `bars.1s`, allowed are AQA*");
    let taken = client.ask(r#"{"op":"subscribe","id":2,"streams":["bars.1s"],"keys":["AQA*"]}"#).await;
    assert_eq!(taken["op"], "subscribed", "{taken}");
    drop(client);
    world.finish().await;
}
