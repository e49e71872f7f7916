//! A packet socket of Linux, read in batches, with the kernel's times and its count of what it dropped.

use super::{Captured, Taken, Wanted};
use crate::exit::{Exit, Failure};
use crate::packets::{self, Raw};
use anyhow::anyhow;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, recvmmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use pnet_datalink::{Config, NetworkInterface};
use std::io::{ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_replay::{Place, RejectCause};

/// Packets taken by one call of the system.
const BATCH: usize = 64;
/// Bytes of packets that the kernel may keep for us while we are busy: a fifth of a second of a full 1 Gbit/s of small ones, with what the kernel
/// adds to each.
const QUEUE_BYTES: usize = 64 << 20;
/// How often we look whether to end, and let time pass where nothing comes, ms.
const LOOK_MS: u16 = 200;

/// Link types of captures.
const ETHERNET: u32 = 1;
const RAW_IP: u32 = 101;
/// What the kernel calls the hardware of an interface (`/sys/class/net/*/type`): Ethernet, loopback, none (tun, WireGuard).
const HARDWARE: [(u32, u32); 3] = [(1, ETHERNET), (772, ETHERNET), (65_534, RAW_IP)];
/// Direction of a packet that this host sends (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;

/// What stands beside a packet when asked for (`PACKET_AUXDATA` at `SOL_PACKET`, `struct tpacket_auxdata`), among it the VLAN tag that the
/// card or the kernel has taken off.
mod beside {
    pub(super) const LEVEL: i32 = 263;
    pub(super) const OPTION: i32 = 8;
    pub(super) const BYTES: usize = 20;
    /// `tp_status`: there was a tag (`TP_STATUS_VLAN_VALID`).
    const TAGGED: u32 = 1 << 4;

    /// The VLAN of the tag that was taken off; 0 for none.
    pub(super) fn vlan(bytes: &[u8]) -> u16 {
        let Some((status, tag)) = bytes.first_chunk().zip(bytes.get(16..18)) else { return 0 };
        let tagged = u32::from_ne_bytes(*status) & TAGGED != 0;
        if tagged { u16::from_ne_bytes([tag[0], tag[1]]) & 0x0fff } else { 0 }
    }
}

/// An interface that is listened to: what comes from now on waits until it is taken.
pub(crate) struct Capture {
    wanted: Wanted,
    interface: NetworkInterface,
    link: u32,
    socket: OwnedFd,
}

impl Capture {
    /// # Errors
    /// There is no such interface, it is of a kind that is not understood, or this process may not.
    pub(crate) fn open(wanted: &Wanted) -> Result<Self, Failure> {
        let name = &wanted.interface;
        let interface = find(name)?;
        let link = link_type(name)?;
        let socket = open(&interface, wanted.promiscuous).map_err(|error| refused(name, &error))?;
        Ok(Self { wanted: wanted.clone(), interface, link, socket })
    }

    /// The interface.
    pub(crate) fn name(&self) -> &str {
        &self.wanted.interface
    }

    /// Its link type, as captures have it.
    pub(crate) fn link(&self) -> u32 {
        self.link
    }

    /// Gives packets to `take`, with what became of all so far, until `stop` or until it says no. What people should know goes to `say`.
    ///
    /// # Errors
    /// The interface cannot be read any more.
    pub(crate) fn run(
        self,
        stop: impl Fn() -> bool,
        say: impl FnMut(String),
        take: impl FnMut(Captured<'_>, &Taken) -> bool,
    ) -> Result<Taken, Failure> {
        let Self { wanted: Wanted { interface: name, snapshot_length, .. }, interface, link, socket } = self;
        let length = snapshot_length as usize;
        receive((&name, &interface, link), &socket, length, stop, say, take)
    }
}

fn receive(
    (name, interface, link): (&str, &NetworkInterface, u32),
    socket: &OwnedFd,
    length: usize,
    stop: impl Fn() -> bool,
    mut say: impl FnMut(String),
    mut take: impl FnMut(Captured<'_>, &Taken) -> bool,
) -> Result<Taken, Failure> {
    let mut buffer = vec![0; BATCH * length];
    let mut taken = Taken::default();
    let mut number = 0;
    let mut dropped = 0u32;
    // What came before the end was asked for still counts.
    let mut until = u64::MAX;
    loop {
        if until == u64::MAX && stop() {
            until = now_ns();
        }
        // Made anew for each batch, since the kernel shortens what it did not fill.
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(
            BATCH,
            Some(cmsg_space!(TimeSpec, u32, [u8; beside::BYTES])),
        );
        let mut slices: Vec<_> = buffer.chunks_mut(length).map(|part| [IoSliceMut::new(part)]).collect();
        let batch =
            recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        let batch = match batch {
            Ok(batch) => batch,
            Err(Errno::EAGAIN) if until < u64::MAX => break,
            Err(Errno::EAGAIN | Errno::EINTR) => {
                let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], LOOK_MS);
                if ready == Ok(0) && !take(Captured::Pause(now_ns()), &taken) {
                    break;
                }
                continue;
            }
            Err(Errno::ENETDOWN) => {
                say(format!("{name} is down; going on in case it comes back"));
                continue;
            }
            Err(error) => return Err(Failure::new(Exit::Input, anyhow!("cannot read from {name}: {error}"))),
        };
        let mut goes_on = true;
        for message in batch {
            let (mut ts, mut vlan) = (None, 0);
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampns(at) => ts = Some(at),
                    // Counted from the beginning, and wraps.
                    ControlMessageOwned::RxqOvfl(count) => {
                        taken.dropped += u64::from(count.wrapping_sub(dropped));
                        dropped = count;
                    }
                    ControlMessageOwned::Unknown(message)
                        if (message.cmsg_header.cmsg_level, message.cmsg_header.cmsg_type)
                            == (beside::LEVEL, beside::OPTION) =>
                    {
                        vlan = beside::vlan(&message.data_bytes);
                    }
                    _ => {}
                }
            }
            // What a host sends to itself is seen on the way out and on the way in.
            if interface.is_loopback() && message.address.is_some_and(|from| from.pkttype() == OUTGOING) {
                continue;
            }
            number += 1;
            let ts = ts.map_or_else(now_ns, |at| {
                u64::try_from(at.tv_sec()).unwrap_or(0) * 1_000_000_000
                    + u64::try_from(at.tv_nsec()).unwrap_or(0)
            });
            goes_on &= ts <= until;
            let bytes = message.iovs().next().unwrap_or_default();
            let raw = Raw { number, ts, vlan, bytes };
            match packets::frame(&raw, link) {
                Ok(None) => {
                    taken.account.refuse(RejectCause::NotAnEvent, Place::Packet(number), String::new);
                }
                Ok(Some(frame)) => {
                    taken.account.accept(1);
                    goes_on &= take(Captured::Frame { frame, raw, link }, &taken);
                }
                Err(error) => {
                    let place = Place::Packet(number);
                    taken.account.refuse(RejectCause::Malformed, place, || error);
                }
            }
        }
        if !goes_on {
            break;
        }
    }
    Ok(taken)
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn find(name: &str) -> Result<NetworkInterface, Failure> {
    let all = pnet_datalink::interfaces();
    let names = all.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", ");
    all.into_iter().find(|known| known.name == name).ok_or_else(|| {
        Failure::new(Exit::Input, anyhow!("there is no network interface {name}; there are {names}"))
    })
}

