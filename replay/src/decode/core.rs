//! What all decoders share: names under a quota, the account, the time filter, and the shell that turns a decoder into
//! a [`Source`].

use super::ReadOptions;
use super::input::{Input, Line};
use crate::source::{Names, Place, Progress, ReadAccount, ReadError, RejectCause, Source};
use std::path::{Path, PathBuf};
use tidegate_engine::{Event, Notional, Price, Size};

/// The name that takes the events of every name over the quota.
pub const OVERFLOW_NAME: &str = "(overflow)";

/// A reason for refusing one unit.
pub(super) type Refusal = (RejectCause, String);

/// The trade, unless no bar could sum it.
#[inline]
pub(super) fn trade(ts: u64, key: u32, price: Price, size: Size, flags: u8) -> Result<Event, Refusal> {
    match Notional::of(price, size) {
        Ok(_) => Ok(Event::trade(ts, key, 0, price, size, flags)),
        Err(error) => Err((RejectCause::OutOfRange, error.to_string())),
    }
}

const CACHE_SLOTS: usize = 4096;

/// State shared by every decoder.
pub(super) struct Core {
    path: PathBuf,
    pub(super) names: Names,
    pub(super) account: ReadAccount,
    names_max: usize,
    overflow_key: u32,
    /// Events with `from <= ts < to` pass.
    from: u64,
    to: u64,
    strict: bool,
    stop: Option<ReadError>,
    /// Direct-mapped: most lookups are of a name seen lately, and comparing it is cheaper than a keyed hash.
    cache: Box<[u32]>,
}

impl Core {
    pub(super) fn new(path: &Path, options: &ReadOptions) -> Self {
        Self {
            path: path.to_path_buf(),
            names: Names::default(),
            account: ReadAccount::default(),
            names_max: options.names_max.min(u32::MAX as usize - 2),
            overflow_key: u32::MAX,
            from: options.from.map_or(0, |t| t.0),
            to: options.to.map_or(u64::MAX, |t| t.0),
            strict: options.strict,
            stop: None,
            cache: vec![u32::MAX; CACHE_SLOTS].into_boxed_slice(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn damaged(&self, place: Place, reason: impl Into<String>) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), place, reason: reason.into() }
    }

    /// The key of a name: its own, or that of [`OVERFLOW_NAME`] once the quota is full.
    #[inline]
    pub(super) fn key(&mut self, name: &[u8]) -> Result<u32, Refusal> {
        let mut head = [0u8; 8];
        let taken = name.len().min(8);
        head[..taken].copy_from_slice(&name[..taken]);
        let tail = name.last().copied().unwrap_or(0);
        let mixed = (u64::from_le_bytes(head) ^ ((name.len() as u64) << 56) ^ (u64::from(tail) << 48))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = (mixed >> 52) as usize;
        let cached = self.cache[slot];
        if let Some(known) = self.names.name(cached)
            && known.as_bytes() == name
        {
            return Ok(cached);
        }
        let key = self.key_slow(name)?;
        if key != self.overflow_key {
            self.cache[slot] = key;
        }
        Ok(key)
    }

    #[cold]
    fn key_slow(&mut self, name: &[u8]) -> Result<u32, Refusal> {
        if name.is_empty() {
            return Err((RejectCause::BadName, "the name is empty".to_owned()));
        }
        if name.len() > Names::BYTES_MAX {
            let why = format!("a name of {} bytes; the limit is {}", name.len(), Names::BYTES_MAX);
            return Err((RejectCause::BadName, why));
        }
        let text = std::str::from_utf8(name)
            .map_err(|_| (RejectCause::BadName, "the name is not UTF-8 text".to_owned()))?;
        if text.chars().any(char::is_control) {
            return Err((RejectCause::BadName, "the name holds control characters".to_owned()));
        }
        if let Some(key) = self.names.get(text) {
            return Ok(key);
        }
        if self.names.len() < self.names_max {
            return Ok(self.names.intern(text));
        }
        if self.overflow_key == u32::MAX {
            self.overflow_key = self.names.intern(OVERFLOW_NAME);
        }
        Ok(self.overflow_key)
    }

    /// Whether the filter leaves this instant out.
    #[inline]
    pub(super) fn outside(&self, ts: u64) -> bool {
        ts < self.from || ts >= self.to
    }

    /// Counts one unit that the filter left out.
    #[inline]
    pub(super) fn refuse_filtered(&mut self) {
        self.account.refuse(RejectCause::Filtered, Place::Row(0), String::new);
    }

    /// Takes one unit that makes one event. The caller has asked [`Core::outside`] before.
    #[inline]
    pub(super) fn accept_one(&mut self, events: &mut Vec<Event>, event: Event) {
        debug_assert!(!self.outside(event.ts_event));
        if event.key == self.overflow_key {
            self.account.count_overflowed(1);
        }
        events.push(event);
        self.account.accept(1);
    }

    /// Whether the filter leaves nothing out.
    pub(super) fn passes_all(&self) -> bool {
        self.from == 0 && self.to == u64::MAX
    }

