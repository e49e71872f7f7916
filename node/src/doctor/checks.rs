//! What of a machine is as it should be, what is not, and what to do about it. Pure: the same machine gives the same findings.

use super::machine::{Bound, Gpu, Machine, Port};
use crate::render::{bytes, short_duration, thousands};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    /// It could not be found out.
    Unknown,
    /// It works, slower or less reliably than it could.
    Warn,
    /// It will not work as promised.
    Bad,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) wanted: String,
    /// Why it matters, when it is not as it should be.
    pub(super) why: &'static str,
    /// A command, or words where there is none.
    pub(super) fix: Option<String>,
}

const UNKNOWN: &str = "–";
/// What a socket asks for, so that a burst at full speed fits.
const SOCKET_BUFFER_BYTES: u64 = tidegate_quic::socket::BUFFER_BYTES as u64;
/// Connections of the default limits, with room for files.
const OPEN_FILES: u64 = 16_384;
const OPEN_FILES_MIN: u64 = 1_024;
const MEMORY_MIN: u64 = 512 << 20;
const MEMORY_WANTED: u64 = 1 << 30;
/// A look at a clock that takes longer goes through the kernel.
const CLOCK_READ_NS: u64 = 200;
/// Slewing moves the clock by at most 0.5 ms a second.
const CLOCK_STEP_NS: u64 = 1_000_000;
/// Days before its end that a certificate is worth a word.
const CERTIFICATE_DAYS: i64 = 30;

/// Builds findings one after the other.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        check: &'static str,
        found: Option<String>,
        wanted: impl Into<String>,
        level: Level,
        why: &'static str,
        fix: Option<String>,
    ) {
        let wanted = wanted.into();
        let finding = match found {
            None => {
                Finding { check, level: Level::Unknown, found: UNKNOWN.into(), wanted, why: "", fix: None }
            }
            Some(found) if level == Level::Ok => Finding { check, level, found, wanted, why: "", fix: None },
            Some(found) => Finding { check, level, found, wanted, why, fix },
        };
        self.0.push(finding);
    }
}

/// Everything that can be said about a machine.
pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    clock(machine, &mut findings);
    udp(machine, &mut findings);
    cores(machine, &mut findings);
    limits(machine, &mut findings);
    memory(machine, &mut findings);
    gpu(machine, &mut findings);
    certificates(machine, &mut findings);
    ports(machine, &mut findings);
    findings.0
}

fn when(bad: bool, level: Level) -> Level {
    if bad { level } else { Level::Ok }
}

fn clock(machine: &Machine, findings: &mut Findings) {
    let slow = |name: &str| {
        !matches!(name, "tsc" | "kvm-clock" | "arch_sys_counter" | "xen") && !name.starts_with("hyperv")
    };
    let source = machine.clocksource.clone();
    let level = when(source.as_deref().is_some_and(slow), Level::Bad);
    let better = machine.clocksources.iter().flatten().find(|name| !slow(name));
    let fix = better.map_or_else(
        || "the kernel knows no better one; look at `dmesg | grep -i clocksource`".to_owned(),
        |name| {
            format!("echo {name} | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource")
        },
    );
    let why = "every look at the clock goes through the kernel and takes microseconds";
    findings.add("clock source", source, "tsc, or that of the hypervisor", level, why, Some(fix));

    let found = machine.clock_read_ns.map(short_duration);
    let level = when(machine.clock_read_ns.is_some_and(|ns| ns > CLOCK_READ_NS), Level::Warn);
    let why = "latencies are measured with it, and it is part of them";
    let fix = "mend the clock source above".to_owned();
    findings.add("clock reading", found, format!("at most {CLOCK_READ_NS} ns"), level, why, Some(fix));

    let found = machine.clock_synchronized.map(|yes| if yes { "yes" } else { "no" }.to_owned());
    let level = when(machine.clock_synchronized == Some(false), Level::Warn);
    let why = "watermarks are compared with the time of day, tokens and certificates depend on it";
    let fix = Some("sudo timedatectl set-ntp true".to_owned());
    findings.add("clock synchronized", found, "yes", level, why, fix);

    let found = machine.clock_step_ns.map(short_duration);
    let level = when(machine.clock_step_ns.is_some_and(|ns| ns > CLOCK_STEP_NS), Level::Bad);
    let why = "the time of day jumped while we looked: something sets it instead of slewing it";
    let fix = "have one service set the clock, and slew it: `sudo systemctl disable --now systemd-timesyncd` where chrony runs";
    findings.add("clock steps", found, "under 1 ms", level, why, Some(fix.to_owned()));
}

