//! The real binary, run to its end or beside the test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod http;

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

/// `line` as a user types it behind `tidegate`, one who has nothing at home: what others left there must not matter.
pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).args(line.split_whitespace()).env("XDG_DATA_HOME", folder.join("at-home"));
    command
}

/// What it said on either side; it must end with this code.
#[track_caller]
pub fn ends(folder: &Path, line: &str, code: i32) -> (String, String) {
    let output = command(folder, line).output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "tidegate {line}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// It must fail with this code, and say these words.
#[track_caller]
pub fn fails(folder: &Path, line: &str, code: i32, words: &[&str]) {
    let (_, stderr) = ends(folder, line, code);
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
}

/// The one JSON value that it prints.
#[track_caller]
pub fn json(folder: &Path, line: &str, code: i32) -> Value {
    serde_json::from_str(&ends(folder, line, code).0).expect("one JSON value")
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

/// A process that does not outlive its test. Its output is read as it comes: a full pipe would hold it up.
pub struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let from = BufReader::new(from);
    std::thread::spawn(move || from.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

impl Running {
    pub fn start(folder: &Path, line: &str) -> Self {
        Self::of(command(folder, line))
    }

    /// One that has been given more than a line.
    pub fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = lines(child.stdout.take().expect("a pipe"));
        let err = lines(child.stderr.take().expect("a pipe"));
        Self { child, out, err }
    }

    /// `serve --json` on free ports with the data folder `data`, and what it says first.
    #[track_caller]
    pub fn serve(folder: &Path, more: &str) -> (Self, Value) {
        let line = format!("serve --json --listen 127.0.0.1:0 --http 127.0.0.1:0 --data data {more}");
        let mut server = Self::start(folder, &line);
        let hello = serde_json::from_str(&server.line()).expect("it says where it listens");
        (server, hello)
    }

    /// The next line, when it comes.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.out
            .recv()
            .unwrap_or_else(|_| panic!("it ended: {}", self.err.iter().collect::<Vec<_>>().join("\n")))
    }

    /// The next line, when it comes; none if it ends instead.
    pub fn next_line(&mut self) -> Option<String> {
        self.out.recv().ok()
    }

    /// The next line as JSON, when it comes.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"))
    }

    /// The next line of its notes, when it comes.
    #[track_caller]
    pub fn note(&self) -> String {
        self.err.recv().expect("a note before the end")
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_some()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// What it still says on either side, and how it ended.
    pub fn rest(mut self) -> (Vec<String>, String, Option<i32>) {
        drop(self.child.stdin.take());
        let rest = self.out.iter().collect();
        let notes = self.err.iter().collect::<Vec<_>>().join("\n");
        (rest, notes, self.child.wait().expect("it ends").code())
    }

    /// As [`Running::rest`] of one that ends well: what it said.
    #[track_caller]
    pub fn well(self) -> String {
        let (rest, notes, code) = self.rest();
        assert_eq!(code, Some(0), "{notes}");
        rest.into_iter().map(|line| line + "\n").collect()
    }

    /// Ends it as a user does; what it still said.
    #[track_caller]
    pub fn interrupted(self) -> String {
        self.signal("-INT");
        self.well()
    }

    /// The same, as JSON: its summary.
    #[track_caller]
    pub fn summary(self) -> Value {
        serde_json::from_str(&self.interrupted()).expect("a summary in JSON")
    }

    /// Ends it as nobody should.
    pub fn kill(self) {
        drop(self);
    }
}

/// Trades of three symbols, five milliseconds apart, as CSV.
pub fn write_trades(path: &Path, events: u64) {
    /// 2026-01-05T00:00:00Z.
    const START_NS: u64 = 1_767_571_200_000_000_000;
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    writeln!(out, "ts,symbol,price,size").expect("room");
    for at in 0..events {
        let ts = START_NS + at * 5_000_000;
        writeln!(out, "{ts},{},{},{}", ["A", "B", "C"][at as usize % 3], 900 + at % 77, 1 + at % 13)
            .expect("room");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
