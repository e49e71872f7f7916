use super::*;
use crate::recorded::Recorded;
use tidegate_flow::{ConnState, EndCause, Ip, Side};
use tidegate_replay::decode::ReadOptions;

const SECOND: u64 = 1_000_000_000;

/// A flow of an office, or with `port` a refused call of a scanner.
fn flow(id: u64, scan: Option<u16>) -> FlowRecord {
    let start_ns = 1_700_000_000 * SECOND + id * SECOND / 4;
    let (client, server) = ([10, 0, (id % 7) as u8, 9], [10, 0, 9, (id % 5) as u8 + 1]);
    FlowRecord {
        id,
        start_ns,
        last_ns: start_ns + 1_000_000,
        originator: Ip::v4(if scan.is_some() { [10, 0, 0, 66] } else { client }),
        originator_port: 20_000 + (id % 30_000) as u16,
        responder: Ip::v4(if scan.is_some() { [10, 0, 0, 80] } else { server }),
        responder_port: scan.unwrap_or(443),
        protocol: 6,
        state: if scan.is_some() { ConnState::Rej } else { ConnState::Sf },
        history: if scan.is_some() { "Sr".into() } else { "ShADadFf".into() },
        sent: Side { bytes: if scan.is_some() { 0 } else { 300 + id % 900 }, packets: 4, ip_bytes: 500 },
        received: Side { bytes: if scan.is_some() { 0 } else { 9_000 }, packets: 5, ip_bytes: 9_400 },
        packets: (id, id),
        vlan: 0,
        tunnels: 0,
        cause: EndCause::Logged,
        sampling: 1,
    }
}

struct Node {
    _folder: tempfile::TempDir,
    evidence: Arc<Evidence>,
    judge: Judge,
    recorder: Recorder,
    at: u64,
}

impl Node {
    fn new(bytes_max: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let about = About { flows_max: 1_000, edges: None, rules: Rules::default() };
        let evidence = Evidence::open(
            Kind::exports(),
            folder.path().join("evidence"),
            bytes_max,
            about,
            &State::default(),
        )
        .unwrap();
        let recorder = Recorder::new(Arc::clone(&evidence));
        let judge = Judge::new(1_000, Rules::default().set, String::new());
        Self { _folder: folder, evidence, judge, recorder, at: 0 }
    }

    fn take(&mut self, scan: Option<u16>) -> Vec<Finding> {
        self.at += 1;
        let record = flow(self.at, scan);
        let mut findings = Vec::new();
        self.judge.take(&Traffic::Record(record), |finding| findings.push(finding));
        self.recorder.take(&Given::Flow(&record), &mut findings);
        findings
    }

    fn office(&mut self, flows: u64) {
        for _ in 0..flows {
            assert_eq!(self.take(None), []);
        }
    }

    fn scan(&mut self, ports: u16) -> Vec<Finding> {
        (1..=ports).flat_map(|port| self.take(Some(port))).collect()
    }

    fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = std::fs::read_dir(&self.evidence.folder).unwrap();
        files
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
            .collect()
    }
}

/// Judges a file again up to a proof: the bits of the score that is reached there.
fn again(input: &Input, proof: &Proof) -> Vec<u64> {
    let bytes = input.options[BYTES].parse().unwrap();
    let digest = crate::alert::input::digest(Path::new(&input.path), Some(bytes)).unwrap();
    assert_eq!(digest.as_ref(), Some(&input.digest));
    let mut recorded = Recorded::open(Path::new(&input.path), Some(bytes), &ReadOptions::default()).unwrap();
    let mut judge = Judge::new(1_000, Rules::default().set, String::new());
    let mut reached = Vec::new();
    while recorded
        .read(100, |record| {
            let mut found = Vec::new();
            judge.take(&Traffic::Record(*record), |finding| found.push(finding));
            if judge.units() == proof.units {
                reached.extend(found.iter().map(|finding| finding.score.to_bits()));
            }
        })
        .unwrap()
    {}
    assert_eq!(judge.units(), input.units);
    reached
}