fn udp(machine: &Machine, findings: &mut Findings) {
    let why = "bursts that do not fit are dropped and sent again";
    for (check, found, key) in [
        ("udp receive buffer", machine.rmem_max, "net.core.rmem_max"),
        ("udp send buffer", machine.wmem_max, "net.core.wmem_max"),
    ] {
        let level = when(found.is_some_and(|found| found < SOCKET_BUFFER_BYTES), Level::Warn);
        let fix = format!("sudo sysctl -w {key}={SOCKET_BUFFER_BYTES}");
        let wanted = format!("at least {} ({key})", bytes(SOCKET_BUFFER_BYTES));
        findings.add(check, found.map(bytes), wanted, level, why, Some(fix));
    }
    let found = machine.udp_dropped.map(|dropped| {
        let of = machine.udp_received.map_or(String::new(), |all| format!(" of {}", thousands(all)));
        format!("{}{of} since boot", thousands(dropped))
    });
    // One in 10,000 is a burst now and then.
    let share = machine.udp_dropped.zip(machine.udp_received);
    let level = when(share.is_some_and(|(dropped, all)| dropped > all / 10_000), Level::Warn);
    let fix = format!(
        "sudo sysctl -w net.core.rmem_default={SOCKET_BUFFER_BYTES} net.core.rmem_max={SOCKET_BUFFER_BYTES}"
    );
    findings.add("udp dropped", found, "under 1 in 10,000", level, why, Some(fix));
    let why = "each packet costs a system call of its own";
    let fix =
        "a kernel of 4.18 or newer for sending, 5.0 for receiving; some containers and tunnels take it away"
            .to_owned();
    for (check, found) in [("udp gso", machine.gso_segments), ("udp gro", machine.gro_segments)] {
        let text = found.map(|segments| format!("{segments} packets a call"));
        let level = when(found.is_some_and(|segments| segments < 2), Level::Warn);
        findings.add(check, text, "more than 1 packet a call", level, why, Some(fix.clone()));
    }
}

