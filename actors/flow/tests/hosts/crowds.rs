//! Floods by many clients of which none is loud, and connections held open inside TLS. Beside each the ordinary traffic that looks like it.

use crate::bounded::record;
use crate::net::{ACK, Net, PSH, Random, host, ip, told};
use tidegate_flow::table::SECOND;
use tidegate_flow::{Alert, Detectors, FlowRecord, Ip, Kind};

const SERVER: &str = "203.0.113.80";
const HELLO: [u8; 517] = {
    let mut hello = [7; 517];
    (hello[0], hello[1], hello[2], hello[3], hello[4], hello[5]) = (22, 3, 1, 2, 0, 1);
    hello
};
const CERTIFICATE: [u8; 2_800] = [22; 2_800];

/// What a client of `port` asks at `at`, in as many connections or datagrams as it likes.
fn ask(net: &mut Net, at: f64, client: Ip, port: u16, random: &mut Random) {
    let from = (client, net.ephemeral());
    let server = (ip(SERVER), port);
    match port {
        53 => net.dns(at, client, server.0, b"www.example.org", 1, &[192, 0, 2, 1], 0),
        80 => {
            let page =
                format!("GET /search?q={} HTTP/1.1\r\nHost: shop.example\r\n\r\n", random.below(1_000_000));
            let answer = vec![b'x'; 500 + random.below(2_000) as usize];
            let answer = [b"HTTP/1.1 200 OK\r\n\r\n", &answer[..]].concat();
            net.talk(at, from, server, 0.02, &[(true, page.as_bytes()), (false, &answer)]);
        }
        _ => {
            let asks = vec![23; 200 + random.below(200) as usize];
            net.talk(
                at,
                from,
                server,
                0.02,
                &[(true, &HELLO), (false, &CERTIFICATE), (true, &asks), (false, &[23; 900])],
            );
        }
    }
}

/// Some minutes of a service's ordinary clients, a few a minute.
fn ordinary(net: &mut Net, minutes: u32, port: u16, random: &mut Random) {
    for minute in 0..minutes {
        for _ in 0..10 + random.below(10) {
            let client = host("198.51.100.0", 1 + random.below(250) as u32);
            let at = f64::from(minute) * 60.0 + 60.0 * random.unit();
            (0..1 + random.below(3)).for_each(|n| ask(net, at + n as f64 * 0.3, client, port, random));
        }
    }
}

/// Two minutes of 700 clients, three questions a minute of each: nobody among them is loud.
fn flood(net: &mut Net, begin: f64, network: &str, port: u16, random: &mut Random) {
    for client in 0..700 {
        for n in 0..6 {
            let at = begin + f64::from(n) * 20.0 + 20.0 * random.unit();
            ask(net, at, host(network, client * 37), port, random);
        }
    }
}

#[test]
fn requests_of_many_clients_that_each_ask_little() {
    for (port, kind) in [(80, Kind::HttpFlood), (443, Kind::HttpFlood), (53, Kind::UdpFlood)] {
        let (mut net, mut random) = (Net::new(), Random::new(u64::from(port)));
        ordinary(&mut net, 50, port, &mut random);
        flood(&mut net, 2_520.0, "45.60.0.0", port, &mut random);
        let alerts = net.alerts();
        let named: Vec<_> = alerts.iter().map(|alert| (alert.source, alert.kind, alert.spoofed)).collect();
        assert_eq!(named, [(ip(SERVER), kind, true)], "{port}: {alerts:#?}");
        let reasons: Vec<_> = alerts[0].reasons().collect();
        assert!(reasons[0].seen > 8.0 * reasons[0].expected, "{port}: {reasons:?}");
        // The flood, and nothing before it.
        assert!(alerts[0].range.first_ns >= 1_700_002_500 * SECOND, "{:?}", alerts[0].range);
    }
}

