//! How a command ends: exit codes, and errors on their way to one.

use std::process::ExitCode;
use tidegate_actors::runtime::RuntimeError;
use tidegate_replay::capture::WriteError;
use tidegate_replay::write::OutputError;
use tidegate_replay::{PlanError, ReadError, ReplayError};

/// Exit codes, as `--help` and `docs/cli.md` list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All went well.
    Ok = 0,
    /// The command ran, and what it checked is not so.
    Differs = 1,
    /// The command line asks for something that does not exist. clap uses the same number.
    Usage = 2,
    /// An input cannot be read or is damaged; what was valid before was processed.
    Input = 3,
    /// An output cannot be written.
    Output = 4,
    /// A bug of ours: a shard failed.
    Internal = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error and the exit code it ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn usage(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{text}"))
    }

    pub(crate) fn internal(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Internal, anyhow::anyhow!("{text}"))
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Exit::Input, error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::new(Exit::Output, error)
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::new(Exit::Output, error)
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Plan(error) => error.into(),
            ReplayError::Runtime(error @ RuntimeError::Option { .. }) => Self::new(Exit::Usage, error),
            ReplayError::Sink(error) => Self::new(Exit::Output, anyhow::anyhow!(error)),
            error => Self::new(Exit::Internal, error),
        }
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<Exit, Failure>;