fn cores(machine: &Machine, findings: &mut Findings) {
    let usable = machine.cores_usable.or(machine.cores_online);
    let found = usable.map(|usable| match machine.cores_online {
        Some(online) if online != usable => format!("{usable} of {online}"),
        _ => usable.to_string(),
    });
    let level = when(usable.is_some_and(|cores| cores < 2), Level::Warn);
    let why = "feeds, computing and readers take turns on one core, and wait for each other";
    findings.add("cores", found, "at least 2", level, why, Some("give the machine another core".to_owned()));

    let found = machine.cgroup_cores.map(|bound| match bound {
        Bound::None => "no limit".to_owned(),
        Bound::At(cores) => match machine.cgroup_throttled {
            Some(times @ 1..) => format!("{cores:.1} cores, held up {} times", thousands(times)),
            _ => format!("{cores:.1} cores"),
        },
    });
    let level = match machine.cgroup_cores {
        Some(Bound::At(cores)) if cores < 1.0 => Level::Bad,
        Some(Bound::At(cores)) if usable.is_some_and(|usable| cores < usable as f64) => Level::Warn,
        _ => when(machine.cgroup_throttled.is_some_and(|times| times > 0), Level::Warn),
    };
    let why = "a group that has used up its share stands still for up to 100 ms";
    let fix = "sudo systemctl set-property UNIT CPUQuota= (or run the container without --cpus)".to_owned();
    findings.add("cpu quota", found, "no limit", level, why, Some(fix));

    let none = machine.isolated.as_deref().is_some_and(str::is_empty);
    let found = machine.isolated.clone().map(|list| if list.is_empty() { "none".to_owned() } else { list });
    // With few cores there is none to spare.
    let level = when(none && usable.is_some_and(|cores| cores >= 4), Level::Warn);
    let why = "the scheduler puts other work onto the shards' cores";
    let fix = "isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3 on the kernel's command line, and pin the shards"
        .to_owned();
    let wanted =
        if usable.is_some_and(|cores| cores < 4) { "nothing: too few cores" } else { "cores for shards" };
    findings.add("isolated cores", found, wanted, level, why, Some(fix));

    let found = machine.smt.map(|active| if active { "on" } else { "off" }.to_owned());
    let why = "two busy threads on one core halve each other's speed";
    let fix = "echo off | sudo tee /sys/devices/system/cpu/smt/control".to_owned();
    findings.add("hyper-threads", found, "off", when(machine.smt == Some(true), Level::Warn), why, Some(fix));

    let mut governors = machine.governors.clone();
    governors.sort();
    governors.dedup();
    let slow = governors.iter().any(|governor| governor != "performance");
    let found = (!governors.is_empty()).then(|| governors.join(", "));
    let why = "a core that was idle takes its time to become fast";
    let fix = "sudo cpupower frequency-set -g performance".to_owned();
    findings.add("frequency", found, "performance", when(slow, Level::Warn), why, Some(fix));
}

fn limits(machine: &Machine, findings: &mut Findings) {
    let count = |bound: Bound<u64>| match bound {
        Bound::None => "no limit".to_owned(),
        Bound::At(files) => thousands(files),
    };
    let level = match machine.open_files {
        Some(Bound::At(files)) if files < OPEN_FILES_MIN => Level::Bad,
        Some(Bound::At(files)) if files < OPEN_FILES => Level::Warn,
        _ => Level::Ok,
    };
    let fix = match machine.open_files_hard {
        Some(Bound::At(hard)) if hard < OPEN_FILES => {
            format!(
                "LimitNOFILE={OPEN_FILES} in the service's unit, or raise it in /etc/security/limits.conf"
            )
        }
        _ => format!("ulimit -n {OPEN_FILES}"),
    };
    let why = "each browser and script holds one; beyond it connections are refused";
    let wanted = format!("at least {}", thousands(OPEN_FILES));
    findings.add("open files", machine.open_files.map(count), wanted, level, why, Some(fix));

    let swaps = machine.swap_total.is_some_and(|total| total > 0);
    let size = |bound: Bound<u64>| match bound {
        Bound::None => "no limit".to_owned(),
        Bound::At(locked) => bytes(locked),
    };
    let level = when(swaps && matches!(machine.locked_bytes, Some(Bound::At(_))), Level::Warn);
    let why = "with swap on, memory that may not be locked can be swapped out";
    let fix = "LimitMEMLOCK=infinity in the service's unit, or turn swap off".to_owned();
    let wanted = if swaps { "no limit" } else { "anything: there is no swap" };
    findings.add("locked memory", machine.locked_bytes.map(size), wanted, level, why, Some(fix));
}

