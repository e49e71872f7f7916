//! `cargo xtask sim`: many lives, one life, or one life after the other without a rule.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use tidegate_replica::{Rule, Rules};
use tidegate_sim::{Options, Scale, Without, live, shrink};

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
    /// This rule alone with --mutations; with --seed the life without it.
    #[arg(long)]
    rule: Option<String>,
    /// With --seed: leave out whatever it breaks without as well, and print what is left.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// With --seed: the life without these: `loss`, `doubles`, `spikes`, `damage`, `snapshots`, and faults by number.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    without: Vec<String>,
    /// With --seed: of the faults these alone, by number, or `none`.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    only: Vec<String>,
    /// A hundred nodes with 1,600 groups: metadata traffic, a node that fails and comes back, and a rebalance within their budget.
    #[arg(long)]
    scale: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let good = match (arguments.seed, &arguments) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Arguments { mutations: true, .. }) => {
            mutations(arguments.from, arguments.seeds, arguments.rule.as_deref())
        }
        (None, Arguments { scale: true, .. }) => scale(arguments.from),
        (None, _) => many(arguments.from, arguments.seeds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn without(words: &[String]) -> Option<Without> {
    let mut without = Without::default();
    for word in words {
        match word.as_str() {
            "loss" => without.loss = true,
            "doubles" => without.doubles = true,
            "spikes" => without.spikes = true,
            "damage" => without.damage = true,
            "snapshots" => without.snapshots = true,
            "none" => {}
            number => without.faults.extend(number.parse::<u64>().ok()),
        }
        let known = ["none", "loss", "doubles", "spikes", "damage", "snapshots"].contains(&word.as_str());
        if !known && word.parse::<u64>().is_err() {
            eprintln!(
                "`{word}` is nothing to leave out: loss, doubles, spikes, damage, snapshots, or a fault's number"
            );
            return None;
        }
    }
    Some(without)
}

/// More faults than any life has.
const FAULTS_MAX: u64 = 4_096;

/// A rule by its name.
fn rule(name: &str) -> Option<Rule> {
    let found = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
    if found.is_none() {
        let names: Vec<String> = Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect();
        eprintln!("there is no rule `{name}`, but {}", names.join(", "));
    }
    found
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    let Some(mut without) = without(&arguments.without) else { return false };
    if !arguments.only.is_empty() {
        let Some(only) = self::without(&arguments.only) else { return false };
        without.faults.extend((0..FAULTS_MAX).filter(|number| !only.faults.contains(number)));
    }
    let rules = match arguments.rule.as_deref().map(rule) {
        None => Rules::default(),
        Some(None) => return false,
        Some(Some(rule)) => Rules::without(rule),
    };
    let options = Options { rules, trace: false, without };
    if arguments.shrink {
        return shortened(seed, &options, arguments.rule.as_deref());
    }
    let life = live(seed, &Options { trace: true, ..options });
    println!("{life:#?}");
    life.broken.is_none()
}

/// Prints what is left of a life that breaks something.
fn shortened(seed: u64, options: &Options, rule: Option<&str>) -> bool {
    let Some(short) = shrink(seed, options) else {
        println!("seed {seed} breaks nothing");
        return true;
    };
    let Some((step, what)) = &short.life.broken else { return true };
    let mut left_out: Vec<String> = Vec::new();
    let Without { loss, doubles, spikes, damage, snapshots, faults: _ } = &short.without;
    let network = [
        (loss, "loss"),
        (doubles, "doubles"),
        (spikes, "spikes"),
        (damage, "damage"),
        (snapshots, "snapshots"),
    ];
    left_out.extend(network.iter().filter(|(out, _)| **out).map(|(_, name)| (*name).to_owned()));
    println!(
        "seed {seed}, {} groups, after {} lives: {what}, at step {step}",
        short.life.groups, short.lives
    );
    let stays: Vec<&str> = network.iter().filter(|(out, _)| !**out).map(|(_, name)| *name).collect();
    println!(
        "of the network it needs {}",
        if stays.is_empty() { "nothing".to_owned() } else { stays.join(", ") }
    );
    short.life.script.iter().for_each(|fault| println!("  {fault}"));
    let rule = rule.map_or(String::new(), |rule| format!(" --rule {rule}"));
    let list = if left_out.is_empty() { String::new() } else { format!(" --without {}", left_out.join(",")) };
    let only: Vec<String> = short.life.script.iter().map(|fault| fault.number.to_string()).collect();
    let only = if only.is_empty() { "none".to_owned() } else { only.join(",") };
    println!("each step: cargo xtask sim --seed {seed}{rule}{list} --only {only}");
    false
}

fn scale(seed: u64) -> bool {
    let start = Instant::now();
    match Scale::default().live(seed) {
        Ok(scaled) => {
            println!("{scaled}\n{:.1} s", start.elapsed().as_secs_f64());
            true
        }
        Err(broken) => {
            println!("BROKEN {broken}");
            false
        }
    }
}

fn many(from: u64, count: u64) -> bool {
    let start = Instant::now();
    let (mut steps, mut faults, mut acks, mut broken) = (0, 0, 0, Vec::new());
    let (mut several, mut worst) = (0, None);
    let (mut lost, mut fenced, mut installed, mut copies, mut moves) = (0, 0, 0, 0, 0);
    for seed in from..from.saturating_add(count) {
        let life = live(seed, &Options::default());
        // One in a hundred is lived twice.
        if seed % 100 == 0 && live(seed, &Options::default()) != life {
            broken.push(format!("seed {seed}: the second life differs from the first"));
        }
        (steps, faults, acks) = (steps + life.steps, faults + life.faults, acks + life.acks);
        (lost, fenced) = (lost + u64::from(life.losses > 0), fenced + life.fenced);
        installed += life.installed;
        copies += life.copies;
        moves += life.moves;
        several += u64::from(life.groups > 1);
        if let Some((step, what)) = life.broken {
            broken.push(format!("seed {seed}, step {step}: {what}"));
            worst = worst.or(Some(seed));
        }
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{count} lives, {several} of them with several groups, {:.1} M steps ({:.2} M/s), {:.1} M faults, {acks} inputs acknowledged, {lost} lives with a declared loss, {fenced} \
         replicas fenced themselves, {installed} snapshots of others put in place, {copies} copies came to other nodes, {moves} slots to other groups, {took:.1} s",
        steps as f64 / 1e6,
        steps as f64 / 1e6 / took,
        faults as f64 / 1e6,
    );
    broken.iter().take(20).for_each(|line| println!("BROKEN {line}"));
    println!("{} broken", broken.len());
    if let Some(seed) = worst {
        shortened(seed, &Options::default(), None);
    }
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
            let life = live(seed, &Options { rules, ..Options::default() });
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
