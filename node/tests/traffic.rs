//! `tidegate flows` and `tidegate detect` on small captures: what they say, and how they fail.

mod common;

use common::{Running, ends, fails, folder, json};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

/// A capture of raw IPv4 packets: TCP, (from, to, flags), a packet every 10 ms.
fn capture(packets: impl Iterator<Item = ((u8, u16), (u8, u16), u8)>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, (from, to, flags)) in packets.enumerate() {
        let micros = at as u32 * 10_000;
        for word in [1_700_000_000 + micros / 1_000_000, micros % 1_000_000, 40, 40] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        out.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    }
    out
}

const SYN: u8 = 2;
const REFUSED: u8 = 0x14;

/// Forty ports of one host, all refused.
fn scan() -> Vec<u8> {
    capture((1..=40).flat_map(|port| [((66, 40_000), (10, port), SYN), ((10, port), (66, 40_000), REFUSED)]))
}

#[test]
fn flows_in_each_form() {
    let folder = folder();
    std::fs::write(folder.path().join("scan.pcap"), scan()).unwrap();
    let (table, notes) = ends(folder.path(), "flows scan.pcap", 0);
    assert_eq!(table.lines().count(), 41, "{table}");
    assert!(
        table.contains("10.0.0.66") && table.contains("REJ") && notes.contains("40 flows"),
        "{table}{notes}"
    );
    let (csv, _) = ends(folder.path(), "flows scan.pcap --output csv -q", 0);
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(csv.lines().all(|line| line.split(',').count() == header.len()), "{csv}");
    let (lines, _) = ends(folder.path(), "flows scan.pcap scan.pcap --output jsonl", 0);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(lines.lines().count(), 80);
    assert_eq!((first["state"].as_str(), first["history"].as_str()), (Some("REJ"), Some("Sr")));
    assert_eq!((first["packets_in"].as_u64(), first["file"].as_str()), (Some(1), Some("scan.pcap")));
}

#[test]
fn alerts_and_exit_codes() {
    let folder = folder();
    std::fs::write(folder.path().join("scan.pcap"), scan()).unwrap();
    let quiet = capture([((5, 1_000), (10, 80), SYN), ((10, 80), (5, 1_000), 0x12)].into_iter());
    std::fs::write(folder.path().join("quiet.pcap"), quiet).unwrap();
    let (text, _) = ends(folder.path(), "detect quiet.pcap scan.pcap", 1);
    assert!(
        text.contains("nothing found in 2 units") && text.contains("vertical-scan (syn) by 10.0.0.66"),
        "{text}"
    );
    ends(folder.path(), "detect quiet.pcap", 0);
    ends(folder.path(), "detect scan.pcap --min-severity high", 0);
    let whole = json(folder.path(), "detect --json scan.pcap", 1);
    let alert = &whole["alerts"][0];
    assert_eq!((whole["units"].as_u64(), alert["technique"].as_str()), (Some(80), Some("T1046")));
    assert_eq!((alert["range"]["first"].as_str(), alert["severity"].as_str()), (Some("1"), Some("medium")));
    assert!(alert["features"][0]["seen"].as_f64() > alert["features"][0]["expected"].as_f64(), "{alert}");
    let (lines, _) = ends(folder.path(), "detect --output jsonl scan.pcap", 1);
    assert_eq!(lines.lines().count(), 1);
}

#[test]
fn bad_input_is_named_and_the_rest_is_done() {
    let folder = folder();
    let mut cut = scan();
    cut.truncate(cut.len() - 7);
    std::fs::write(folder.path().join("cut.pcap"), cut).unwrap();
    std::fs::write(folder.path().join("t.csv"), "ts,price,size\n1,2,3\n").unwrap();
    let (text, errors) = ends(folder.path(), "detect gone.pcap t.csv cut.pcap", 3);
    assert!(
        errors.contains("gone.pcap")
            && errors.contains("holds no traffic")
            && errors.contains("ends inside it"),
        "{errors}"
    );
    assert!(text.contains("vertical-scan"), "{text}");
    let (_, errors) = ends(folder.path(), "flows cut.pcap --output csv", 3);
    assert!(errors.contains("cut.pcap"), "{errors}");
    ends(folder.path(), "detect", 2);
    ends(folder.path(), "detect x.pcap --min-severity dreadful", 2);
    ends(folder.path(), "flows x.pcap --flows-max 3", 2);
}

