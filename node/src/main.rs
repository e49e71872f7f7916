//! The binary: command line, configuration and wiring.
//!
//! **Invariant:** the only crate that reads the environment, the clock of the day or the terminal; it decides nothing
//! about events.
#![forbid(unsafe_code)]

mod cli;
mod exit;
mod explain;
mod interrupt;
mod progress;
mod render;

mod alert;
mod batch;
mod bench;
mod capture;
mod certs;
mod cluster;
mod collect;
mod demo;
mod detect;
mod digest;
mod doctor;
mod flows;
mod generate;
mod inspect;
mod journal;
mod judge;
mod packets;
mod place;
mod plan;
mod publish;
mod pulse;
mod record;
mod recorded;
mod replay;
mod results;
mod rules;
mod series;
mod serve;
mod settings;
mod sink;
mod stdin;
mod subscribe;
mod summary;
mod tabular;
mod token;
mod top;
mod topic;
mod traffic;
mod verify;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = render::Ui::new(cli.color, cli.quiet);
    let outcome = match cli.command {
        Command::Inspect(args) => inspect::run(&args, &ui),
        Command::Journal(args) => journal::run(&args.command, &ui),
        Command::Flows(args) => flows::run(&args, &ui),
        Command::Detect(args) => detect::run(&args, &ui),
        Command::Alert(args) => alert::run(&args, &ui),
        Command::Generate(args) => generate::run(&args, &ui),
        Command::Record(args) => record::run(&args, &ui),
        Command::Replay(args) => replay::run(&args, &ui),
        Command::Verify(args) => verify::run(&args, &ui),
        Command::Demo(args) => demo::run(&args, &ui),
        Command::Serve(args) => serve::run(&args, &ui),
        Command::Publish(args) => publish::run(&args, &ui),
        Command::Subscribe(args) => subscribe::run(&args, &ui),
        Command::Config(args) => settings::run(&args, &ui),
        Command::Cluster(command) => cluster::run(&command.what, &ui),
        Command::Certs(command) => certs::run(&command.what, &ui),
        Command::Token(command) => token::run(&command.what, &ui),
        Command::Explain(args) => explain::run(&args, &ui),
        Command::Top(args) => top::run(&args, &ui),
        Command::Doctor(args) => doctor::run(&args, &ui),
        Command::Bench(args) => bench::run(&args, &ui),
        Command::Surface(args) => batch::surface::run(&args, &ui),
        Command::Risk(args) => batch::risk::run(&args, &ui),
        Command::Spectrum(args) => batch::spectrum::run(&args, &ui),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.error(&failure.error);
            failure.exit.into()
        }
    }
}
