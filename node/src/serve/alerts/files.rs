//! Captures and flow logs that a server is given, judged one after the other as `tidegate detect` does.

use super::board::Board;
use super::desk::ToDesk;
use crate::alert::input;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::render::{clean, thousands};
use crate::rules::Rules;
use crate::traffic::{Reading, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use tidegate_alert::Input;

/// Units read between two looks at whether to end.
const STEP: usize = 4_096;

/// What files are judged with.
pub(super) struct Files {
    pub(super) paths: Vec<PathBuf>,
    pub(super) flows_max: u32,
    pub(super) reading: Reading,
    pub(super) rules: Rules,
    pub(super) board: Arc<Board>,
    pub(super) to_desk: SyncSender<ToDesk>,
    pub(super) interrupt: Interrupt,
}

impl Files {
    pub(super) fn run(self) {
        for path in &self.paths {
            if self.interrupt.raised() {
                break;
            }
            let name = clean(&path.display().to_string());
            match self.judge(path) {
                Ok(said) => self.board.note(format!("{name}: {said}")),
                // The other files are still worth a look.
                Err(failure) => self.board.note(format!("warning: {name}: {:#}", failure.error)),
            }
        }
    }

    /// What became of it, in words.
    fn judge(&self, path: &Path) -> Result<String, Failure> {
        let input = input::of(path, self.flows_max, &self.reading, &self.rules)?;
        let name = input.as_ref().map(|input| input.name.clone()).unwrap_or_default();
        // What cannot be begun must not take the desk, which nobody would give back.
        let mut judge =
            Judge::reading(self.flows_max, self.rules.set.clone(), name, &self.reading)?.keeping_flows();
        let mut source = Source::open(path, &self.reading, !self.rules.set.is_empty())?;
        let (reply, answer) = std::sync::mpsc::channel();
        let ends = |_| Failure::internal("the keeper of alerts has ended");
        self.to_desk.send(ToDesk::Begin { input: input.clone(), reply }).map_err(ends)?;
        if answer.recv() == Ok(Some(true)) {
            return Ok("it was judged before; its alerts are in the store".to_owned());
        }
        let mut found = 0u64;
        let mut tell = |finding| {
            found += 1;
            // Files can wait for the desk; it takes everything until this thread has ended.
            let _ = self.to_desk.send(ToDesk::InFile(Box::new(finding)));
        };
        let mut flows = Vec::new();
        let mut ended_early = None;
        while !self.interrupt.raised() {
            let more = source.read(STEP, |unit| unit.give(&mut judge, &mut tell));
            judge.take_flows(&mut flows);
            self.board.talked(&mut flows);
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    ended_early = Some(error);
                    break;
                }
            }
        }
        source.finish(|unit| unit.give(&mut judge, &mut tell));
        judge.finish(&mut tell);
        judge.take_flows(&mut flows);
        self.board.talked(&mut flows);
        let whole = ended_early.is_none() && !self.interrupt.raised();
        let input = input.map(|input| Input { units: judge.units(), whole, ..input });
        self.to_desk.send(ToDesk::End { input }).map_err(ends)?;
        let mut said = format!("{} units judged, {} findings", thousands(judge.units()), thousands(found));
        if let Some(error) = ended_early {
            said += &format!("; reading ended early: {error}");
        } else if !whole {
            said += "; interrupted";
        }
        Ok(said)
    }
}