/// A datagram of NetFlow v5: a refused connection to each of the ports, both directions.
fn export(sequence: u32, ports: std::ops::Range<u16>) -> Vec<u8> {
    let mut out = vec![0, 5, 0, ports.len() as u8 * 2];
    for word in [9_000u32, 1_700_000_000, 0, sequence, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    out.truncate(24);
    for port in ports {
        for (from, to, flags, began) in
            [((66u8, 40_000u16), (10u8, port), SYN, 8_000u32), ((10, port), (66, 40_000), REFUSED, 8_001)]
        {
            let record: [u32; 8] =
                [0x0a00_0000 + u32::from(from.0), 0x0a00_0000 + u32::from(to.0), 0, 0, 1, 40, began, began];
            record.iter().for_each(|word| out.extend(word.to_be_bytes()));
            out.extend(u16::to_be_bytes(from.1));
            out.extend(u16::to_be_bytes(to.1));
            out.extend([0, flags, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    out
}

#[test]
fn exports_inside_captures_are_read_on_request() {
    let folder = folder();
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, datagram) in [export(0, 1..13), export(24, 13..25), export(58, 25..37)].iter().enumerate() {
        let length = datagram.len() as u16 + 28;
        for word in [1_700_000_001 + at as u32, 0, u32::from(length), u32::from(length)] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0]);
        out.extend(length.to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x9c, 0x40, 8, 7]);
        out.extend((length - 20).to_be_bytes());
        out.extend([0, 0]);
        out.extend(datagram);
    }
    std::fs::write(folder.path().join("netflow.pcap"), out).unwrap();
    let (csv, notes) = ends(folder.path(), "flows netflow.pcap --exports --output csv", 0);
    assert_eq!(csv.lines().filter(|line| line.contains(",REJ,Sr,")).count(), 36, "{csv}");
    assert!(
        notes.contains("3 datagrams, 72 records, 36 flows") && notes.contains("10 records, datagrams"),
        "{notes}"
    );
    let (text, _) = ends(folder.path(), "detect netflow.pcap --exports=2055", 1);
    assert!(text.contains("vertical-scan (syn) by 10.0.0.66"), "{text}");
    // To other ports there is nothing; and without being asked it is one flow of UDP.
    let (csv, _) = ends(folder.path(), "flows netflow.pcap --exports=6343 --output csv", 0);
    assert_eq!(csv.lines().count(), 1, "{csv}");
    let (csv, _) = ends(folder.path(), "flows netflow.pcap --output csv", 0);
    assert!(csv.lines().count() == 2 && csv.contains(",udp,S0,"), "{csv}");
    for wrong in
        ["flows x.pcap --exports=0", "flows x.pcap --exports=a,b", "flows --listen 127.0.0.1:2055", "flows"]
    {
        ends(folder.path(), wrong, 2);
    }
}

#[test]
fn exports_are_taken_over_udp_until_interrupted() {
    let folder = folder();
    let mut running = Running::start(folder.path(), "flows --listen netflow:127.0.0.1:0 --output jsonl");
    let note = running.note();
    let address = note.split([' ', ';']).find(|word| word.starts_with("127.0.0.1:")).expect(&note).to_owned();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&export(0, 80..81), &address).unwrap();
    let flow: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!((flow["originator"].as_str(), flow["responder_port"].as_u64()), (Some("10.0.0.66"), Some(80)));
    assert_eq!((flow["state"].as_str(), flow["sampling"].as_u64()), (Some("REJ"), Some(0)));
    socket.send_to(b"no export", &address).unwrap();
    socket.send_to(&export(100, 81..82), &address).unwrap();
    let flow: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!(flow["responder_port"].as_u64(), Some(81));
    running.signal("-INT");
    let (rest, notes, code) = running.rest();
    assert!(code == Some(0) && rest.is_empty(), "{notes}");
    for words in ["3 datagrams, 4 records, 2 flows", "1 datagrams, sets or records", "98 records, datagrams"]
    {
        assert!(notes.contains(words), "`{words}` is not in: {notes}");
    }
}