fn memory(machine: &Machine, findings: &mut Findings) {
    let size = |available: u64| match machine.memory_total {
        Some(total) => format!("{} of {}", bytes(available), bytes(total)),
        None => bytes(available),
    };
    let judge = |found: u64| match found {
        ..MEMORY_MIN => Level::Bad,
        MEMORY_MIN..MEMORY_WANTED => Level::Warn,
        _ => Level::Ok,
    };
    let level = machine.memory_available.map_or(Level::Ok, judge);
    let why = "results of many keys are kept in memory; when it runs out the process is killed";
    let wanted = format!("at least {}", bytes(MEMORY_WANTED));
    let fix = "end other programs, or serve fewer streams".to_owned();
    findings.add("free memory", machine.memory_available.map(size), wanted.clone(), level, why, Some(fix));

    let found = machine.cgroup_memory.map(|bound| match bound {
        Bound::None => "no limit".to_owned(),
        Bound::At(limit) => bytes(limit),
    });
    let level = match machine.cgroup_memory {
        Some(Bound::At(limit)) => judge(limit),
        _ => Level::Ok,
    };
    let fix =
        "sudo systemctl set-property UNIT MemoryMax=4G (or run the container with --memory 4g)".to_owned();
    findings.add("memory limit", found, wanted, level, why, Some(fix));

    let swap = machine.swap_total.map(|total| match (total, machine.swap_free, machine.swappiness) {
        (0, ..) => "none".to_owned(),
        (_, free, swappiness) => {
            let used = free.map_or(UNKNOWN.to_owned(), |free| bytes(total.saturating_sub(free)));
            let swappiness = swappiness.map_or(UNKNOWN.to_owned(), |n| n.to_string());
            format!("{used} of {} in use, swappiness {swappiness}", bytes(total))
        }
    });
    let eager = machine.swap_total.is_some_and(|total| {
        total > 0
            && (machine.swap_free.is_some_and(|free| free < total)
                || machine.swappiness.is_some_and(|swappiness| swappiness > 10))
    });
    let why = "a shard that waits for the disk holds up everything behind it";
    let fix = "sudo sysctl -w vm.swappiness=1 (or sudo swapoff -a)".to_owned();
    let wanted = "none, or unused with swappiness up to 10";
    findings.add("swap", swap, wanted, when(eager, Level::Warn), why, Some(fix));

    let found = machine.huge_pages.clone();
    let level = when(found.as_deref().is_some_and(|mode| mode != "always"), Level::Warn);
    let why = "state of many keys is spread over many small pages";
    let fix = "echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled".to_owned();
    findings.add("huge pages", found, "always", level, why, Some(fix));
}

fn certificates(machine: &Machine, findings: &mut Findings) {
    const DAY: i64 = 86_400;
    let renew = || {
        let folder = machine.data.join("tls");
        format!(
            "replace it and its key; one made at first start: rm -r '{}' and start `tidegate serve`",
            folder.display()
        )
    };
    if machine.certificates.is_empty() {
        let found = format!("none in {}", machine.data.display());
        findings.add("certificate", Some(found), "one, made at the first start", Level::Ok, "", None);
    }
    for certificate in &machine.certificates {
        let name = certificate.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (found, level, why) = match &certificate.validity {
            Err(error) => (format!("{name}: {error}"), Level::Bad, "nobody can connect"),
            Ok((from, to)) => {
                let end = jiff::Timestamp::from_second(*to)
                    .map_or_else(|_| format!("{to} s"), |end| end.strftime("%Y-%m-%d").to_string());
                let left = to.saturating_sub(machine.now_s) / DAY;
                match machine.now_s {
                    now if now < *from => (
                        format!("{name}: not good yet"),
                        Level::Bad,
                        "nobody can connect; is the clock right?",
                    ),
                    now if now >= *to => (format!("{name}: ended {end}"), Level::Bad, "nobody can connect"),
                    _ if left < CERTIFICATE_DAYS => {
                        (format!("{name}: ends in {left} days"), Level::Warn, "then nobody can connect")
                    }
                    _ => (format!("{name}: good until {end}"), Level::Ok, ""),
                }
            }
        };
        let wanted = format!("good for {CERTIFICATE_DAYS} days at least");
        findings.add("certificate", Some(found), wanted, level, why, Some(renew()));
    }
}

