//! Data that leaves by unusual ways, and names that are made up; beside each the ordinary traffic that looks like it.

use crate::net::{ACK, FIN, Net, PSH, Random, host, ip, told};

const EVIL: &str = "10.0.0.66";
const SERVER: &str = "10.0.0.1";

#[track_caller]
fn only(net: Net, source: &str, kind: &'static str) {
    assert_eq!(told(net), [(source.to_owned(), kind)]);
}

#[track_caller]
fn quiet(net: Net) {
    assert_eq!(told(net), []);
}

/// Letters drawn at random.
fn letters(random: &mut Random, count: u64) -> String {
    (0..count).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
}

const WORDS: [&str; 24] = [
    "garden", "market", "online", "travel", "summer", "winter", "coffee", "silver", "bridge", "mountain",
    "letter", "signal", "window", "planet", "school", "doctor", "music", "paper", "stone", "forest",
    "harbor", "castle", "orange", "butter",
];

fn words(random: &mut Random) -> String {
    let word = |random: &mut Random| WORDS[random.below(24) as usize];
    format!("{}{}", word(random), word(random))
}

#[test]
fn names_that_a_program_makes_up() {
    // Twenty to the minute, one of which is there in the end; letters alone, with digits, below a country's kinds.
    for (top, digits) in [("com", false), ("ru", true), ("co.uk", false)] {
        let (mut net, mut random) = (Net::new(), Random::new(5));
        for n in 0..60u32 {
            let many = 9 + random.below(8);
            let mut name = letters(&mut random, many);
            if digits {
                name = name.replace(['a', 'e', 'i'], "4");
            }
            let (code, answer): (u8, &[u8]) = if n == 58 { (0, &[1, 2, 3, 4]) } else { (3, &[]) };
            let at = f64::from(n) * 3.0;
            net.dns(at, ip(EVIL), ip(SERVER), format!("{name}.{top}").as_bytes(), 1, answer, code);
        }
        only(net, EVIL, "dga");
    }
}

#[test]
fn names_of_which_there_are_none() {
    // Suffixes that are searched, and what a browser tries when it starts; a hundred clients who mistype, through their resolver.
    let (mut net, mut random) = (Net::new(), Random::new(6));
    for n in 0..400u32 {
        let at = f64::from(n) * 1.5;
        let client = host("10.0.3.0", n % 5);
        let name = format!("{}.corp.example.com", words(&mut random));
        net.dns(at, client, ip(SERVER), name.as_bytes(), 28, &[], 3);
        if n % 100 == 0 {
            for _ in 0..3 {
                let made_up = letters(&mut random, 12);
                net.dns(at + 0.1, client, ip(SERVER), made_up.as_bytes(), 1, &[], 3);
                let name = format!("{made_up}.corp.example.com");
                net.dns(at + 0.2, client, ip(SERVER), name.as_bytes(), 1, &[], 3);
            }
        }
    }
    quiet(net);
    // A mail server that looks whether senders are there: most spam comes from words, some from letters.
    let (mut net, mut random) = (Net::new(), Random::new(7));
    for n in 0..600u32 {
        let name = if n % 20 == 0 { letters(&mut random, 10) } else { words(&mut random) };
        let name = format!("{name}{}.com", random.below(90));
        net.dns(f64::from(n), ip("10.0.0.25"), ip(SERVER), name.as_bytes(), 15, &[], 3);
    }
    quiet(net);
    // Advertisers that a filter says there are none of, among pages that there are.
    let (mut net, mut random) = (Net::new(), Random::new(8));
    for n in 0..900u32 {
        let at = f64::from(n) * 0.6;
        let name = format!("{}.example.net", words(&mut random));
        net.dns(at, ip("10.0.0.5"), ip(SERVER), name.as_bytes(), 1, &[1, 2, 3, 4], 0);
        if n % 3 == 0 {
            let tail = ["ads", "track", "metrics", "pixel"][random.below(4) as usize];
            let name =
                format!("{tail}.{}{}.com", words(&mut random), ["", "hub", "cdn"][random.below(3) as usize]);
            net.dns(at, ip("10.0.0.5"), ip(SERVER), name.as_bytes(), 1, &[], 3);
        }
    }
    quiet(net);
    // A resolver that asks on for twenty clients, one of whom is sick: the resolver is not.
    let (mut net, mut random) = (Net::new(), Random::new(9));
    for n in 0..400u32 {
        let at = f64::from(n) * 0.9;
        let name = format!("{}.com", words(&mut random));
        net.dns(at, host("10.0.4.0", n % 20), ip(SERVER), name.as_bytes(), 1, &[1, 2, 3, 4], 0);
        if n >= 100 && n % 4 == 0 {
            let name = format!("{}.com", letters(&mut random, 11));
            net.dns(at + 0.1, ip(EVIL), ip(SERVER), name.as_bytes(), 1, &[], 3);
            net.dns(at + 0.12, ip(SERVER), ip("198.41.0.4"), name.as_bytes(), 1, &[], 3);
        }
    }
    only(net, EVIL, "dga");
}