/// Nothing is said of a service that was not seen for half an hour, nor of clients that are inside.
#[test]
fn a_new_service_is_still_learning_and_people_inside_begin_together() {
    for port in [80, 443, 53] {
        let (mut net, mut random) = (Net::new(), Random::new(7));
        ordinary(&mut net, 20, port, &mut random);
        flood(&mut net, 900.0, "45.60.0.0", port, &mut random);
        assert_eq!(told(net), [], "{port}");
        let (mut net, mut random) = (Net::new(), Random::new(8));
        ordinary(&mut net, 50, port, &mut random);
        flood(&mut net, 2_520.0, "10.7.0.0", port, &mut random);
        assert_eq!(told(net), [], "{port}");
    }
}

/// Flows of a log: so many clients in each minute, each with some connections.
fn by_the_minute(minutes: &[u32], each: u64, protocol: u8, port: u16) -> Vec<Alert> {
    let mut detectors = Detectors::default();
    let mut random = Random::new(11);
    let mut all: Vec<FlowRecord> = Vec::new();
    for (minute, &clients) in minutes.iter().enumerate() {
        for _ in 0..clients {
            let client = host("60.0.0.0", random.below(1 << 24) as u32);
            let begin = minute as u64 * 60 * SECOND + random.below(60 * SECOND);
            for _ in 0..1 + random.below(2 * each - 1) {
                let start = 1_700_000_040 * SECOND + begin + random.below(5 * SECOND);
                let mut flow = record(1, start, client, ip(SERVER), port, true);
                flow.protocol = protocol;
                flow.originator_port = 1_024 + random.below(60_000) as u16;
                flow.sent.bytes = 300 + random.below(2_000);
                flow.received.bytes = 1_000 + random.below(30_000);
                all.push(flow);
            }
        }
    }
    all.sort_by_key(|flow| flow.last_ns);
    for (at, flow) in all.iter_mut().enumerate() {
        flow.packets = (at as u64 + 1, at as u64 + 1);
    }
    detectors.logged_all(&all);
    detectors.alerts().to_vec()
}

/// A clock that thousands ask, and now and then a few thousand more.
#[test]
fn a_server_of_time_with_thousands_of_clients() {
    let minutes: Vec<u32> = (0..70).map(|minute| if minute % 23 == 22 { 4_000 } else { 1_000 }).collect();
    assert_eq!(by_the_minute(&minutes, 1, 17, 123), []);
}

/// A shop's morning: three visitors a minute at six, seven hundred at eight; then a letter to customers brings five times as many in ten
/// minutes. The same crowd from one minute to the next is another thing.
#[test]
fn a_morning_of_a_shop() {
    let mut minutes: Vec<u32> = vec![3; 45];
    minutes.extend((0..120).map(|minute| (3.0 * 1.0465f64.powi(minute)) as u32));
    assert!((600..800).contains(minutes.last().unwrap()));
    assert_eq!(by_the_minute(&minutes, 3, 6, 443), []);
    let mut letter = vec![60; 45];
    letter.extend((0..10).map(|minute| 60 + 24 * minute));
    letter.extend([300; 30]);
    assert_eq!(by_the_minute(&letter, 3, 6, 443), []);
    let mut flood = vec![60; 45];
    flood.extend([1_500; 5]);
    let alerts = by_the_minute(&flood, 3, 6, 443);
    let named: Vec<_> = alerts.iter().map(|alert| (alert.source, alert.kind)).collect();
    assert_eq!(named, [(ip(SERVER), Kind::HttpFlood)]);
    // It goes on as long as the flood does.
    assert!(alerts[0].seen_ns - alerts[0].raised_ns > 200 * SECOND, "{alerts:#?}");
}

/// A connection of TLS that is not ended: the handshake, then so many bytes by the client or the server, each so long after it.
fn held(net: &mut Net, at: f64, client: Ip, lines: &[(f64, bool, usize)]) {
    let (client, server) = ((client, net.ephemeral()), (ip(SERVER), 443));
    net.open(at, client, server);
    let handshake = [(0.02, true, 517), (0.04, false, 2_800), (0.06, true, 80), (0.08, false, 250)];
    let (mut c, mut s) = (2, 101);
    for &(after, from_client, bytes) in handshake.iter().chain(lines) {
        let payload = match (after == 0.02, from_client) {
            (true, _) => HELLO.to_vec(),
            (false, true) => vec![23; bytes],
            (false, false) => vec![22; bytes],
        };
        if from_client {
            net.tcp(at + after, client, server, ACK | PSH, c, s, &payload);
            c += bytes as u32;
        } else {
            net.tcp(at + after, server, client, ACK | PSH, s, c, &payload);
            s += bytes as u32;
        }
    }
}

