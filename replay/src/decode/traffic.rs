//! Packets and flow logs as they are, for the flow table and the detectors: no names, no dictionary, no events.

use super::core::Core;
use super::input::{Input, Line};
use super::pcap::Frames;
use super::zeek::Zeek;
use super::{Format, ReadOptions, detect, eve};
use crate::source::{Place, Progress, ReadAccount, ReadError, RejectCause};
use std::path::Path;
use tidegate_flow::{FlowRecord, Frame, Unparsed, parse};

/// One unit of traffic.
#[derive(Debug, Clone, Copy)]
pub enum Traffic<'a> {
    /// A packet of a capture.
    Frame(Frame<'a>),
    /// A row of a flow log.
    Record(FlowRecord),
}

/// Reads traffic: pcap, pcapng, Zeek's `conn.log`, or the flows of Suricata's EVE; gzip and Zstandard are looked through.
pub struct TrafficReader {
    form: Form,
    core: Core,
}

enum Form {
    Packets(Box<Frames>),
    /// A line is a flow, or something else.
    Log {
        input: Box<Input>,
        log: Log,
        records: u64,
    },
}

enum Log {
    Zeek(Box<Zeek>),
    Eve,
}

impl TrafficReader {
    /// Opens a file. Of the options, names and columns do not matter here.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be opened, is empty, or holds no traffic.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, ReadError> {
        Self::new(Input::open(path, options)?, options)
    }

    /// Reads from memory, for tests and fuzzers.
    ///
    /// # Errors
    /// As [`TrafficReader::open`].
    pub fn from_bytes(bytes: Vec<u8>, options: &ReadOptions) -> Result<Self, ReadError> {
        Self::new(Input::from_bytes(bytes, Path::new("memory"), options)?, options)
    }

    fn new(mut input: Input, options: &ReadOptions) -> Result<Self, ReadError> {
        let format = match options.format {
            Some(format) => format,
            None => detect(&mut input)?,
        };
        let core = Core::new(input.path(), options);
        let form = match format {
            Format::Pcap => Form::Packets(Box::new(Frames::open(input)?)),
            Format::Zeek => {
                let log = Log::Zeek(Box::new(Zeek::begin(&mut input, core.path())?));
                Form::Log { input: Box::new(input), log, records: 0 }
            }
            Format::Eve => Form::Log { input: Box::new(input), log: Log::Eve, records: 0 },
            other => {
                return Err(ReadError::UnknownFormat {
                    path: input.path().to_path_buf(),
                    reason: format!(
                        "it is {}, which holds no traffic; pcap, pcapng, Zeek's conn.log and Suricata's EVE do",
                        other.name()
                    ),
                });
            }
        };
        Ok(Self { form, core })
    }

    /// Gives about `max` units to `take`. False once the input has ended.
    ///
    /// # Errors
    /// [`ReadError`] when nothing more can be read; what was given before stays valid.
    pub fn read(&mut self, max: usize, mut take: impl FnMut(Traffic<'_>)) -> Result<bool, ReadError> {
        let core = &mut self.core;
        for _ in 0..max {
            let more = match &mut self.form {
                Form::Packets(frames) => frames.step(|number, packet| {
                    let place = Place::Packet(number);
                    let ts = match packet {
                        Ok(packet) => packet.ts.clone().map(|ts| (ts, packet)),
                        Err(refusal) => Err(refusal),
                    };
                    let (ts, packet) = match ts {
                        Ok(found) => found,
                        Err(refusal) => return core.refuse_with(refusal, place),
                    };
                    if core.outside(ts) {
                        return core.refuse_filtered();
                    }
                    let link = u32::try_from(packet.link).unwrap_or(u32::MAX);
                    match parse(number, ts, link, packet.bytes) {
                        Ok(Frame::Other) => core.refuse(RejectCause::NotAnEvent, place, String::new),
                        Ok(frame) => {
                            core.account.accept(1);
                            take(Traffic::Frame(frame));
                        }
                        Err(Unparsed::LinkType) => core.refuse(RejectCause::NotAnEvent, place, String::new),
                        Err(error) => core.refuse(RejectCause::Malformed, place, || error.to_string()),
                    }
                })?,
                Form::Log { input, log, records } => {
                    let number = input.line_number() + 1;
                    let place = Place::Line(number);
                    match input.next_line()? {
                        None => false,
                        Some(Line::TooLong(bytes)) => {
                            let why = || format!("a line of {bytes} bytes is over the limit (--line-max)");
                            core.refuse(RejectCause::Malformed, place, why);
                            true
                        }
                        Some(Line::Text([])) => true,
                        Some(Line::Text(line)) => {
                            let flow = match log {
                                Log::Zeek(zeek) => zeek.flow(line, *records + 1),
                                Log::Eve => Some(eve::flow(line, *records + 1)),
                            };
                            match flow {
                                None => {}
                                Some(Err(refusal)) => core.refuse_with(refusal, place),
                                Some(Ok(record)) if core.outside(record.start_ns) => core.refuse_filtered(),
                                Some(Ok(record)) => {
                                    *records += 1;
                                    core.account.accept(1);
                                    take(Traffic::Record(record));
                                }
                            }
                            true
                        }
                    }
                }
            };
            if let Some(error) = core.stop() {
                return Err(error);
            }
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was read and refused so far.
    #[must_use]
    pub fn account(&self) -> &ReadAccount {
        &self.core.account
    }

    /// How far reading is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.form {
            Form::Packets(frames) => frames.progress(),
            Form::Log { input, .. } => input.progress(),
        }
    }

    /// Short name of the format.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match &self.form {
            Form::Packets(frames) => frames.format(),
            Form::Log { log: Log::Zeek(_), .. } => "zeek conn",
            Form::Log { log: Log::Eve, .. } => "eve",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<FlowRecord>, Result<(), ReadError>, ReadAccount) {
        let mut reader = TrafficReader::from_bytes(bytes.to_vec(), &ReadOptions::default()).unwrap();
        let mut records = Vec::new();
        let mut done = Ok(true);
        while matches!(done, Ok(true)) {
            done = reader.read(3, |traffic| {
                if let Traffic::Record(record) = traffic {
                    records.push(record);
                }
            });
        }
        (records, done.map(drop), reader.account().clone())
    }

    #[test]
    fn a_flow_log_is_read_with_states() {
        let log = b"#separator \\x09\n#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tconn_state\thistory\torig_pkts\n\
1.5\t10.0.0.1\t1000\t10.0.0.2\t80\ttcp\t0.25\t77\tREJ\tSr\t2\nbroken\n";
        let (records, done, account) = read(log);
        assert!(done.is_ok() && account.units == 2 && account.faults() == 1, "{account:?}");
        let record = records[0];
        assert_eq!(
            (record.state, record.history.as_str(), record.responder_port),
            (ConnState::Rej, "Sr", 80)
        );
        assert_eq!((record.sent.bytes, record.sent.packets), (77, 2));
        assert_eq!((record.start_ns, record.duration_ns()), (1_500_000_000, Some(250_000_000)));
    }

    #[test]
    fn what_holds_no_traffic_is_refused() {
        let error = TrafficReader::from_bytes(b"ts,price,size\n1,2,3\n".to_vec(), &ReadOptions::default())
            .err()
            .unwrap();
        assert!(error.to_string().contains("holds no traffic"), "{error}");
    }

    use tidegate_flow::ConnState;
}