#[test]
fn a_file_in_pings_that_are_answered() {
    for (bytes, clock) in [(1_400usize, false), (56, true), (32, false)] {
        for answered in [true, false] {
            let (mut net, mut random) = (Net::new(), Random::new(3));
            for n in 0..60u32 {
                let mut data: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
                if clock {
                    data[..16].fill(n as u8);
                }
                let at = f64::from(n) * 0.5;
                net.icmp(at, ip(EVIL), ip("203.0.113.9"), 8, n, &data);
                if answered {
                    net.icmp(at + 0.02, ip("203.0.113.9"), ip(EVIL), 0, n, &data);
                }
            }
            only(net, EVIL, "icmp-tunnel");
        }
    }
}

#[test]
fn pings_with_clocks_numbers_and_patterns() {
    let mut net = Net::new();
    let pattern = |from: u8, count: usize| (0..count).map(|n| from.wrapping_add(n as u8)).collect::<Vec<_>>();
    let mut random = Random::new(4);
    let mut ping = |at: f64, from: &str, n: u32, data: &[u8]| {
        net.icmp(at, ip(from), ip("203.0.113.9"), 8, n, data);
        net.icmp(at + 0.02, ip("203.0.113.9"), ip(from), 0, n, data);
    };
    for n in 0..600u32 {
        let at = f64::from(n);
        // A clock and a pattern, as Linux has it; letters of Windows; a number at the end; two programs that ping the same host by turns.
        let mut clock: Vec<u8> = (0..16).map(|_| random.next() as u8).collect();
        clock.extend(pattern(0x10, 40));
        ping(at, "10.0.0.5", n, &clock);
        ping(at, "10.0.0.6", n, b"abcdefghijklmnopqrstuvwabcdefghi");
        let mut numbered = vec![0xab; 60];
        numbered.extend(n.to_be_bytes());
        ping(at, "10.0.0.7", n, &numbered);
        ping(at, "10.0.0.8", n, &if n % 2 == 0 { vec![0; 56] } else { pattern(0, 56) });
    }
    quiet(net);
}

/// An hour of somebody who looks at pages, and then whatever `does`.
fn hour(does: impl FnOnce(&mut Net, f64)) -> Net {
    let mut net = Net::new();
    let mut random = Random::new(2);
    for n in 0..120u32 {
        let from = (ip("10.0.0.5"), net.ephemeral());
        let to = (host("198.51.100.0", random.below(40) as u32), 443);
        let up = vec![22; 600 + random.below(9_000) as usize];
        net.talk(
            f64::from(n) * 30.0 + random.unit() * 20.0,
            from,
            to,
            0.05,
            &[(true, &up), (false, &[22; 20_000])],
        );
    }
    does(&mut net, 3_700.0);
    net
}

#[test]
fn an_upload_in_many_small_pieces() {
    // To one address; and to four of one provider by turns.
    for addresses in [1, 4] {
        let net = hour(|net, start| {
            let mut random = Random::new(15);
            for n in 0..1_000u32 {
                let from = (ip("10.0.0.5"), net.ephemeral());
                let to = (host("203.0.113.8", n % addresses), 443);
                let at = start + f64::from(n) * 0.25;
                let piece = vec![23; 20_000 + random.below(60_000) as usize];
                net.talk(at, from, to, 0.02, &[(true, &piece), (false, &[23; 3_000])]);
            }
        });
        only(net, "10.0.0.5", "data-exfiltration");
    }
    // As much both ways is a call; as much to forty places is what somebody does who looks at much.
    let net = hour(|net, start| {
        let (from, to) = ((ip("10.0.0.5"), 40_000), (ip("203.0.113.8"), 3_478));
        for n in 0..20_000u32 {
            let at = start + f64::from(n) * 0.02;
            net.udp(at, from, to, &[0; 1_100]);
            net.udp(at + 0.01, to, from, &[0; 1_100]);
        }
    });
    quiet(net);
    let net = hour(|net, start| {
        let mut random = Random::new(12);
        for n in 0..1_000u32 {
            let from = (ip("10.0.0.5"), net.ephemeral());
            let to = (host("151.101.0.0", random.below(60_000) as u32), 443);
            let at = start + f64::from(n) * 0.25;
            net.talk(at, from, to, 0.02, &[(true, &vec![23; 30_000]), (false, &[23; 40_000])]);
        }
    });
    quiet(net);
}