#[test]
fn heads_and_bodies_that_trickle_inside_tls() {
    // A head without an end, a line every ten seconds; a form, a few bytes every seven.
    for (first, pause) in [(230, 10.0), (190, 7.0)] {
        let mut lines = vec![(0.1, true, first)];
        lines.extend((1..16).map(|n| (0.1 + pause * f64::from(n), true, 45)));
        // By one client; and by five together, of which none holds fifty.
        let mut net = Net::new();
        (0..120).for_each(|n| held(&mut net, f64::from(n) * 0.2, ip("192.0.2.66"), &lines));
        let alerts = net.alerts();
        let named: Vec<_> = alerts.iter().map(|alert| (alert.source, alert.kind, alert.spoofed)).collect();
        assert_eq!(named, [(ip("192.0.2.66"), Kind::SlowDos, false)]);
        let (mut net, mut random) = (Net::new(), Random::new(9));
        (0..150).for_each(|n| held(&mut net, 30.0 * random.unit(), host("192.0.2.0", n % 5), &lines));
        let alerts = net.alerts();
        let named: Vec<_> = alerts.iter().map(|alert| (alert.source, alert.kind, alert.spoofed)).collect();
        assert_eq!(named, [(ip(SERVER), Kind::SlowDos, true)]);
    }
}

/// Web sockets, clients that wait for news, uploads over a bad line: hundreds of them behind one address.
#[test]
fn connections_that_wait_inside_tls() {
    let socket_of_client = |n: u32| (0.1 + 20.0 * f64::from(n), true, 30);
    let answered = |n: u32| (0.2 + 20.0 * f64::from(n), false, 30);
    let mut shapes: Vec<Vec<(f64, bool, usize)>> = Vec::new();
    // A web socket whose client keeps it alive, and is answered; one whose server does.
    shapes.push((0..12).flat_map(|n| [socket_of_client(n), answered(n)]).collect());
    shapes
        .push((0..12).flat_map(|n| [(0.09 + 20.0 * f64::from(n), false, 30), socket_of_client(n)]).collect());
    // News: asked for, told after fifty seconds, asked for again.
    let news = |n: u32| [(0.1 + 51.0 * f64::from(n), true, 180), (50.0 + 51.0 * f64::from(n), false, 400)];
    shapes.push((0..5).flat_map(news).collect());
    // Asked for, and nothing comes.
    shapes.push(vec![(0.1, true, 180)]);
    // A question in five pieces at once, and an answer after a minute.
    let pieces = (0..5).map(|n| (0.1 + 0.01 * f64::from(n), true, 60));
    shapes.push(pieces.chain([(60.0, false, 900), (61.0, true, 60)]).collect());
    // A picture over a line that is as good as broken.
    shapes.push((0..30).map(|n| (0.1 + 5.0 * f64::from(n), true, 1_200)).collect());
    for lines in shapes {
        let mut net = Net::new();
        (0..300).for_each(|n| held(&mut net, f64::from(n) * 0.2, ip("192.0.2.66"), &lines));
        assert_eq!(told(net), [], "{lines:?}");
    }
    // One slow phone each of a hundred.
    let mut lines = vec![(0.1, true, 230)];
    lines.extend((1..16).map(|n| (0.1 + 10.0 * f64::from(n), true, 45)));
    let mut net = Net::new();
    (0..100).for_each(|n| held(&mut net, f64::from(n) * 0.2, host("192.0.2.0", n), &lines));
    assert_eq!(told(net), []);
    // Devices that say a word now and then without an answer, fifty within an hour.
    let mut net = Net::new();
    (0..50).for_each(|n| {
        held(&mut net, f64::from(n) * 70.0, ip("192.0.2.66"), &lines[..6 + n as usize * 7 % 10])
    });
    assert_eq!(told(net), []);
}