/// Talks with itself over the loopback of whatever namespace it runs in: connections that go well, one refused, datagrams. The test below calls this
/// test in a namespace of its own.
#[test]
#[ignore = "the test of captures calls it"]
fn some_traffic_on_the_loopback() {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for size in 1..=20 {
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&vec![b'q'; size * 100]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
        server.write_all(&vec![b'a'; size * 3_000]).unwrap();
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
    }
    drop(listener);
    for port in 1..=40 {
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }
    let (asks, answers) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
    asks.send_to(b"nobody hears this", ("127.0.0.1", 9)).unwrap();
    answers.send_to(b"to itself", answers.local_addr().unwrap()).unwrap();
}

/// A namespace with a loopback and nothing else; gone when dropped.
struct Namespace(String);

impl Namespace {
    /// `None`, and why, where this is not allowed.
    fn new() -> Result<Self, String> {
        let name = format!("tidegate-capture-{}", std::process::id());
        let ip = |line: &str| match Command::new("ip").args(line.split(' ')).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("iproute2: {error}")),
        };
        ip(&format!("netns add {name}"))?;
        let made = Self(name);
        ip(&format!("-n {} link set lo up", made.0))?;
        Ok(made)
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// Starts something that listens and says so in its notes.
    fn listening(&self, mut command: Command, word: &str) -> Listening {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(word) {
            assert!(notes.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        Listening { child, notes }
    }

    /// The same for what says so in its output.
    fn serving(&self, mut command: Command, word: &str) -> Listening {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let notes = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !String::from_utf8_lossy(&said).contains(word) {
            assert_eq!(child.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "it ended");
            said.push(byte[0]);
        }
        Listening { child, notes }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

struct Listening {
    child: Child,
    notes: BufReader<ChildStderr>,
}

impl Listening {
    /// Ctrl-C; what it printed and noted, and its exit code.
    fn interrupted(mut self) -> (String, String, Option<i32>) {
        // `ip netns exec` has become what it started.
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let (mut out, mut notes) = (String::new(), String::new());
        self.notes.read_to_string(&mut notes).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (out, notes, self.child.wait().unwrap().code())
    }
}

/// Columns of flows that do not depend on the clock that stamped them, in order of flows.
fn timeless(csv: &str) -> Vec<String> {
    let mut rows: Vec<_> = csv.lines().skip(1).collect();
    rows.sort_by_key(|row| row.split(',').next().and_then(|id| id.parse::<u64>().ok()));
    let keeps = |at: &usize| !matches!(at, 1..=3 | 21);
    let row = |row: &str| {
        let fields: Vec<_> = row.split(',').enumerate().filter(|(at, _)| keeps(at)).map(|(_, f)| f).collect();
        fields.join(",")
    };
    rows.into_iter().map(row).collect()
}

/// Says what is not tested; `TIDEGATE_LAB=required` makes that a failure.
#[cfg(target_os = "linux")]
fn skipped(why: &str) {
    assert!(std::env::var("TIDEGATE_LAB").as_deref() != Ok("required"), "{why}");
    eprintln!("SKIPPED: {why}");
}

/// What `flows` and `detect` take off an interface is what tcpdump wrote of the same traffic.
#[test]
#[cfg(target_os = "linux")]
fn an_interface_tells_what_its_capture_tells() {
    let space = match Namespace::new() {
        Ok(space) => space,
        Err(why) => return skipped(&format!("no namespace to capture in: {why}")),
    };
    let folder = folder();
    let binary = |line: &str| {
        let mut command = space.inside(env!("CARGO_BIN_EXE_tidegate"));
        command.args(line.split(' ')).current_dir(folder.path());
        command
    };
    let flows = space.listening(binary("flows --interface lo --output csv"), "packets on lo");
    let detect = space
        .listening(binary("detect --interface lo --snapshot-length 128 --alerts watch"), "packets on lo");
    let serve = "serve --listen 127.0.0.1:0 --http off --data node --interface lo --promiscuous";
    let serve = space.serving(binary(serve), "packets on lo, promiscuous");
    let mut tcpdump = space.inside("tcpdump");
    tcpdump
        .args([
            "-i",
            "lo",
            "--immediate-mode",
            "-s",
            "256",
            "-B",
            "16384",
            "-U",
            "-Z",
            "root",
            "-w",
            "lo.pcap",
        ])
        .current_dir(folder.path());
    let tcpdump = Command::new("tcpdump")
        .arg("--version")
        .output()
        .ok()
        .map(|_| space.listening(tcpdump, "listening on"));
    let mut traffic = space.inside(std::env::current_exe().unwrap());
    traffic.args(["--exact", "some_traffic_on_the_loopback", "--ignored"]);
    assert!(traffic.stdout(Stdio::null()).status().unwrap().success());
    // A wrong name, and what there is instead.
    let wrong = binary("flows --interface nowhere0").output().unwrap();
    assert_eq!(wrong.status.code(), Some(3));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("no network interface nowhere0; there are lo"), "{said}");

    ends(folder.path(), "flows lo.pcap --promiscuous", 2);
    ends(folder.path(), "detect --interface lo --snapshot-length 3", 2);
    let said = ends(folder.path(), "serve --data other --listen 127.0.0.1:0 --promiscuous", 2).1;
    assert!(said.contains("--promiscuous goes with --interface"), "{said}");
    let wrong = binary("serve --data other --listen 127.0.0.1:0 --interface nowhere0").output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(3) && said.contains("no network interface nowhere0"), "{said}");
    let (live, notes, code) = flows.interrupted();
    assert_eq!(code, Some(0), "{notes}");
    // Twenty connections, forty refused, a datagram that nobody heard and what came back, one to itself.
    assert!(notes.contains("lo: 63 flows") && !notes.contains("dropped"), "{notes}");
    let (told, notes, code) = detect.interrupted();
    assert_eq!(code, Some(1), "{notes}");
    assert!(
        told.contains("vertical-scan (syn) by 127.0.0.1") && notes.contains("lo: 1 alert in"),
        "{told}{notes}"
    );
    // Its packets were recorded, and lead to the same score again.
    let listed = json(folder.path(), "alert list --alerts watch --json", 0);
    let id = listed["alerts"][0]["id"].as_str().unwrap();
    let again = json(folder.path(), &format!("alert replay {id} --alerts watch --json"), 0);
    assert_eq!(again["same"], true, "{again}");
    let recorded = std::fs::read_dir(folder.path().join("watch/evidence")).unwrap();
    let recorded: Vec<_> = recorded.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let (_, notes) = ends(folder.path(), &format!("flows watch/evidence/{} --output csv", recorded[0]), 0);
    assert!(recorded.len() == 1 && notes.contains("63 flows"), "{recorded:?} {notes}");
    // A server finds the same, and keeps what leads there.
    let (_, notes, code) = serve.interrupted();
    assert!(code == Some(0) && !notes.contains("warning"), "{notes}");
    let kept = json(folder.path(), "alert list --alerts node/alerts --json", 0);
    let [of_detect, of_serve] = [&listed, &kept].map(|list| {
        let alert = &list["alerts"][0];
        // Each socket has stamps of its own.
        (alert["kind"].clone(), alert["entity"].clone(), alert["features"][0].clone())
    });
    assert_eq!(of_serve, of_detect);
    let id = kept["alerts"][0]["id"].as_str().unwrap();
    let again = json(folder.path(), &format!("alert replay {id} --alerts node/alerts --json"), 0);
    assert_eq!(again["same"], true, "{again}");
    let Some(tcpdump) = tcpdump else { return skipped("no tcpdump to compare with") };
    let (_, notes, _) = tcpdump.interrupted();
    assert!(notes.contains("\n0 packets dropped by kernel"), "{notes}");
    let (recorded, _) = ends(folder.path(), "flows lo.pcap --output csv", 0);
    assert_eq!(timeless(&live), timeless(&recorded));
}

/// Who calls whom, 500 minutes of an office of forty; at the end a stranger calls what many call.
fn calls() -> String {
    let mut text = "when,who,whom\n".to_owned();
    for minute in 0..500u64 {
        for person in 0..40u64 {
            let word = (person * 1_000_003 + minute).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            if word % 10 < 4 {
                let (time, server) = (1_700_000_000 + minute * 60 + person, (person + word / 10 % 3) % 12);
                text += &format!("{time},10.0.0.{person},10.9.0.{server}\n");
            }
        }
    }
    text + "1700030100,10.66.6.6,10.9.0.3\n"
}

#[test]
fn edges_of_a_table_are_judged_scored_kept_and_judged_again() {
    let folder = folder();
    std::fs::write(folder.path().join("calls.csv"), calls()).unwrap();
    let map = "--kind edges --map time=when,source=who,destination=whom";
    let line = format!("detect calls.csv {map} --one-in 2000 --scores scores.csv --alerts watch");
    let (text, notes) = ends(folder.path(), &line, 1);
    assert!(
        text.contains("edge-anomaly") && text.contains("10.66.6.6") && text.contains("10.9.0.3"),
        "{text}"
    );
    assert!(notes.contains("they came while it learnt"), "{notes}");
    let scores = std::fs::read_to_string(folder.path().join("scores.csv")).unwrap();
    assert_eq!(scores.lines().count(), calls().lines().count());
    let last: Vec<&str> = scores.lines().last().unwrap().split(',').collect();
    assert_eq!((last[1], last[2], last[6]), ("2023-11-15T06:35:00Z", "10.66.6.6", "1"), "{last:?}");
    assert!(last[5].parse::<f64>().unwrap() < 0.0005, "{last:?}");
    let alerts = scores.lines().skip(1).filter(|row| row.split(',').nth(6) == Some("1")).count();
    assert!(alerts < 20, "{alerts} alerts");
    let listed = json(folder.path(), "alert list --alerts watch --json", 0);
    let stranger = listed["alerts"].as_array().unwrap().iter().find(|alert| alert["entity"] == "10.66.6.6");
    let stranger = stranger.expect("it is kept");
    let features = stranger["features"].as_array().unwrap();
    assert!(features[0]["seen"].as_f64() > features[0]["expected"].as_f64(), "{stranger}");
    let replay = format!("alert replay {} --alerts watch --json", stranger["id"].as_str().unwrap());
    let again = json(folder.path(), &replay, 0);
    assert_eq!((again["same"].as_bool(), again["score"].as_f64()), (Some(true), stranger["score"].as_f64()));
    // In ticks of an hour there are too few for anything to be rare; what is not there and what does not fit is told.
    let (text, notes) = ends(folder.path(), &format!("detect calls.csv {map} --tick 1h"), 0);
    assert!(text.contains("nothing found") && notes.contains("which takes 120 ticks"), "{text}{notes}");
    fails(
        folder.path(),
        "detect calls.csv --kind edges",
        3,
        &["cannot tell which column is the time", "when, who, whom", "--map"],
    );
    fails(folder.path(), "detect calls.csv --map time=when", 2, &["--map is for --kind"]);
    fails(folder.path(), &format!("detect calls.csv {map} --sigma x.yml"), 2, &["--sigma is for traffic"]);
    fails(folder.path(), &format!("detect calls.csv {map} --one-in 3"), 2, &["--one-in"]);
    fails(folder.path(), "detect calls.csv --kind edges --map when=time", 2, &["no role", "destination"]);
    std::fs::write(
        folder.path().join("odd.jsonl"),
        "{\"time\":1,\"from\":\"a\",\"to\":\"b\"}\n{\"time\":2}\n[]\n",
    )
    .unwrap();
    let (text, notes) = ends(folder.path(), "detect odd.jsonl --kind edges", 0);
    assert!(
        text.contains("nothing found in 3 units of edges") && notes.contains("2 of 3 units cannot be read"),
        "{text}{notes}"
    );
    ends(folder.path(), "detect odd.jsonl --kind edges --strict", 3);
}

#[test]
fn records_of_a_table_are_judged_by_what_is_typical() {
    let folder = folder();
    let mut text = "proto,service,bytes,errors,label\n".to_owned();
    for row in 0..6_000u64 {
        let word = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (proto, service) = [("tcp", "http"), ("tcp", "smtp"), ("udp", "dns")][(word % 3) as usize];
        let (bytes, errors) = (300 + word / 3 % 4_000, word / 7 % 3);
        text += &format!("{proto},{service},{bytes},0.{errors},x{row}\n");
    }
    text += "icmp,ecr_i,1032000,1.0,odd\n";
    std::fs::write(folder.path().join("records.csv"), &text).unwrap();
    let (told, notes) = ends(folder.path(), "detect records.csv --kind records --alerts watch", 1);
    assert!(told.contains("record-anomaly") && told.contains("share of typical records with"), "{told}");
    assert!(
        notes.contains("category: proto service; count: bytes; share: errors; left out: label"),
        "{notes}"
    );
    let listed = json(folder.path(), "alert list --alerts watch --json", 0);
    let odd = listed["alerts"].as_array().unwrap().iter().find(|alert| alert["range"]["last"] == "6002");
    let odd = odd.unwrap_or_else(|| panic!("{listed}"));
    let replay = format!("alert replay {} --alerts watch --json", odd["id"].as_str().unwrap());
    assert_eq!(json(folder.path(), &replay, 0)["same"].as_bool(), Some(true));
    let line = "detect records.csv --kind records --map entity=service --features bytes=skip,label=skip";
    let (told, _) = ends(folder.path(), line, 1);
    assert!(told.contains("by ecr_i") && !told.contains("bytes"), "{told}");
    std::fs::write(folder.path().join("numbers.csv"), "a,b\n1,2\n3,4\n").unwrap();
    fails(folder.path(), "detect numbers.csv --kind records", 3, &["no column has names", "COLUMN=category"]);
    fails(
        folder.path(),
        "detect records.csv --kind records --features gone=count",
        3,
        &["no column `gone`", "proto, service"],
    );
}

#[test]
fn edges_of_traffic_are_judged_where_that_is_asked_for() {
    let folder = folder();
    let mut log = String::new();
    for call in calls().lines().skip(1) {
        let [time, from, to] = *call.split(',').collect::<Vec<_>>() else { panic!("{call}") };
        log += &format!(
            "{{\"ts\":{time}.0,\"uid\":\"C\",\"id.orig_h\":\"{from}\",\"id.orig_p\":4000,\"id.resp_h\":\"{to}\",\"id.resp_p\":443,\
             \"proto\":\"tcp\",\"duration\":0.3,\"orig_bytes\":900,\"resp_bytes\":9000,\"conn_state\":\"SF\",\"history\":\"ShADadFf\",\
             \"orig_pkts\":5,\"orig_ip_bytes\":1100,\"resp_pkts\":6,\"resp_ip_bytes\":9300}}\n"
        );
    }
    std::fs::write(folder.path().join("conn.log"), log).unwrap();
    let found = |line: &str| -> Vec<Value> {
        let output = common::command(folder.path(), line).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let alerts = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        alerts.filter(|alert: &Value| alert["kind"] == "edge-anomaly").collect()
    };
    assert_eq!(found("detect conn.log --output jsonl"), Vec::<Value>::new());
    let alerts = found("detect conn.log --output jsonl --edges 2000 --alerts watch");
    let stranger = alerts.iter().find(|alert| alert["entity"] == "10.66.6.6");
    let stranger = stranger.unwrap_or_else(|| panic!("{alerts:?}"));
    assert_eq!((stranger["peer"].as_str(), stranger["port"].as_u64()), (Some("10.9.0.3"), Some(443)));
    // There, and empty: that something is rare is no technique.
    assert_eq!(stranger.get("technique"), Some(&Value::Null));
    assert!(alerts.len() < 20, "{} alerts", alerts.len());
    let replay = format!("alert replay {} --alerts watch --json", stranger["id"].as_str().unwrap());
    assert_eq!(json(folder.path(), &replay, 0)["same"].as_bool(), Some(true));
    ends(folder.path(), "detect conn.log --edges 3", 2);
}

/// A capture of raw IPv4 with these (protocol, ports, payload) from 10.0.0.1 to 10.0.0.2, a packet every 10 ms. Of TCP the middle of a connection.
fn talk(packets: &[(u8, (u16, u16), Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, (protocol, ports, payload)) in packets.iter().enumerate() {
        let mut body = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        if *protocol == 6 {
            body.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        } else {
            body.extend((payload.len() as u16 + 8).to_be_bytes());
            body.extend([0, 0]);
        }
        body.extend(payload);
        let length = body.len() as u32 + 20;
        for word in [1_700_000_000, at as u32 * 10_000, length, length] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0]);
        out.extend((length as u16).to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, *protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        out.extend(body);
    }
    out
}

/// With its length in two bytes before it.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The client hello that FoxIO's description of JA4 takes as its example: t13d1516h2_8daaf6152771_e5627efa2ab1.
fn hello() -> Vec<u8> {
    let ciphers = [
        0x4a4au16, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
        0x009c, 0x009d, 0x002f, 0x0035,
    ];
    let signatures = [0x0403u16, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
    let list = |values: &[u16]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
    let server = [&[0u8][..], &long(b"shop.example")].concat();
    let values = [
        (0x1a1au16, vec![]),
        (0x001b, vec![2, 0, 2]),
        (0x0000, long(&server)),
        (0x0033, vec![0; 4]),
        (0x0010, long(b"\x02h2\x08http/1.1")),
        (0x4469, vec![0; 5]),
        (0x0017, vec![]),
        (0x002d, vec![1, 1]),
        (0x000d, long(&list(&signatures))),
        (0x0005, vec![1, 0, 0, 0, 0]),
        (0x0023, vec![]),
        (0x0012, vec![]),
        (0x002b, vec![6, 0x5a, 0x5a, 3, 4, 3, 3]),
        (0xff01, vec![0]),
        (0x000b, vec![1, 0]),
        (0x000a, vec![0, 2, 0, 29]),
        (0x0015, vec![0; 100]),
    ];
    let extensions: Vec<u8> =
        values.iter().flat_map(|(kind, value)| [&kind.to_be_bytes()[..], &long(value)].concat()).collect();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(long(&list(&ciphers)));
    body.extend([1, 0]);
    body.extend(long(&extensions));
    [&[22, 3, 1][..], &long(&[&[1, 0][..], &long(&body)].concat())].concat()
}

/// What flows show of themselves, from bytes of a capture to each form of the output.
#[test]
fn fingerprints_requests_and_names_are_shown() {
    let folder = folder();
    let question =
        [&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x04mail\x07example\x03org\0", &[0, 15, 0, 1]].concat();
    let request = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: t\r\n\r\n".to_vec();
    let hello = hello();
    let seen = [
        (17, (40_001, 53), question),
        (6, (40_002, 80), request),
        (6, (40_003, 443), hello.clone()),
        // Cut before its end, and nothing but noise.
        (6, (40_004, 443), hello[..80].to_vec()),
        (6, (40_005, 80), b"GETTING OUT".to_vec()),
        (17, (40_006, 53), vec![0xff; 30]),
    ];
    std::fs::write(folder.path().join("talk.pcap"), talk(&seen)).unwrap();
    let (lines, _) = ends(folder.path(), "flows talk.pcap --output jsonl -q", 0);
    let mut shows = std::collections::BTreeMap::new();
    for line in lines.lines() {
        let flow: Value = serde_json::from_str(line).unwrap();
        shows.insert(flow["originator_port"].as_u64().unwrap(), flow["shows"].clone());
    }
    let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
    assert_eq!(
        shows.into_values().collect::<Vec<_>>(),
        [
            serde_json::json!({"dns": {"name": "mail.example.org", "type": 15}}),
            serde_json::json!({"http": {"request": "GET /a%20b?x=1", "host": "www.example.net"}}),
            serde_json::json!({"tls": {"ja4": ja4, "server_name": "shop.example"}}),
            Value::Null,
            Value::Null,
            Value::Null,
        ]
    );
    let (csv, _) = ends(folder.path(), "flows talk.pcap --output csv -q", 0);
    assert!(csv.contains(&format!("{ja4} shop.example")) && csv.contains("GET /a%20b?x=1"), "{csv}");
    let (table, _) = ends(folder.path(), "flows talk.pcap", 0);
    assert!(table.contains("mail.example.org"), "{table}");
}