#[test]
fn tunnels_in_text_records_by_short_and_long_labels() {
    // Labels of sixty letters; of twenty-four; several short ones in a row; upper and lower case; as the answers are short or long.
    let mut random = Random::new(13);
    let base32 = |random: &mut Random, count: u64| -> String {
        (0..count)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[random.below(32) as usize]))
            .collect()
    };
    type Make = fn(&mut Random, &dyn Fn(&mut Random, u64) -> String) -> String;
    let shapes: [Make; 3] = [
        |random, base32| format!("{}.{}", base32(random, 60), base32(random, 60)),
        |random, base32| base32(random, 26),
        |random, base32| (0..6).map(|_| base32(random, 14)).collect::<Vec<_>>().join("."),
    ];
    for (at, shape) in shapes.into_iter().enumerate() {
        for answer in [20usize, 300] {
            let mut net = Net::new();
            for n in 0..60u32 {
                let name = format!("{}.t.example.com", shape(&mut random, &base32));
                net.dns(f64::from(n), ip(EVIL), ip(SERVER), name.as_bytes(), 16, &vec![b'x'; answer], 0);
            }
            let kinds: Vec<_> = told(net).into_iter().map(|(_, kind)| kind).collect();
            let kind = if answer > 200 { "dns-tunnel" } else { "dns-exfiltration" };
            assert_eq!(kinds, [kind], "shape {at}, answers of {answer}");
        }
    }
}

/// Everybody asks names for an hour and more, which is what "never before" rests on; some administer what they always do.
fn settled(net: &mut Net) {
    for n in 0..40u32 {
        for number in 1..=6 {
            let at = f64::from(n) * 100.0 + f64::from(number);
            net.dns(at, host("10.0.5.0", number), ip(SERVER), b"www.example.com", 1, &[1, 2, 3, 4], 0);
        }
        // Others use SSH as well.
        for number in [20, 21] {
            hops(net, f64::from(n) * 100.0 + 20.0, &[number, 22], 30.0);
        }
    }
}

/// Sessions of SSH from each host to the next, begun one after the other; each stays open, so that the first ends last.
fn hops(net: &mut Net, start: f64, way: &[u32], stay: f64) {
    for (at, pair) in way.windows(2).enumerate() {
        let begins = start + at as f64 * 30.0;
        let (from, to) = (host("10.0.5.0", pair[0]), host("10.0.5.0", pair[1]));
        let from = (from, net.ephemeral());
        // Two lines are quick, and then somebody is at work.
        let lasts = if stay > 200.0 { stay - at as f64 * 60.0 } else { stay };
        let (client, server) = (from, (to, 22));
        net.open(begins, client, server);
        net.tcp(begins + 0.1, server, client, ACK | PSH, 101, 2, &[b'S'; 21]);
        net.tcp(begins + 0.2, client, server, ACK | PSH, 2, 122, &[b'S'; 21]);
        net.tcp(begins + 0.3, server, client, ACK | PSH, 122, 23, &[1; 1_000]);
        net.tcp(begins + lasts - 1.0, client, server, ACK | PSH, 23, 1_122, &[2; 700]);
        net.tcp(begins + lasts - 0.5, server, client, ACK | PSH, 1_122, 723, &[4; 5_000]);
        net.tcp(begins + lasts, client, server, FIN | ACK, 723, 6_122, b"");
        net.tcp(begins + lasts + 0.1, server, client, FIN | ACK, 6_122, 724, b"");
        net.tcp(begins + lasts + 0.2, client, server, ACK, 724, 6_123, b"");
    }
}

#[test]
fn from_host_to_host() {
    // Three steps that nobody ever took: the first is named. Sessions that stay open, and short ones.
    for stay in [400.0, 8.0] {
        let mut net = Net::new();
        settled(&mut net);
        hops(&mut net, 4_200.0, &[1, 2, 3, 4], stay);
        only(net, "10.0.5.1", "lateral-movement");
    }
    // By way of one host to another, and there to two more at once.
    let mut net = Net::new();
    settled(&mut net);
    hops(&mut net, 4_200.0, &[1, 2, 3], 400.0);
    hops(&mut net, 4_260.0, &[2, 4], 300.0);
    quiet(net);
    // The same way every half an hour since the beginning.
    let mut net = Net::new();
    settled(&mut net);
    for n in 0..4 {
        hops(&mut net, 100.0 + f64::from(n) * 1_200.0, &[1, 2, 3, 4], 400.0);
    }
    quiet(net);
    // There and back again.
    let mut net = Net::new();
    settled(&mut net);
    hops(&mut net, 4_200.0, &[1, 2, 1], 400.0);
    quiet(net);
}
