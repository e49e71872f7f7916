//! `cargo xtask sim`: many lives, one life, or one life after the other without a rule.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use tidegate_replica::{Rule, Rules};
use tidegate_sim::{Options, live};

/// Clusters under a seeded network, disk and clock.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Arguments {
    /// How many lives.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This life alone, each step printed.
    #[arg(long)]
    seed: Option<u64>,
    /// For each rule: how many lives it takes until its absence is noticed. Fails when one is not.
    #[arg(long)]
    mutations: bool,
    /// With --mutations: this rule alone.
    #[arg(long)]
    rule: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let good = match arguments.seed {
        Some(seed) => one(seed),
        None if arguments.mutations => mutations(arguments.from, arguments.seeds, arguments.rule.as_deref()),
        None => many(arguments.from, arguments.seeds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64) -> bool {
    let life = live(seed, Options { trace: true, ..Options::default() });
    println!("{life:#?}");
    life.broken.is_none()
}

fn many(from: u64, count: u64) -> bool {
    let start = Instant::now();
    let (mut steps, mut faults, mut acks, mut broken) = (0, 0, 0, Vec::new());
    let (mut lost, mut fenced, mut installed) = (0, 0, 0);
    for seed in from..from.saturating_add(count) {
        let life = live(seed, Options::default());
        // One in a hundred is lived twice.
        if seed % 100 == 0 && live(seed, Options::default()) != life {
            broken.push(format!("seed {seed}: the second life differs from the first"));
        }
        (steps, faults, acks) = (steps + life.steps, faults + life.faults, acks + life.acks);
        (lost, fenced) = (lost + u64::from(life.losses > 0), fenced + life.fenced);
        installed += life.installed;
        if let Some((step, what)) = life.broken {
            broken.push(format!("seed {seed}, step {step}: {what}"));
        }
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{count} lives, {:.1} M steps ({:.2} M/s), {:.1} M faults, {acks} inputs acknowledged, {lost} lives with a declared loss, {fenced} \
         replicas fenced themselves, {installed} snapshots of others put in place, {took:.1} s",
        steps as f64 / 1e6,
        steps as f64 / 1e6 / took,
        faults as f64 / 1e6,
    );
    broken.iter().take(20).for_each(|line| println!("BROKEN {line}"));
    println!("{} broken{}", broken.len(), if broken.is_empty() { "" } else { "; see one with --seed" });
    broken.is_empty()
}

fn mutations(from: u64, most: u64, only: Option<&str>) -> bool {
    println!("{:<20} {:>9}  noticed as", "without the rule", "lives");
    let mut survivors = 0;
    let rules: Vec<Rule> =
        Rule::ALL.into_iter().filter(|rule| only.is_none_or(|only| format!("{rule:?}") == only)).collect();
    let count = rules.len();
    for rule in rules {
        let rules = Rules::without(rule);
        let found = (from..from.saturating_add(most)).find_map(|seed| {
            let life = live(seed, Options { rules, trace: false });
            life.broken.map(|(_, what)| (seed - from + 1, what))
        });
        match found {
            Some((lives, what)) => println!("{:<20} {lives:>9}  {what}", format!("{rule:?}")),
            None => {
                survivors += 1;
                println!("{:<20} {most:>9}  NOT NOTICED", format!("{rule:?}"));
            }
        }
    }
    println!("{count} rules, {survivors} of them not shown to be needed");
    survivors == 0
}
