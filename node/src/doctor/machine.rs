//! What a machine is like, as far as it can be read. Nothing is judged here; what cannot be read is `None`.

use super::certificate;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A bound that may not be there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound<T> {
    None,
    At(T),
}

/// A certificate in the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) path: PathBuf,
    /// From when to when it is good, in seconds since 1970; or what is wrong with the file.
    pub(super) validity: Result<(i64, i64), String>,
}

/// What became of an attempt to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    Free,
    /// Another program listens there; whether it is a Tidegate that answers.
    Taken {
        tidegate: bool,
    },
    Refused(String),
}

/// A device for batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gpu {
    /// No driver is installed.
    None,
    /// There is a driver, but it or its device will not do.
    Unfit(String),
    /// Its name, and the version of CUDA its driver speaks.
    Fit(String),
}

/// Everything that is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Machine {
    pub(super) clocksource: Option<String>,
    pub(super) clocksources: Option<Vec<String>>,
    pub(super) clock_synchronized: Option<bool>,
    /// How far the time of day moved against the clock that never steps, while we looked, in nanoseconds.
    pub(super) clock_step_ns: Option<u64>,
    pub(super) clock_read_ns: Option<u64>,

    pub(super) rmem_max: Option<u64>,
    pub(super) wmem_max: Option<u64>,
    /// Packets that one system call sends and receives.
    pub(super) gso_segments: Option<u64>,
    pub(super) gro_segments: Option<u64>,
    /// Datagrams received since boot, and dropped because a socket's buffer was full.
    pub(super) udp_received: Option<u64>,
    pub(super) udp_dropped: Option<u64>,

    pub(super) cores_online: Option<u64>,
    /// Cores that this process may use.
    pub(super) cores_usable: Option<u64>,
    /// Text as the kernel has it: `2-3`, empty for none.
    pub(super) isolated: Option<String>,
    pub(super) smt: Option<bool>,
    /// Of each core that has one.
    pub(super) governors: Vec<String>,

    pub(super) open_files: Option<Bound<u64>>,
    pub(super) open_files_hard: Option<Bound<u64>>,
    pub(super) locked_bytes: Option<Bound<u64>>,

    pub(super) memory_total: Option<u64>,
    pub(super) memory_available: Option<u64>,
    pub(super) swap_total: Option<u64>,
    pub(super) swap_free: Option<u64>,
    pub(super) swappiness: Option<u64>,
    /// `always`, `madvise` or `never`.
    pub(super) huge_pages: Option<String>,

    pub(super) cgroup_cores: Option<Bound<f64>>,
    pub(super) cgroup_throttled: Option<u64>,
    pub(super) cgroup_memory: Option<Bound<u64>>,

    pub(super) gpu: Option<Gpu>,

    pub(super) now_s: i64,
    pub(super) data: PathBuf,
    pub(super) certificates: Vec<Certificate>,
    pub(super) quic: Option<(SocketAddr, Port)>,
    pub(super) http: Option<(SocketAddr, Port)>,
}

/// How long it is watched whether the time of day steps.
const CLOCK_WATCH: Duration = Duration::from_millis(250);
/// How long another program may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Opens the first device, with all its tests.
fn gpu() -> Option<Gpu> {
    let accel = tidegate_gpu::Accel::open(tidegate_gpu::GpuPolicy::Auto, 1).ok()?;
    Some(match (accel.status().device, accel.unavailable()) {
        (Some(device), _) => Gpu::Fit(format!(
            "{}, CUDA {}.{}",
            device.name,
            device.driver / 1_000,
            device.driver % 1_000 / 10
        )),
        (None, Some(reason)) if *reason != tidegate_gpu::Unavailable::NoLibrary => {
            Gpu::Unfit(reason.to_string())
        }
        (None, _) => Gpu::None,
    })
}

impl Machine {
    /// Reads this machine.
    pub(super) fn here(data: PathBuf, quic: SocketAddr, http: Option<SocketAddr>) -> Self {
        let mut machine = Self::of_files(Path::new("/"));
        machine.clock_synchronized = synchronized(Path::new("/"));
        machine.clock_step_ns = Some(clock_step());
        machine.clock_read_ns = Some(clock_read());
        (machine.gso_segments, machine.gro_segments) = offload();
        machine.gpu = gpu();
        machine.cores_usable = std::thread::available_parallelism().ok().map(|cores| cores.get() as u64);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        machine.now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        machine.certificates = certificates(&data);
        machine.data = data;
        let state = http.map(|address| (address, tcp(address)));
        // Both are the same program, so whoever answers there explains the other port too.
        let ours = matches!(state, Some((_, Port::Taken { tidegate: true })));
        machine.http = state;
        machine.quic = Some((quic, udp(quic, ours)));
        machine
    }

