//! `tidegate bench`: the benchmarks as a table, with the machine named.

pub(crate) mod cluster;
mod nodes;

use crate::cli::BenchArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Bar;
use crate::render::{Table, Ui, duration, rate};
use serde_json::{Map, Value};
use tidegate_benches::live;
use tidegate_benches::measure::Measurement;
use tidegate_benches::suite::{self, Size};

pub(crate) fn run(args: &BenchArgs, ui: &Ui) -> Outcome {
    let size = if args.quick { Size::QUICK } else { Size::FULL };
    let spinner = Bar::spinner(ui, "measuring", String::new());
    if args.cluster {
        let found = cluster::run(args.quick, &args.part, &spinner);
        spinner.clear();
        show_cluster(&found?, args, ui);
        return Ok(Exit::Ok);
    }
    let mut tell = |what: &str| spinner.at(0, what.to_owned());
    let (found, what) = if args.network {
        let size = if args.quick { live::Size::QUICK } else { live::Size::FULL };
        (
            live::run(size, &mut tell).map_err(Failure::internal)?,
            format!("the server on loopback, {} runs", size.rounds),
        )
    } else {
        let found = suite::run(size, &mut tell).map_err(Failure::internal)?;
        (found, format!("{} trades of work W1, median of {} runs", size.events, size.rounds))
    };
    spinner.clear();
    if args.json {
        let figures: Map<String, Value> =
            found.iter().map(|measurement| (measurement.name.clone(), figure(measurement))).collect();
        ui.print_json(&Value::Object(figures));
        return Ok(Exit::Ok);
    }
    ui.print(&format!("{}, {what}\n", machine()));
    let mut table = Table::new(&["figure", "median", "min", "max"]);
    for measurement in &found {
        let show = |value: f64| match measurement.unit.as_str() {
            "ns" => duration(value as u64),
            "share" => format!("{:.2} %", value * 100.0),
            _ => rate(value),
        };
        let (median, min, max) =
            (show(measurement.median()), show(measurement.min()), show(measurement.max()));
        table.row([measurement.name.as_str(), median.as_str(), min.as_str(), max.as_str()]);
    }
    ui.print(&table.render(ui, 0));
    ui.note("Machines differ and are shared: compare figures of one run, by ratio. docs/BENCHMARKS.md says what each one is.");
    Ok(Exit::Ok)
}

fn show_cluster(found: &[cluster::Figure], args: &BenchArgs, ui: &Ui) {
    if args.json {
        return ui.print_json(&cluster::object(found));
    }
    ui.print(&format!("{}, nodes, feed and readers on it as processes\n", machine()));
    let mut table = Table::new(&["figure", "median", "p99", "max", ">samples", "goal"]);
    for figure in found {
        let row = figure.row();
        table.row(row.each_ref().map(String::as_str));
    }
    ui.print(&table.render(ui, 0));
    ui.note("docs/BENCHMARKS.md says what each one is.");
}

fn figure(measurement: &Measurement) -> Value {
    serde_json::json!({
        "value": measurement.median(),
        "unit": measurement.unit,
        "runs": measurement.runs,
        "min": measurement.min(),
        "max": measurement.max(),
    })
}

/// Processor, cores and system, as far as the system tells.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}
