//! Every kernel on the device of this machine beside the CPU, and how long each takes: `gpu-check [--small] [--seed N] [--out FILE]`.
//!
//! Ends with 0 when all results are the CPU's to the bit, 1 when one is not, 2 when there is no device or an argument is wrong. `cargo
//! xtask gpu-check` builds and starts it.
#![forbid(unsafe_code)]

mod equal;
mod figures;
mod inputs;

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tidegate_gpu::{Accel, Backend, Cpu, GpuPolicy};

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Arguments {
    /// Shapes for a sanitizer or a driver without a device: what they take means nothing.
    small: bool,
    /// Of the random inputs; by the clock when absent.
    seed: Option<u32>,
    /// Where the table goes too.
    out: Option<std::path::PathBuf>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut found = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--small" => found.small = true,
            "--seed" => {
                let text = value()?;
                found.seed =
                    Some(text.parse().map_err(|_| format!("--seed {text}: allowed is 0 to {}", u32::MAX))?);
            }
            "--out" => found.out = Some(value()?.into()),
            _ => return Err(format!("`{word}` is not known; allowed are --small, --seed N and --out FILE")),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)).and_then(run) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("gpu-check: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Runs everything; how many results were not the CPU's.
fn run(arguments: Arguments) -> Result<usize, String> {
    let start = Instant::now();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u32);
    let seed = arguments.seed.unwrap_or_else(clock);
    let accel = Accel::open(GpuPolicy::Require, 0).map_err(|error| error.to_string())?;
    let cpu = Cpu::new(0).map_err(|error| error.to_string())?;
    let status = accel.status();
    let device = status.device.ok_or("the device is gone")?;
    let (major, minor) = device.capability;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut report = format!(
        "{}, capability {major}.{minor}, driver of CUDA {}.{}, {}; CPU path on {threads} threads; seed {seed}\n",
        device.name,
        device.driver / 1000,
        device.driver % 1000 / 10,
        if device.native { "shipped machine code" } else { "PTX translated by the driver" }
    );
    println!("{}", report.trim_end());

    poison(&accel, true)?;
    let differences = equal::compare(&accel, &cpu, arguments.small, seed)?;
    for difference in &differences {
        println!("DIFFERS: {difference}");
    }
    let compared = accel.status().on_device;
    report += &format!(
        "{compared} batches of random shapes and inputs, results of a device whose memory held NaN: {} not the CPU's\n\n",
        differences.len()
    );
    poison(&accel, false)?;

    let figures = figures::measure(&accel, &cpu, arguments.small, seed)?;
    report += &figures.iter().map(|figure| figure.row()).fold(figures::HEAD.to_owned(), |a, row| a + &row);
    let status = accel.status();
    let elsewhere = status.on_cpu;
    if elsewhere > 0 {
        report +=
            &format!("\n{elsewhere} batches were NOT computed on the device: {:?}\n", status.last_error);
    }
    if arguments.small {
        report += "\nSmall shapes: the times mean nothing.\n";
    }
    report +=
        &format!("\n{} by `{}`, {:.0} s in all\n", today(), accel.name(), start.elapsed().as_secs_f64());
    println!("{}", report.split_once('\n').map_or("", |(_, rest)| rest));
    if let Some(path) = &arguments.out {
        std::fs::write(path, &report).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let unequal = figures.iter().filter(|figure| !figure.equal).count();
    Ok(differences.len() + unequal + elsewhere as usize)
}

fn poison(accel: &Accel, wanted: bool) -> Result<(), String> {
    let done = accel.poison(wanted).ok_or("the device is gone")?;
    done.map_err(|error| error.to_string())
}

/// Today's date, from the days since 1970 (Howard Hinnant's civil-from-days).
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let read = |text: &str| arguments(text.split_whitespace().map(str::to_owned));
        let found = read("--small --seed 7 --out a/b").unwrap();
        assert_eq!(found, Arguments { small: true, seed: Some(7), out: Some("a/b".into()) });
        assert_eq!(read("--seed").unwrap_err(), "--seed needs a value");
        assert_eq!(read("--seed x").unwrap_err(), "--seed x: allowed is 0 to 4294967295");
        assert!(read("--fast").unwrap_err().starts_with("`--fast` is not known; allowed are --small"));
        assert!(today().as_str() > "2026-01-01" && today().len() == 10);
    }
}