    /// What the files of the kernel say below `root`.
    pub(super) fn of_files(root: &Path) -> Self {
        let text =
            |path: &str| std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
        let number = |path: &str| text(path)?.parse::<u64>().ok();
        let clock = "sys/devices/system/clocksource/clocksource0";
        let mut machine = Self {
            clocksource: text(&format!("{clock}/current_clocksource")),
            clocksources: text(&format!("{clock}/available_clocksource"))
                .map(|all| all.split_whitespace().map(str::to_owned).collect()),
            rmem_max: number("proc/sys/net/core/rmem_max"),
            wmem_max: number("proc/sys/net/core/wmem_max"),
            cores_online: text("sys/devices/system/cpu/online").and_then(|list| cores_of(&list)),
            isolated: text("sys/devices/system/cpu/isolated"),
            smt: text("sys/devices/system/cpu/smt/active").map(|active| active == "1"),
            governors: governors(root),
            swappiness: number("proc/sys/vm/swappiness"),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(|all| chosen(&all)),
            ..Self::default()
        };
        if let Some(snmp) = text("proc/net/snmp") {
            machine.udp_received = of_snmp(&snmp, "InDatagrams");
            machine.udp_dropped = of_snmp(&snmp, "RcvbufErrors");
        }
        if let Some(limits) = text("proc/self/limits") {
            (machine.open_files, machine.open_files_hard) = of_limits(&limits, "Max open files");
            machine.locked_bytes = of_limits(&limits, "Max locked memory").0;
        }
        if let Some(meminfo) = text("proc/meminfo") {
            let bytes = |name: &str| of_meminfo(&meminfo, name);
            machine.memory_total = bytes("MemTotal");
            machine.memory_available = bytes("MemAvailable");
            machine.swap_total = bytes("SwapTotal");
            machine.swap_free = bytes("SwapFree");
        }
        if let Some(groups) = text("proc/self/cgroup") {
            machine.cgroups(root, &groups);
        }
        machine
    }

    /// The tightest bound on the way from this process's group up, of either version of control groups.
    fn cgroups(&mut self, root: &Path, groups: &str) {
        let base = root.join("sys/fs/cgroup");
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let has = |name| controllers.split(',').any(|controller| controller == name);
            let hierarchy = if controllers.is_empty() { base.clone() } else { base.join(controllers) };
            let mut folder = hierarchy.join(path.trim_start_matches('/'));
            // In a container the path is that of the host, while the group itself is mounted.
            if !folder.is_dir() {
                folder.clone_from(&hierarchy);
            }
            loop {
                let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
                if controllers.is_empty() {
                    tighten(&mut self.cgroup_cores, text("cpu.max").and_then(|text| of_cpu_max(&text)));
                    tighten(&mut self.cgroup_memory, text("memory.max").and_then(|text| of_memory(&text)));
                    let throttled = text("cpu.stat").and_then(|text| of_stat(&text, "nr_throttled"));
                    self.cgroup_throttled = self.cgroup_throttled.max(throttled);
                }
                if has("cpu") {
                    let quota = text("cpu.cfs_quota_us").and_then(|text| text.trim().parse::<i64>().ok());
                    let period = text("cpu.cfs_period_us").and_then(|text| text.trim().parse::<f64>().ok());
                    tighten(
                        &mut self.cgroup_cores,
                        quota.zip(period).map(|(quota, period)| match quota {
                            ..0 => Bound::None,
                            quota => Bound::At(quota as f64 / period.max(1.0)),
                        }),
                    );
                    let throttled = text("cpu.stat").and_then(|text| of_stat(&text, "nr_throttled"));
                    self.cgroup_throttled = self.cgroup_throttled.max(throttled);
                }
                if has("memory") {
                    let limit = text("memory.limit_in_bytes").and_then(|text| of_memory(&text));
                    tighten(&mut self.cgroup_memory, limit);
                }
                if folder == hierarchy || !folder.pop() {
                    break;
                }
            }
        }
    }
}

/// Takes the tighter of two bounds; one that is not known changes nothing.
fn tighten<T: PartialOrd + Copy>(bound: &mut Option<Bound<T>>, other: Option<Bound<T>>) {
    *bound = match (*bound, other) {
        (known, None) => known,
        (Some(Bound::At(a)), Some(Bound::At(b))) => Some(Bound::At(if b < a { b } else { a })),
        (Some(Bound::At(a)), _) => Some(Bound::At(a)),
        (_, other) => other,
    };
}