    /// Takes units of one event each that are already in the batch and pass the filter.
    pub(super) fn accept_each(&mut self, events: &[Event]) {
        let count = events.len() as u64;
        if self.overflow_key != u32::MAX {
            let overflowed = events.iter().filter(|event| event.key == self.overflow_key).count();
            self.account.count_overflowed(overflowed as u64);
        }
        self.account.units += count;
        self.account.accepted += count;
        self.account.events += count;
    }

    /// Ends a unit whose events were appended from `start` on: the filter is applied, then it is counted.
    pub(super) fn finish_unit(&mut self, events: &mut Vec<Event>, start: usize) {
        let mut kept = start;
        for at in start..events.len() {
            if !self.outside(events[at].ts_event) {
                events[kept] = events[at];
                kept += 1;
            }
        }
        events.truncate(kept);
        if kept == start {
            return self.refuse_filtered();
        }
        let overflowed = events[start..].iter().filter(|event| event.key == self.overflow_key).count();
        self.account.count_overflowed(overflowed as u64);
        self.account.accept((kept - start) as u64);
    }

    /// Counts one refused unit; in strict mode a fault ends the reading.
    pub(super) fn refuse(&mut self, cause: RejectCause, place: Place, why: impl FnOnce() -> String) {
        let fault = !matches!(cause, RejectCause::NotAnEvent | RejectCause::Filtered);
        if fault && self.strict && self.stop.is_none() {
            let text = why();
            self.stop = Some(self.damaged(place, format!("{}: {text} (--strict)", cause.name())));
            self.account.refuse(cause, place, || text);
        } else {
            self.account.refuse(cause, place, why);
        }
    }

    pub(super) fn refuse_with(&mut self, (cause, why): Refusal, place: Place) {
        self.refuse(cause, place, || why);
    }

    /// The fault that ends reading in strict mode, once.
    pub(super) fn stop(&mut self) -> Option<ReadError> {
        self.stop.take()
    }

    /// Whether reading must end now (strict mode saw a fault).
    #[inline]
    pub(super) fn stopped(&self) -> bool {
        self.stop.is_some()
    }
}

/// A format: turns its input into events and refusals.
pub(super) trait Decode: Send {
    /// Appends events until `events` holds `target` or the input ends, or [`Core::stopped`] says so. True when more may come.
    fn fill(&mut self, core: &mut Core, events: &mut Vec<Event>, target: usize) -> Result<bool, ReadError>;
    /// How far reading is.
    fn progress(&self) -> Progress;
    /// Name of the format, for tables.
    fn format(&self) -> String;
}

/// A decoder as a [`Source`].
pub(super) struct Reader<D> {
    pub(super) core: Core,
    pub(super) decoder: D,
    done: bool,
}

impl<D: Decode> Reader<D> {
    pub(super) fn new(core: Core, decoder: D) -> Self {
        Self { core, decoder, done: false }
    }
}

impl<D: Decode> Source for Reader<D> {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let start = events.len();
        let target = start.saturating_add(max.max(1));
        while events.len() == start && !self.done {
            let more = self.decoder.fill(&mut self.core, events, target);
            // An error ends the input, so that a caller who carries on meets the end and not garbage.
            self.done = !matches!(more, Ok(true)) || self.core.stopped();
            more?;
            if let Some(error) = self.core.stop.take() {
                return Err(error);
            }
        }
        Ok(events.len() - start)
    }

    fn names(&self) -> &Names {
        &self.core.names
    }

    fn account(&self) -> &ReadAccount {
        &self.core.account
    }

    fn progress(&self) -> Progress {
        self.decoder.progress()
    }

    fn format(&self) -> String {
        self.decoder.format()
    }
}

/// A format whose units are lines.
pub(super) trait DecodeLine: Send {
    /// Takes one line that is not blank, and accounts for it as one unit or none (headers, comments).
    fn line(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>);
    /// The input ended: account for what was held back.
    fn end(&mut self, _core: &mut Core, _events: &mut Vec<Event>) {}
    /// Name of the format, for tables.
    fn format(&self) -> String;
}

/// Feeds a line decoder.
pub(super) struct ByLine<L> {
    pub(super) input: Input,
    pub(super) decoder: L,
}

impl<L: DecodeLine> Decode for ByLine<L> {
    fn fill(&mut self, core: &mut Core, events: &mut Vec<Event>, target: usize) -> Result<bool, ReadError> {
        while events.len() < target && !core.stopped() {
            let number = self.input.line_number() + 1;
            match self.input.next_line()? {
                Some(Line::Text(line)) => {
                    if !line.is_empty() {
                        self.decoder.line(core, line, number, events);
                    }
                }
                Some(Line::TooLong(bytes)) => {
                    core.refuse(RejectCause::Malformed, Place::Line(number), || {
                        format!("a line of {bytes} bytes is over the limit (--line-max)")
                    });
                }
                None => {
                    self.decoder.end(core, events);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn progress(&self) -> Progress {
        self.input.progress()
    }

    fn format(&self) -> String {
        self.decoder.format()
    }
}