fn link_type(name: &str) -> Result<u32, Failure> {
    let path = format!("/sys/class/net/{name}/type");
    let kind = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let known = HARDWARE.iter().find(|(hardware, _)| Some(*hardware) == kind);
    known.map(|(_, link)| *link).ok_or_else(|| {
        let kind = kind.map_or_else(|| "unknown".to_owned(), |kind: u32| kind.to_string());
        Failure::new(Exit::Input, anyhow!("{name} is neither Ethernet nor plain IP (hardware type {kind})"))
    })
}

/// A packet socket bound to the interface.
fn open(interface: &NetworkInterface, promiscuous: bool) -> std::io::Result<OwnedFd> {
    // Without a protocol nothing comes before it is bound.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    // Without it tags are lost, as they were before there was such an option.
    let _ = uapi::setsockopt(socket.as_raw_fd(), beside::LEVEL, beside::OPTION, &1i32);
    // More than the system allows everybody needs a right of its own; without it, as much as there is.
    if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &QUEUE_BYTES)?;
    }
    // Binds and joins, on a second handle that it closes; both last as long as the first one.
    let second = socket.try_clone()?.into_raw_fd();
    let config = Config { promiscuous, socket_fd: Some(second), ..Config::default() };
    pnet_datalink::channel(interface, config).map(drop)?;
    Ok(socket)
}

fn refused(name: &str, error: &std::io::Error) -> Failure {
    if error.kind() == ErrorKind::PermissionDenied {
        let needs = "it needs the capability CAP_NET_RAW: run it as root, or once `setcap cap_net_raw=ep` on the binary (in a container: \
`--cap-add NET_RAW`)";
        return Failure::new(Exit::Input, anyhow!("packets on {name} may not be read: {needs}"));
    }
    Failure::new(Exit::Input, anyhow!("cannot read packets on {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_tag_taken_off_is_read_as_the_kernel_writes_it() {
        let mut bytes = [0; beside::BYTES];
        bytes[16..18].copy_from_slice(&(0x2000u16 | 105).to_ne_bytes());
        assert_eq!(beside::vlan(&bytes), 0, "there was no tag");
        bytes[..4].copy_from_slice(&(1u32 << 4 | 1).to_ne_bytes());
        assert_eq!(beside::vlan(&bytes), 105);
        for length in 0..18 {
            assert_eq!(beside::vlan(&bytes[..length]), 0, "{length} bytes");
        }
    }
}
