//! Detectors against traffic of real servers and clients: hosts of our own in network namespaces, ordinary clients beside a generator
//! for each shape of attack, recorded with tcpdump, with the truth known. Every attack must be found, the right host accused of the
//! right kind, and nobody else of anything.
//!
//! What takes hours (beacons, history before an exfiltration) is done in half a minute and judged by a clock that is 200 times as
//! fast: see [`capture::stretched`]. Needs root and Debian's packages; where that is not to be had the test says so and is skipped,
//! unless `TIDEGATE_LAB=required`.

#[cfg(target_os = "linux")]
mod capture;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod roles;
#[cfg(target_os = "linux")]
mod truth;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "role") {
        roles::play(&arguments[1..]);
        return std::process::ExitCode::SUCCESS;
    }
    // Called as the tests of a crate are: a filter that does not mean us, or a question for names.
    let other = |word: &String| word == "--list" || !(word.starts_with('-') || "lab".contains(word.as_str()));
    if arguments.iter().any(other) {
        return std::process::ExitCode::SUCCESS;
    }
    truth::judge()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("lab: SKIPPED: network namespaces are Linux's");
}
