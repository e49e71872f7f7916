//! One thread's detectors and rules over traffic that comes in while the server runs, with a record of it for proofs.

use super::board::Board;
use super::desk::ToDesk;
use super::evidence::{Evidence, Given, Recorder};
use crate::judge::Judge;
use crate::rules::Rules;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use tidegate_alert::Finding;
use tidegate_flow::FlowRecord;

/// What is taken is judged and recorded.
pub(super) struct Judging {
    /// In words.
    what: &'static str,
    judge: Judge,
    recorder: Option<Recorder>,
    pub(super) board: Arc<Board>,
    to_desk: SyncSender<ToDesk>,
    /// Of what was taken last.
    findings: Vec<Finding>,
    flows: Vec<FlowRecord>,
    /// Findings for which there was no room, as the board has them from here.
    unheard: u64,
    /// It was told that nothing is recorded.
    troubled: bool,
}

impl Judging {
    pub(super) fn new(
        what: &'static str,
        flows_max: u32,
        rules: &Rules,
        edges: Option<u32>,
        evidence: Option<Arc<Evidence>>,
        (board, to_desk): (&Arc<Board>, &SyncSender<ToDesk>),
    ) -> Self {
        // No name of an input: proofs are the recorder's to give.
        let judge = Judge::new(flows_max, rules.set.clone(), String::new()).with_edges(edges).keeping_flows();
        Self {
            what,
            judge,
            recorder: evidence.map(Recorder::new),
            board: Arc::clone(board),
            to_desk: to_desk.clone(),
            findings: Vec::new(),
            flows: Vec::new(),
            unheard: 0,
            troubled: false,
        }
    }

    pub(super) fn take(&mut self, given: &Given<'_>) {
        let Self { judge, findings, .. } = self;
        given.give(judge, |finding| findings.push(finding));
        match &mut self.recorder {
            Some(recorder) => recorder.take(given, &mut self.findings),
            None => {
                let what = self.what;
                self.findings.iter_mut().for_each(|finding| {
                    finding.unproven = Some(format!("{what} are not recorded: `alerts.evidence` is off"));
                });
            }
        }
        self.tell();
    }

    /// Whether anything was taken yet.
    pub(super) fn has_begun(&self) -> bool {
        self.judge.units() > 0
    }

    /// Shows flows and counters, and says what people should know.
    pub(super) fn show(&mut self) {
        self.judge.take_flows(&mut self.flows);
        self.board.talked(&mut self.flows);
        // Others count there as well.
        let unheard = self.judge.unheard();
        add(&self.board.counts.unheard, unheard - std::mem::replace(&mut self.unheard, unheard));
        self.troubles();
    }

    /// Nothing more comes.
    pub(super) fn finish(mut self) {
        let Self { judge, findings, .. } = &mut self;
        judge.finish(|finding| findings.push(finding));
        self.recorder.iter_mut().for_each(|recorder| recorder.finish(&mut self.findings));
        self.tell();
        self.show();
    }

    fn tell(&mut self) {
        for finding in self.findings.drain(..) {
            // While the desk is busy this waits, and then what comes in does.
            let _ = self.to_desk.send(ToDesk::Finding(Box::new(finding)));
        }
    }

    /// Says once that nothing is recorded, and once that it is again.
    fn troubles(&mut self) {
        let (what, trouble) = (self.what, self.recorder.as_ref().and_then(Recorder::trouble));
        match (self.troubled, trouble) {
            (false, Some(why)) => {
                let note = format!("warning: {what} are not recorded, so alerts have no proof: {why}");
                self.board.note(note);
            }
            (true, None) => self.board.note(format!("{what} are recorded again")),
            _ => {}
        }
        self.troubled = trouble.is_some();
    }
}

fn add(count: &AtomicU64, more: u64) {
    if more > 0 {
        count.fetch_add(more, Relaxed);
    }
}