#[test]
fn every_score_is_reached_again_from_whichever_file_has_it() {
    let mut node = Node::new(400_000);
    for round in 0..8 {
        // Each round fills most of a file, so that the first is long gone at the end.
        node.office(1_500);
        let findings = node.scan(30);
        assert!(findings.len() > 5, "round {round}: {} findings", findings.len());
        let names = findings.iter().filter_map(|found| Some(found.proof.as_ref()?.input.clone())).collect();
        let inputs = node.evidence.keep(&names);
        for finding in &findings {
            let proof = finding.proof.as_ref().unwrap();
            let input = inputs.iter().find(|input| input.name == proof.input).unwrap();
            assert_eq!(again(input, proof), [finding.score.to_bits()], "round {round}");
        }
        let bytes: u64 = node.files().iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes <= 400_000 + 2 * BUFFER_BYTES as u64, "{bytes} bytes");
    }
    assert!(node.evidence.lock().begun > 6, "{} files begun", node.evidence.lock().begun);
}

#[test]
fn what_rests_on_flows_that_are_no_more_says_so() {
    let mut node = Node::new(400_000);
    // Fourteen ports are no scan yet; the fifteenth comes within five minutes, and a few files later.
    assert_eq!(node.scan(14), []);
    node.evidence.close();
    node.recorder.generations.pop_front();
    node.recorder.begin(true);
    node.office(10);
    let findings = node.take(Some(99));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].proof, None);
    let why = findings[0].unproven.as_deref().unwrap();
    assert!(why.contains("which begins at 2023-11-14T22:13:23.75Z"), "{why}");
}

#[test]
fn files_without_alerts_go_and_a_disk_that_refuses_is_borne() {
    let mut node = Node::new(400_000);
    node.office(10_000);
    assert_eq!(node.evidence.lock().kept.len(), 0);
    assert!(node.files().len() <= 2, "{:?}", node.files());
    // The folder is gone: the next file cannot be made, and findings say so; once it is back they are proved again.
    std::fs::remove_dir_all(&node.evidence.folder).unwrap();
    node.recorder.fail("No space left on device".to_owned());
    let findings = node.scan(20);
    assert!(findings.iter().all(|found| found.proof.is_none()), "{findings:?}");
    assert!(findings[0].unproven.as_deref().unwrap().contains("No space left"), "{findings:?}");
    std::fs::create_dir_all(&node.evidence.folder).unwrap();
    node.recorder.again = Instant::now();
    node.office(400);
    assert!(node.recorder.trouble().is_none());
    // Five minutes of silence later a scan starts anew.
    node.at += 10 * 400;
    let findings = node.scan(20);
    assert!(!findings.is_empty() && findings.iter().all(|found| found.proof.is_some()), "{findings:?}");
    let mut end = Vec::new();
    node.recorder.finish(&mut end);
    let names = findings.iter().filter_map(|found| Some(found.proof.as_ref()?.input.clone())).collect();
    assert_eq!(node.evidence.keep(&names).len(), 1);
}

#[test]
fn a_start_keeps_what_alerts_point_to() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["exports-1-0.flows", "exports-2-0.flows", "notes.txt"] {
        std::fs::write(folder.path().join(name), MAGIC).unwrap();
    }
    let mut node = Node::new(400_000);
    let finding = node.scan(20).remove(0);
    let proof = Proof { input: "exports-2-0".to_owned(), ..finding.proof.clone().unwrap() };
    let finding = Finding { proof: Some(proof), ..finding };
    let id = tidegate_alert::EpisodeId::of(&finding);
    let episode = tidegate_alert::Episode::new(id, &finding, "other");
    let state = State { episodes: BTreeMap::from([(id, episode)]), ..State::default() };
    let about = About { flows_max: 1_000, edges: None, rules: Rules::default() };
    let evidence =
        Evidence::open(Kind::exports(), folder.path().to_path_buf(), 1 << 20, about, &state).unwrap();
    assert_eq!(evidence.lock().kept.len(), 1);
    assert!(!folder.path().join("exports-1-0.flows").exists());
    assert!(folder.path().join("exports-2-0.flows").exists() && folder.path().join("notes.txt").exists());
}