/// `max 100000` or `50000 100000`: cores.
fn of_cpu_max(text: &str) -> Option<Bound<f64>> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?, words.next()?.parse::<f64>().ok()?);
    if quota == "max" {
        return Some(Bound::None);
    }
    Some(Bound::At(quota.parse::<f64>().ok()? / period.max(1.0)))
}

/// Bytes, or `max`; version 1 has a number near 2^63 for no bound.
fn of_memory(text: &str) -> Option<Bound<u64>> {
    match text.trim() {
        "max" => Some(Bound::None),
        text => match text.parse::<u64>().ok()? {
            bytes if bytes >= 1 << 60 => Some(Bound::None),
            bytes => Some(Bound::At(bytes)),
        },
    }
}

/// A line `name value`.
fn of_stat(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

/// Soft and hard limit of a row of `/proc/self/limits`.
fn of_limits(text: &str, name: &str) -> (Option<Bound<u64>>, Option<Bound<u64>>) {
    let Some(row) = text.lines().find_map(|line| line.strip_prefix(name)) else { return (None, None) };
    let mut words = row.split_whitespace().map(|word| match word {
        "unlimited" => Some(Bound::None),
        word => word.parse().ok().map(Bound::At),
    });
    (words.next().flatten(), words.next().flatten())
}

/// Bytes of a row of `/proc/meminfo`.
fn of_meminfo(text: &str, name: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    row.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// A column of the row `Udp:` of `/proc/net/snmp`, which has names in one line and numbers in the next.
fn of_snmp(text: &str, name: &str) -> Option<u64> {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, numbers) = (rows.next()?, rows.next()?);
    let at = names.split_whitespace().position(|column| column == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

/// How many cores a list such as `0-3,8` names.
fn cores_of(list: &str) -> Option<u64> {
    list.split(',').try_fold(0, |cores, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(cores + last.checked_sub(first)? + 1)
    })
}

/// The word in brackets.
fn chosen(all: &str) -> Option<String> {
    let (_, rest) = all.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn governors(root: &Path) -> Vec<String> {
    let folder = root.join("sys/devices/system/cpu");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path().join("cpufreq/scaling_governor"));
    files.filter_map(|file| Some(std::fs::read_to_string(file).ok()?.trim().to_owned())).collect()
}

/// Whether something keeps the clock right: a mark of systemd's, else whoever can be asked.
fn synchronized(root: &Path) -> Option<bool> {
    if root.join("run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    if let Some(text) = said_by("chronyc", &["-n", "tracking"]) {
        let leap = text.lines().find_map(|line| line.strip_prefix("Leap status"))?;
        return Some(!leap.contains("Not synchronised"));
    }
    match said_by("timedatectl", &["show", "--property=NTPSynchronized", "--value"])?.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What a program prints when it ends well, in time.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    // A line or two: the pipe does not fill up.
    loop {
        match child.try_wait().ok()? {
            Some(status) if status.success() => break,
            Some(_) => return None,
            None if start.elapsed() < ANSWER => std::thread::park_timeout(Duration::from_millis(10)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    std::io::read_to_string(child.stdout.take()?).ok()
}

fn clock_step() -> u64 {
    let apart = |time: SystemTime, mono: Instant, start: Instant| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        since - mono.duration_since(start).as_nanos() as i128
    };
    let start = Instant::now();
    let first = apart(SystemTime::now(), Instant::now(), start);
    let mut most = 0;
    while start.elapsed() < CLOCK_WATCH {
        std::thread::park_timeout(Duration::from_millis(10));
        // Between the two looks another thread may run, so the best of a few counts.
        let moved = (0..5).map(|_| (apart(SystemTime::now(), Instant::now(), start) - first).unsigned_abs());
        most = most.max(moved.min().unwrap_or(0));
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// What it costs to look at the clock: the best of many, so that others' work does not count.
fn clock_read() -> u64 {
    const LOOKS: u32 = 200;
    let round = |_| {
        let start = Instant::now();
        for _ in 0..LOOKS {
            std::hint::black_box(Instant::now());
        }
        (start.elapsed().as_nanos() / u128::from(LOOKS)) as u64
    };
    (0..20).map(round).min().unwrap_or(0)
}

/// Packets that one system call sends and receives, as the QUIC library finds out.
fn offload() -> (Option<u64>, Option<u64>) {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return (None, None) };
    let Ok(state) = quinn::udp::UdpSocketState::new((&socket).into()) else { return (None, None) };
    (Some(state.max_gso_segments() as u64), Some(state.gro_segments() as u64))
}

fn certificates(data: &Path) -> Vec<Certificate> {
    let Ok(entries) = std::fs::read_dir(data.join("tls")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    // Keys end alike, and are nobody's business here.
    let certificate = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        path.extension().is_some_and(|extension| extension == "pem" || extension == "crt")
            && !name.ends_with("key")
    };
    paths.retain(certificate);
    paths.into_iter().map(|path| Certificate { validity: certificate::validity(&path), path }).collect()
}

fn tcp(address: SocketAddr) -> Port {
    match TcpListener::bind(address) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Port::Taken { tidegate: crate::top::answers(address, ANSWER) }
        }
        Err(error) => Port::Refused(error.to_string()),
    }
}

fn udp(address: SocketAddr, tidegate: bool) -> Port {
    match UdpSocket::bind(address) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Port::Taken { tidegate },
        Err(error) => Port::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_files_of_a_kernel_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Machine::of_files(root.path()), Machine::default(), "nothing is known of nothing");
        let root = root.path();
        let clock = "sys/devices/system/clocksource/clocksource0";
        write(root, &format!("{clock}/current_clocksource"), "hpet\n");
        write(root, &format!("{clock}/available_clocksource"), "tsc hpet acpi_pm \n");
        write(root, "proc/sys/net/core/rmem_max", "212992\n");
        write(root, "sys/devices/system/cpu/online", "0-3,8\n");
        write(root, "sys/devices/system/cpu/isolated", "\n");
        write(root, "sys/devices/system/cpu/smt/active", "1\n");
        write(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        write(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        write(
            root,
            "proc/net/snmp",
            "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 900 1 2 3 44\nUdpLite: InDatagrams\nUdpLite: 7\n",
        );
        write(
            root,
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \nMax locked memory         unlimited            unlimited            bytes     \n",
        );
        write(
            root,
            "proc/meminfo",
            "MemTotal:  2048 kB\nMemAvailable: 1024 kB\nSwapTotal: 8 kB\nSwapFree: 4 kB\n",
        );
        write(root, "proc/self/cgroup", "0::/a/b\n");
        write(root, "sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        write(root, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        write(root, "sys/fs/cgroup/a/b/cpu.stat", "usage_usec 5\nnr_throttled 12\n");
        write(root, "sys/fs/cgroup/a/b/memory.max", "1073741824\n");
        write(root, "sys/fs/cgroup/memory.max", "max\n");
        let machine = Machine::of_files(root);
        let want = Machine {
            clocksource: Some("hpet".into()),
            clocksources: Some(vec!["tsc".into(), "hpet".into(), "acpi_pm".into()]),
            rmem_max: Some(212_992),
            udp_received: Some(900),
            udp_dropped: Some(44),
            cores_online: Some(5),
            isolated: Some(String::new()),
            smt: Some(true),
            governors: vec!["powersave".into()],
            open_files: Some(Bound::At(1_024)),
            open_files_hard: Some(Bound::At(524_288)),
            locked_bytes: Some(Bound::None),
            memory_total: Some(2 << 20),
            memory_available: Some(1 << 20),
            swap_total: Some(8_192),
            swap_free: Some(4_096),
            huge_pages: Some("madvise".into()),
            cgroup_cores: Some(Bound::At(1.5)),
            cgroup_throttled: Some(12),
            cgroup_memory: Some(Bound::At(1 << 30)),
            ..Machine::default()
        };
        assert_eq!(machine, want);
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_too() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/self/cgroup", "4:memory:/x\n2:cpu,cpuacct:/x\n");
        write(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
        write(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
        write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        write(root, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        let machine = Machine::of_files(root);
        assert_eq!(machine.cgroup_cores, Some(Bound::At(0.5)));
        assert_eq!(machine.cgroup_memory, Some(Bound::None));
    }

    #[test]
    fn a_port_that_is_taken_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp(socket.local_addr().unwrap(), false), Port::Taken { tidegate: false });
        // It takes a connection and says nothing: no Tidegate.
        let hangs_up = std::thread::spawn(move || drop((listener.accept(), listener)));
        assert_eq!(tcp(address), Port::Taken { tidegate: false });
        hangs_up.join().unwrap();
        assert_eq!(tcp(address), Port::Free);
    }

    #[test]
    fn what_a_program_says_counts_only_when_it_ends_well() {
        assert_eq!(said_by("echo", &["yes"]).as_deref(), Some("yes\n"));
        assert_eq!(said_by("false", &[]), None);
        assert_eq!(said_by("no-such-program-anywhere", &[]), None);
    }
}
