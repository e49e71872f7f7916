//! What is derived from the bars of all groups: the same rows under the same numbers at every node, and as a server that stands alone has them.

use super::Cluster;
use super::common::{Running, ends};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use tidegate_engine::{name_hash, slot_of};

pub(super) const GROUPS: usize = 3;
const SECOND: u64 = 1_000_000_000;
/// 2026-01-05T00:00:00Z.
const START: u64 = 1_767_571_200;
pub(super) const SECONDS: u64 = 60;
/// From here on the symbols of the last group trade no more.
pub(super) const QUIET: u64 = 25;
const STREAMS: &str = "corr.spectrum,surface.rsi";
pub(super) const SETTINGS: &str = "[[stream]]\nbars = \"1s\"\n[[spectrum]]\nbars = \"1s\"\nwindow = 20\n\
                        [[surface]]\nbars = \"1s\"\nsweep = [\"rsi:2..9\"]\n";

/// Three symbols of each group.
pub(super) fn symbols() -> Vec<(usize, String)> {
    let of = |name: &str| usize::from(slot_of(name_hash(name.as_bytes()))) * GROUPS / 4_096;
    let mut named = vec![Vec::new(); GROUPS];
    for name in (0..).map(|at| format!("S{at}")) {
        let group: &mut Vec<String> = &mut named[of(&name)];
        if group.len() < 3 {
            group.push(name);
        }
        if named.iter().all(|group| group.len() == 3) {
            break;
        }
    }
    (0..).zip(named).flat_map(|(group, names)| names.into_iter().map(move |name| (group, name))).collect()
}

/// One trade of each symbol in each of these seconds, but of those that are quiet.
pub(super) fn trades(from: u64, to: u64) -> String {
    let mut text = "ts,symbol,price,size\n".to_owned();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let symbols = symbols();
    let mut prices = vec![5_000u64; symbols.len()];
    for second in 0..to {
        let market = random(41);
        for ((at, price), (group, name)) in (100..).zip(&mut prices).zip(&symbols) {
            *price = *price + market + random(41) - 40;
            if second >= from && (second < QUIET || *group + 1 < GROUPS) {
                let ts = START + second;
                let _ = writeln!(text, "{ts}.{at},{name},{}.{:02},1", *price / 100, *price % 100);
            }
        }
    }
    text
}

/// Rows by stream, key and end.
pub(super) type Rows = BTreeMap<(String, String, u64), Value>;

/// What is read until the spectrum has told of that second.
pub(super) fn told(path: &Path, place: &str, second: u64) -> Rows {
    let line = format!("subscribe {STREAMS} --from sequence:1 --output jsonl {place}");
    let mut reader = Running::start(path, &line);
    let mut rows = Rows::new();
    loop {
        let row = reader.json();
        let text = |field: &str| row[field].as_str().expect("a text").to_owned();
        let key = (text("ch"), text("k"), row["T"].as_u64().expect("an end"));
        let last = key.0 == "corr.spectrum" && key.2 == (START + second) * SECOND;
        assert!(rows.insert(key, row).is_none(), "told twice");
        if last {
            return rows;
        }
    }
}

/// Spectra only, without what a node began with at a start: there the newest of the bars before is told, and no older one.
pub(super) fn spectra(rows: &Rows) -> BTreeMap<u64, &Value> {
    rows.iter().filter(|(key, _)| key.0 == "corr.spectrum").map(|(key, row)| (key.2, row)).collect()
}

#[test]
fn what_is_derived_from_all_groups_is_what_a_server_alone_derives() {
    let mut cluster = Cluster::with_settings("--json --http off", &format!("--groups {GROUPS}"), SETTINGS);
    let path = cluster.path().to_owned();
    std::fs::write(path.join("all.csv"), trades(0, SECONDS)).expect("room");
    std::fs::write(path.join("first.csv"), trades(0, 40)).expect("room");
    std::fs::write(path.join("rest.csv"), trades(40, SECONDS)).expect("room");
    std::fs::write(path.join("alone.toml"), SETTINGS).expect("room");

    let mut alone = Running::start(
        &path,
        "serve --json --http off --listen 127.0.0.1:0 --data alone --config alone.toml",
    );
    let place = format!("--server {} --data alone", alone.json()["listening"].as_str().expect("an address"));
    ends(&path, &format!("publish all.csv {place}"), 0);
    let expected = told(&path, &place, SECONDS - 1);
    alone.summary();
    let expected = spectra(&expected);
    assert_eq!(expected.len() as u64, SECONDS - 1);

    let servers: Vec<String> = cluster.servers.split(',').map(str::to_owned).collect();
    let publish = |file: &str| {
        let servers = servers.join(",");
        ends(&path, &format!("publish {file} --ack committed --server {servers} --ca lab/ca-cert.pem"), 0);
    };
    let at = |node: usize| format!("--server {} --ca lab/ca-cert.pem", servers[node - 1]);
    publish("first.csv");
    // The symbols of a whole group have been silent for a while: nobody waits for them.
    let half = told(&path, &at(1), 39);
    for (end, row) in spectra(&half) {
        assert_eq!(row, expected[&end]);
    }
    let ended = cluster.nodes[1].take().expect("it runs").summary();
    assert_eq!(ended["imbalance"], 0, "{ended}");
    cluster.serve(2);
    publish("rest.csv");
    let all = [1, 2, 3].map(|node| told(&path, &at(node), SECONDS - 1));
    assert_eq!(spectra(&all[0]), expected);
    assert_eq!(all[0], all[2], "surfaces as well");
    let again = spectra(&all[1]);
    assert!(again.contains_key(&((START + SECONDS - 1) * SECOND)));
    for (end, row) in again {
        assert_eq!(row, expected[&end], "after a restart");
    }
    cluster.end();
}