fn gpu(machine: &Machine, findings: &mut Findings) {
    let Some(gpu) = &machine.gpu else { return };
    let (found, level) = match gpu {
        Gpu::None => ("none".to_owned(), Level::Ok),
        Gpu::Fit(name) => (name.clone(), Level::Ok),
        Gpu::Unfit(reason) => (reason.clone(), Level::Warn),
    };
    let why = "surface and risk are computed on the CPU, with the same results";
    let fix = "update the driver; or set TIDEGATE_GPU=off, and nobody asks again".to_owned();
    findings.add("gpu", Some(found), "none, or one that passes its tests", level, why, Some(fix));
}

fn ports(machine: &Machine, findings: &mut Findings) {
    for (check, port, option) in
        [("quic port", &machine.quic, "--listen"), ("http port", &machine.http, "--http")]
    {
        let Some((address, state)) = port else { continue };
        let (found, level, why) = match state {
            Port::Free => ("free".to_owned(), Level::Ok, ""),
            Port::Taken { tidegate: true } => ("taken by a Tidegate that answers".to_owned(), Level::Ok, ""),
            Port::Taken { tidegate: false } => {
                ("taken by another program".to_owned(), Level::Bad, "a server cannot start there")
            }
            Port::Refused(error) => (error.clone(), Level::Bad, "a server cannot start there"),
        };
        let fix = format!("see who it is with `sudo ss -lpntu`, or serve elsewhere with {option} ADDR");
        findings.add(check, Some(format!("{address} {found}")), "free", level, why, Some(fix));
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Certificate;
    use super::*;

    fn good() -> Machine {
        Machine {
            clocksource: Some("tsc".into()),
            gpu: None,
            clocksources: Some(vec!["tsc".into(), "hpet".into()]),
            clock_synchronized: Some(true),
            clock_step_ns: Some(900),
            clock_read_ns: Some(25),
            rmem_max: Some(16 << 20),
            wmem_max: Some(16 << 20),
            gso_segments: Some(64),
            gro_segments: Some(64),
            udp_received: Some(1_000_000),
            udp_dropped: Some(3),
            cores_online: Some(8),
            cores_usable: Some(8),
            isolated: Some("4-7".into()),
            smt: Some(false),
            governors: vec!["performance".into(); 8],
            open_files: Some(Bound::At(65_536)),
            open_files_hard: Some(Bound::None),
            locked_bytes: Some(Bound::At(8 << 20)),
            memory_total: Some(16 << 30),
            memory_available: Some(12 << 30),
            swap_total: Some(0),
            swap_free: Some(0),
            swappiness: Some(60),
            huge_pages: Some("always".into()),
            cgroup_cores: Some(Bound::None),
            cgroup_throttled: Some(0),
            cgroup_memory: Some(Bound::None),
            now_s: 1_000_000_000,
            data: "/data".into(),
            certificates: vec![Certificate {
                path: "/data/tls/dev-cert.pem".into(),
                validity: Ok((0, 4_000_000_000)),
            }],
            quic: Some(("127.0.0.1:7443".parse().unwrap(), Port::Free)),
            http: Some(("127.0.0.1:8080".parse().unwrap(), Port::Taken { tidegate: true })),
        }
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        let findings = examine(&good());
        assert_eq!(findings.len(), 23);
        for finding in findings {
            assert_eq!(finding.level, Level::Ok, "{finding:?}");
            assert!(finding.fix.is_none() && finding.why.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn of_a_machine_that_says_nothing_nothing_is_known_and_nothing_is_bad() {
        for finding in examine(&Machine::default()) {
            let want = if finding.check == "certificate" { Level::Ok } else { Level::Unknown };
            assert_eq!(finding.level, want, "{finding:?}");
        }
    }

    #[test]
    #[allow(clippy::type_complexity)]
    fn each_fault_is_found_alone_with_a_way_to_mend_it() {
        let certificate = |validity| Certificate { path: "/data/tls/dev-cert.pem".into(), validity };
        let faults: Vec<(&str, Level, &str, &str, Box<dyn Fn(&mut Machine)>)> = vec![
            (
                "clock source",
                Level::Bad,
                "hpet",
                "echo tsc |",
                Box::new(|m| m.clocksource = Some("hpet".into())),
            ),
            (
                "clock source",
                Level::Bad,
                "acpi_pm",
                "dmesg",
                Box::new(|m| {
                    m.clocksource = Some("acpi_pm".into());
                    m.clocksources = Some(vec!["acpi_pm".into()]);
                }),
            ),
            (
                "clock reading",
                Level::Warn,
                "1.2 µs",
                "clock source",
                Box::new(|m| m.clock_read_ns = Some(1_200)),
            ),
            (
                "clock synchronized",
                Level::Warn,
                "no",
                "set-ntp",
                Box::new(|m| m.clock_synchronized = Some(false)),
            ),
            ("clock steps", Level::Bad, "40 ms", "slew", Box::new(|m| m.clock_step_ns = Some(40_000_000))),
            (
                "udp receive buffer",
                Level::Warn,
                "208.0 KiB",
                "net.core.rmem_max=4194304",
                Box::new(|m| m.rmem_max = Some(212_992)),
            ),
            (
                "udp send buffer",
                Level::Warn,
                "208.0 KiB",
                "net.core.wmem_max=4194304",
                Box::new(|m| m.wmem_max = Some(212_992)),
            ),
            (
                "udp dropped",
                Level::Warn,
                "4,263 of 223,216 since boot",
                "rmem_max",
                Box::new(|m| {
                    (m.udp_dropped, m.udp_received) = (Some(4_263), Some(223_216));
                }),
            ),
            ("udp gso", Level::Warn, "1 packets a call", "4.18", Box::new(|m| m.gso_segments = Some(1))),
            ("udp gro", Level::Warn, "1 packets a call", "5.0", Box::new(|m| m.gro_segments = Some(1))),
            ("cores", Level::Warn, "1 of 8", "another core", Box::new(|m| m.cores_usable = Some(1))),
            (
                "cpu quota",
                Level::Bad,
                "0.5 cores, held up 7 times",
                "CPUQuota=",
                Box::new(|m| {
                    (m.cgroup_cores, m.cgroup_throttled) = (Some(Bound::At(0.5)), Some(7));
                }),
            ),
            (
                "cpu quota",
                Level::Warn,
                "4.0 cores",
                "CPUQuota=",
                Box::new(|m| m.cgroup_cores = Some(Bound::At(4.0))),
            ),
            (
                "isolated cores",
                Level::Warn,
                "none",
                "isolcpus",
                Box::new(|m| m.isolated = Some(String::new())),
            ),
            ("hyper-threads", Level::Warn, "on", "smt/control", Box::new(|m| m.smt = Some(true))),
            (
                "frequency",
                Level::Warn,
                "performance, powersave",
                "cpupower",
                Box::new(|m| m.governors[3] = "powersave".into()),
            ),
            (
                "open files",
                Level::Warn,
                "1,024",
                "ulimit -n 16384",
                Box::new(|m| m.open_files = Some(Bound::At(1_024))),
            ),
            (
                "open files",
                Level::Bad,
                "256",
                "LimitNOFILE",
                Box::new(|m| {
                    (m.open_files, m.open_files_hard) = (Some(Bound::At(256)), Some(Bound::At(4_096)));
                }),
            ),
            (
                "free memory",
                Level::Bad,
                "100.0 MiB of 16.0 GiB",
                "fewer",
                Box::new(|m| m.memory_available = Some(100 << 20)),
            ),
            (
                "free memory",
                Level::Warn,
                "600.0 MiB of 16.0 GiB",
                "fewer",
                Box::new(|m| m.memory_available = Some(600 << 20)),
            ),
            (
                "memory limit",
                Level::Bad,
                "256.0 MiB",
                "MemoryMax",
                Box::new(|m| m.cgroup_memory = Some(Bound::At(256 << 20))),
            ),
            (
                "huge pages",
                Level::Warn,
                "never",
                "transparent_hugepage",
                Box::new(|m| m.huge_pages = Some("never".into())),
            ),
            (
                "certificate",
                Level::Bad,
                "ended 2001-09-08",
                "rm -r '/data/tls'",
                Box::new(move |m| m.certificates = vec![certificate(Ok((0, 999_913_600)))]),
            ),
            (
                "certificate",
                Level::Warn,
                "ends in 11 days",
                "serve",
                Box::new(move |m| m.certificates = vec![certificate(Ok((0, 1_001_000_000)))]),
            ),
            (
                "certificate",
                Level::Bad,
                "not good yet",
                "serve",
                Box::new(move |m| m.certificates = vec![certificate(Ok((1_000_000_001, 4_000_000_000)))]),
            ),
            (
                "certificate",
                Level::Bad,
                "dev-cert.pem: it is damaged",
                "serve",
                Box::new(move |m| m.certificates = vec![certificate(Err("it is damaged".into()))]),
            ),
            (
                "quic port",
                Level::Bad,
                "127.0.0.1:7443 taken by another program",
                "--listen",
                Box::new(|m| {
                    m.quic.as_mut().unwrap().1 = Port::Taken { tidegate: false };
                }),
            ),
            (
                "http port",
                Level::Bad,
                "127.0.0.1:8080 permission denied",
                "--http",
                Box::new(|m| {
                    m.http.as_mut().unwrap().1 = Port::Refused("permission denied".into());
                }),
            ),
        ];
        for (check, level, found, fix, harm) in faults {
            let mut machine = good();
            harm(&mut machine);
            let findings = examine(&machine);
            let not_ok: Vec<&Finding> =
                findings.iter().filter(|finding| finding.level != Level::Ok).collect();
            let [finding] = not_ok[..] else { panic!("{check}: {not_ok:?}") };
            assert_eq!((finding.check, finding.level), (check, level), "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.fix.as_ref().is_some_and(|text| text.contains(fix)), "{finding:?}");
            assert!(!finding.why.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn swap_is_judged_with_what_may_be_locked() {
        let machine =
            Machine { swap_total: Some(4 << 30), swap_free: Some(3 << 30), swappiness: Some(60), ..good() };
        let findings = examine(&machine);
        let of = |check| findings.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(of("swap").level, Level::Warn);
        assert_eq!(of("swap").found, "1.0 GiB of 4.0 GiB in use, swappiness 60");
        assert_eq!(of("locked memory").level, Level::Warn);
        let machine = Machine {
            swap_total: Some(4 << 30),
            swap_free: Some(4 << 30),
            swappiness: Some(1),
            locked_bytes: Some(Bound::None),
            ..good()
        };
        assert!(examine(&machine).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn with_two_cores_nothing_is_asked_to_be_isolated() {
        let machine =
            Machine { cores_online: Some(2), cores_usable: Some(2), isolated: Some(String::new()), ..good() };
        assert!(examine(&machine).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn a_gpu_that_is_there_and_will_not_do_is_worth_a_word() {
        let level = |gpu: Gpu| {
            let findings = examine(&Machine { gpu: Some(gpu), ..good() });
            findings.into_iter().find(|finding| finding.check == "gpu").expect("it is looked at")
        };
        assert_eq!(level(Gpu::None).level, Level::Ok);
        assert_eq!(level(Gpu::Fit("H200, CUDA 12.8".into())).found, "H200, CUDA 12.8");
        let unfit = level(Gpu::Unfit("the driver lacks cuInit".into()));
        assert_eq!((unfit.level, &unfit.found[..]), (Level::Warn, "the driver lacks cuInit"));
        assert!(unfit.fix.is_some());
    }
}
