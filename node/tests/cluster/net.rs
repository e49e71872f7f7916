//! Machines of our own: a network namespace for each node and one for clients, joined by a bridge; and what can go wrong on the way
//! from one to another. Nothing of it is told to the senders: a packet is gone, as it is between real machines.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The machine that clients are on.
pub(crate) const CLIENTS: u64 = 200;
/// An address on the wire that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";
/// Where QUIC begins in a packet of IPv4 and UDP. The low bits of that byte are as good as random: they are masked.
const QUIC_AT: u32 = 28;

/// The network; taken down when dropped.
pub(crate) struct Net {
    prefix: String,
    machines: Vec<u64>,
    mounted: Vec<PathBuf>,
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Where a machine is.
pub(crate) fn address(machine: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, machine as u8)
}

/// Where feeds and readers find a node.
pub(crate) fn clients(node: u64) -> SocketAddr {
    (address(node), 7_443).into()
}

fn mac(machine: u64) -> String {
    format!("02:00:00:00:00:{machine:02x}")
}

/// Says why there is no such network, where none can be made; `TIDEGATE_LAB=required` makes that a failure.
pub(crate) fn skipped(name: &str) -> bool {
    let probe = format!("tg{}-probe", std::process::id());
    let made = run(Command::new("ip").args(["netns", "add", &probe])).and_then(|()| {
        run(Command::new("ip").args(["-n", &probe, "link", "add", "name", "br0", "type", "bridge"]))
    });
    let _ = run(Command::new("ip").args(["netns", "del", &probe]));
    let Err(why) = made else { return false };
    assert!(std::env::var("TIDEGATE_LAB").as_deref() != Ok("required"), "{name}: {why}");
    eprintln!("{name}: SKIPPED: network namespaces are not to be had here ({why})");
    true
}

impl Net {
    /// Makes the machines of these nodes, and moves this thread, with what it starts from now on, to that of the clients.
    pub(crate) fn new(nodes: u64) -> Self {
        let prefix = format!("tg{}", std::process::id());
        let machines: Vec<u64> = (1..=nodes).chain([CLIENTS]).collect();
        let net = Self { prefix, machines, mounted: Vec::new() };
        net.make().expect("a network");
        let file =
            std::fs::File::open(format!("/run/netns/{}", net.space(CLIENTS))).expect("the clients' machine");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("it may go there");
        net
    }

    fn space(&self, machine: u64) -> String {
        format!("{}-{machine}", self.prefix)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    fn make(&self) -> Result<(), String> {
        let ip = |space: &str, line: &str| run(Command::new("ip").args(["-n", space]).args(line.split(' ')));
        let switch = self.switch();
        run(Command::new("ip").args(["netns", "add", &switch]))?;
        ip(&switch, "link add br0 type bridge")?;
        ip(&switch, "link set br0 up")?;
        for &machine in &self.machines {
            let space = self.space(machine);
            run(Command::new("ip").args(["netns", "add", &space]))?;
            ip(&space, "link set lo up")?;
            let (port, mac) = (format!("port{machine}"), mac(machine));
            ip(&switch, &format!("link add {port} type veth peer name eth0 address {mac} netns {space}"))?;
            ip(&switch, &format!("link set {port} master br0 up"))?;
            ip(&space, &format!("addr add {}/24 dev eth0", address(machine)))?;
            ip(&space, "link set eth0 up")?;
        }
        for &from in &self.machines {
            self.machines
                .iter()
                .filter(|to| **to != from)
                .try_for_each(|&to| self.way(from, to, &mac(to)))?;
        }
        Ok(())
    }

    /// Where packets of one machine for another one go.
    fn way(&self, from: u64, to: u64, mac: &str) -> Result<(), String> {
        let line = format!("neigh replace {} lladdr {mac} dev eth0 nud permanent", address(to));
        run(Command::new("ip").args(["-n", &self.space(from)]).args(line.split(' ')))
    }

    /// Loses what one machine sends another one, or no longer.
    pub(crate) fn cut(&self, from: u64, to: u64, is: bool) {
        let mac = if is { NOBODY.to_owned() } else { mac(to) };
        self.way(from, to, &mac).expect("a way");
    }

    /// Cuts a machine off from all others, or no longer.
    pub(crate) fn isolate(&self, machine: u64, is: bool) {
        let master = if is { "nomaster" } else { "master br0" };
        let line = format!("link set dev port{machine} {master}");
        run(Command::new("ip").args(["-n", &self.switch()]).args(line.split(' '))).expect("a port");
    }

    /// Loses an eighth of a machine's packets and sends another eighth over a line of 2 Mbit/s, so that they come late and behind
    /// others; or no longer.
    pub(crate) fn disturb(&self, machine: u64, is: bool) {
        let space = self.space(machine);
        let tc =
            |line: &str| run(Command::new("ip").args(["netns", "exec", &space, "tc"]).args(line.split(' ')));
        if !is {
            return tc("qdisc del dev eth0 root").expect("it was disturbed");
        }
        let masked = |low: u32, class: &str| {
            format!(
                "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip protocol 17 0xff match u8 {low:#x} 0x7 at {QUIC_AT} \
                 flowid {class}"
            )
        };
        for line in [
            "qdisc add dev eth0 root handle 1: htb default 10",
            "class add dev eth0 parent 1: classid 1:10 htb rate 10gbit",
            "class add dev eth0 parent 1: classid 1:20 htb rate 10gbit",
            "class add dev eth0 parent 1: classid 1:30 htb rate 2mbit",
            "qdisc add dev eth0 parent 1:20 blackhole",
            "qdisc add dev eth0 parent 1:30 pfifo limit 100",
            &masked(3, "1:20"),
            &masked(5, "1:30"),
        ] {
            tc(line).expect("a disturbance");
        }
    }

    /// A command on a machine.
    pub(crate) fn on(&self, machine: u64, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(machine), program]);
        command
    }

    /// A small disk of its own for a folder.
    pub(crate) fn disk(&mut self, folder: &Path, size: &str) {
        std::fs::create_dir_all(folder).expect("room");
        let options = format!("size={size}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tidegate"]).arg(folder))
            .expect("a disk");
        self.mounted.push(folder.to_owned());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for folder in &self.mounted {
            let _ = run(Command::new("umount").arg("--lazy").arg(folder));
        }
        for machine in &self.machines {
            let _ = run(Command::new("ip").args(["netns", "del", &self.space(*machine)]));
        }
        let _ = run(Command::new("ip").args(["netns", "del", &self.switch()]));
    }
}
