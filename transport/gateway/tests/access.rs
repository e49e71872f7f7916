//! A gateway that asks who is there: tokens in the one header they may come in, and rules for what is read.

mod common;

use common::{Answer, Client, World, request};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_gateway::GatewayOptions;
use tidegate_proto::access::{ANONYMOUS, Policy, PrincipalRule, Verb};
use tidegate_proto::{Admission, Close, CloseCode, Quotas};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// The principal is what the token says, for as many milliseconds as it says; nobody without one.
fn gate(token: Option<&[u8]>) -> Result<Admission, Close> {
    let some = PrincipalRule {
        streams: vec!["bars.*".into()],
        symbols: vec!["AQA*".into()],
        ..PrincipalRule::new("some", &[Verb::Subscribe])
    };
    let rules = Policy::new(&[some, PrincipalRule::new("all", &[Verb::Subscribe])]).unwrap();
    let token = token.and_then(|token| std::str::from_utf8(token).ok());
    let (token, stands) = match token.and_then(|token| token.split_once('~')) {
        Some((name, millis)) => (Some(name), Some(Duration::from_millis(millis.parse().unwrap()))),
        None => (token, None),
    };
    match token {
        Some(name @ ("some" | "all" | "other")) => {
            Ok(Admission { grant: rules.grant(name, None, Quotas::default()), stands })
        }
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
        ("/metrics", Some("Bearer some"), 403, "forbidden"),
        ("/v1/status", Some("Bearer some"), 200, ""),
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
        ("/v1/streams", Some("Bearer other"), 403, "forbidden"),
        ("/v1/keys", Some("Bearer other"), 403, "forbidden"),
        ("/v1/status", Some("Bearer other"), 403, "forbidden"),
        ("/v1/ws", Some("Bearer other"), 403, "forbidden"),
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
    let mut client = holding(&world, "some").await;
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

/// A WebSocket that is opened with a token.
async fn holding(world: &World, token: &str) -> Client {
    let mut upgrade = format!("ws://{}/v1/ws", world.address).into_client_request().unwrap();
    upgrade.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(upgrade, stream).await.unwrap();
    Client { socket }
}

/// An answer to somebody who holds a token.
async fn get(world: &World, path: &str, token: &str) -> Answer {
    let host = world.address;
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    request(host, &text).await
}

/// How often something was refused for a reason.
async fn refused(world: &World, reason: &str) -> u64 {
    let answer = get(world, "/metrics", "all").await;
    let name = format!("tidegate_refusals_total{{front=\"http\",reason=\"{reason}\"}} ");
    let line = answer.text().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Waits until the hub has so many subscribers.
async fn until_subscribers(world: &World, count: u64) {
    while world.subscribers().await != count {
        tokio::task::yield_now().await;
    }
}

const ALL: &str = r#"{"op":"subscribe","id":1,"streams":["bars.1s"]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stands_longer_than_its_token() {
    // The peer that reads nothing must not be ended by anything else.
    let write_timeout = Duration::from_secs(3_600);
    let options = GatewayOptions { write_timeout, ..GatewayOptions::default() };
    let mut world = World::start_behind(Some(Arc::new(gate)), options).await;
    world.feed(1_000).await;

    let mut client = holding(&world, "all~300").await;
    client.send(ALL).await;
    let mut said = client.next().await;
    while said["op"] != "error" {
        said = client.next().await;
    }
    assert_eq!((&said["code"], &said["id"]), (&json!("expired"), &Value::Null), "{said}");
    assert_eq!(client.closed().await, 4401);
    until_subscribers(&world, 0).await;

    let events = get(&world, "/v1/sse?streams=bars.1s&from=snapshot", "all~300").await;
    let last = events.text().trim_end().rsplit("\n\n").next().unwrap().to_owned();
    let data = last.strip_prefix("event: closed\ndata: ").unwrap_or_else(|| panic!("{last}"));
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()["code"], "expired");
    until_subscribers(&world, 0).await;
    assert_eq!(refused(&world, "expired").await, 2);

    // One that takes nothing of what is written to it: nobody waits for it to hear of its end.
    let mut stuck = holding(&world, "all~2000").await;
    stuck.send(ALL).await;
    until_subscribers(&world, 1).await;
    while world.subscribers().await > 0 {
        world.feed(5_000).await;
    }
    assert_eq!(refused(&world, "expired").await, 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_token_keeps_what_is_subscribed() {
    let mut world = World::start_behind(Some(Arc::new(gate)), GatewayOptions::default()).await;
    world.feed(1_000).await;
    let mut client = holding(&world, "all~3000").await;
    client.send(ALL).await;
    client.records(1, |_, others| others.iter().any(|other| other["op"] == "live")).await;
    // What is no token changes nothing.
    let wrong = client.ask(r#"{"op":"auth","token":"wrong"}"#).await;
    assert_eq!((&wrong["op"], &wrong["code"]), (&json!("error"), &json!("unauthorized")), "{wrong}");
    let fresh = client.ask(r#"{"op":"auth","token":"all"}"#).await;
    assert_eq!(fresh, json!({"op": "authorized", "principal": "all", "expires_in_ms": null}));
    // Opened later with the same token: when this one is closed, the first would have been.
    let mut other = holding(&world, "all~3000").await;
    assert_eq!(other.next().await["code"], "expired");
    assert_eq!(other.closed().await, 4401);

    let before = world.published(0).await;
    world.feed(2_000).await;
    let count = (world.published(0).await - before) as usize;
    let (records, others) = client.records(1, |records, _| records.len() >= count).await;
    assert_eq!((records.len(), others.len()), (count, 0), "no loss, no second beginning: {others:?}");

    // A token that says less ends what it does not cover, and nothing else.
    let narrow = r#"{"op":"subscribe","id":2,"streams":["bars.1s"],"keys":["AQA*"]}"#;
    assert_eq!(client.ask(narrow).await["op"], "subscribed");
    assert_eq!(client.next().await["op"], "live");
    let less = client.ask(r#"{"op":"auth","token":"some~60000"}"#).await;
    assert_eq!((&less["op"], &less["principal"]), (&json!("authorized"), &json!("some")));
    assert!((1..=60_000).contains(&less["expires_in_ms"].as_u64().unwrap()), "{less}");
    let ended = client.next().await;
    assert_eq!(
        (&ended["op"], &ended["id"], &ended["code"]),
        (&json!("closed"), &json!(1), &json!("forbidden"))
    );
    until_subscribers(&world, 1).await;
    world.feed(2_000).await;
    let (records, _) = client.records(2, |records, _| !records.is_empty()).await;
    assert!(records.iter().all(|record| record["key"].as_str().unwrap().starts_with("AQA")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_says_who_it_is_behind_the_opening() {
    let options = GatewayOptions { head_timeout: Duration::from_millis(500), ..GatewayOptions::default() };
    let mut world = World::start_behind(Some(Arc::new(gate)), options).await;
    world.feed(1_000).await;
    // Nothing but a sign of life before that.
    let mut client = world.websocket().await;
    assert_eq!(client.ask(r#"{"op":"ping"}"#).await["op"], "pong");
    for (text, id) in [(ALL, json!(1)), (r#"{"op":"status","every_ms":100}"#, Value::Null)] {
        let refused = client.ask(text).await;
        assert_eq!((&refused["code"], &refused["id"]), (&json!("unauthorized"), &id), "{refused}");
    }
    assert_eq!(client.ask(r#"{"op":"auth","token":"all"}"#).await["op"], "authorized");
    assert_eq!(client.ask(ALL).await["op"], "subscribed");
    // Who is not believed, may read nothing, or stays silent, is closed with the same code.
    for (text, code) in [
        (r#"{"op":"auth","token":"wrong"}"#, "unauthorized"),
        (r#"{"op":"auth","token":"other"}"#, "forbidden"),
        ("", "unauthorized"),
    ] {
        let mut client = world.websocket().await;
        if !text.is_empty() {
            client.send(text).await;
        }
        assert_eq!(client.next().await["code"], code, "{text}");
        assert_eq!(client.closed().await, 4401, "{text}");
    }
    assert!(refused(&world, "unauthorized").await >= 4);
    assert_eq!(refused(&world, "forbidden").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_hold_what_may_be_read() {
    let mut world = World::start_behind(Some(Arc::new(gate)), GatewayOptions::default()).await;
    world.feed(4_000).await;
    let streams = get(&world, "/v1/streams", "some").await.json();
    let names = streams["streams"].as_array().unwrap().iter().map(|stream| stream["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["bars.1s", "bars.1m"]);
    let list = |answer: &Value| -> Vec<String> {
        answer["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = get(&world, "/v1/keys?limit=1000", "all").await.json();
    assert_eq!(all["total"], json!(list(&all).len()));
    let want: Vec<String> = list(&all).into_iter().filter(|name| name.starts_with("AQA")).collect();
    assert!(!want.is_empty() && want.len() < list(&all).len());
    for path in ["/v1/keys?limit=1000", "/v1/keys?limit=1000&stream=bars.1s"] {
        let mut want = list(&get(&world, path, "all").await.json());
        want.retain(|name| name.starts_with("AQA"));
        let some = get(&world, path, "some").await.json();
        assert_eq!((list(&some), &some["total"], &some["next"]), (want, &Value::Null, &Value::Null));
    }
    assert_eq!(get(&world, "/v1/keys?stream=ind.1s", "some").await.status, 403);
    // Page by page it is the same list.
    for (token, want) in [("some", &want), ("all", &list(&all))] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = get(&world, &format!("/v1/keys?limit=1{after}"), token).await.json();
            found.extend(list(&page));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(&found, want);
    }
    // Who feeds and who reads is for those who may see everything.
    let whole = get(&world, "/v1/status", "all").await.json();
    let some = get(&world, "/v1/status", "some").await.json();
    assert!(whole["feeds"].is_array() && whole["subscribers"].is_array(), "{whole}");
    assert_eq!((&some["feeds"], &some["subscribers"]), (&Value::Null, &Value::Null));
    assert_eq!(some["events"]["total"], whole["events"]["total"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_listed_origins_may_send_tokens() {
    let origins = vec!["http://localhost:5173".to_owned()];
    let options = GatewayOptions { origins, ..GatewayOptions::default() };
    let world = World::start_behind(Some(Arc::new(gate)), options).await;
    let ask = async |method: &str, origin: &str, more: &str| {
        let host = world.address;
        let text = format!(
            "{method} /v1/streams HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\n{more}connection: close\r\n\r\n"
        );
        request(host, &text).await
    };
    let may = "access-control-request-method: GET\r\naccess-control-request-headers: authorization\r\n";
    let answer = ask("OPTIONS", "http://localhost:5173", may).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-headers")),
        (204, Some("authorization, content-type")),
        "{}",
        answer.head
    );
    for (method, origin, more, status) in [
        ("OPTIONS", "http://evil.example", may, 403),
        ("GET", "http://localhost:5173", "", 401),
        ("GET", "http://localhost:5173", "authorization: Bearer all\r\n", 200),
        ("GET", "http://evil.example", "authorization: Bearer all\r\n", 403),
    ] {
        let answer = ask(method, origin, more).await;
        let listed = (!origin.contains("evil")).then_some(origin);
        let found = (answer.status, answer.header("access-control-allow-origin"));
        assert_eq!(found, (status, listed), "{method} {origin} {more}");
    }
    world.finish().await;
}
