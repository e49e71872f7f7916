//! Why a connection ends, in words that machines and people both understand.

use std::fmt;
use std::net::SocketAddr;

/// Why a connection ends. A number, because a newer peer may know more reasons than we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The sender is done: a feed has no more events, a subscriber wants no more.
    pub const FINISHED: Self = Self(0);
    /// A newer connection came with the same source id.
    pub const SUPERSEDED: Self = Self(1);
    /// Bytes that are no frame, or a frame out of turn.
    pub const PROTOCOL: Self = Self(2);
    /// No version in common.
    pub const VERSION: Self = Self(3);
    /// Nothing was heard for too long.
    pub const SILENT: Self = Self(4);
    /// More events than credit was given for.
    pub const OVER_CREDIT: Self = Self(5);
    /// An event whose key was not defined.
    pub const UNDEFINED_KEY: Self = Self(6);
    /// A key was given a second name.
    pub const DICTIONARY: Self = Self(7);
    /// The promise asked for is not offered.
    pub const ACK_MODE: Self = Self(8);
    /// The server has as many of these as it takes.
    pub const BUSY: Self = Self(9);
    /// The subscriber was behind by more than its budget, and this is the policy it chose.
    pub const LAG: Self = Self(10);
    /// The subscription asks for what does not exist or is not allowed.
    pub const SUBSCRIPTION: Self = Self(11);
    /// The server ends.
    pub const SHUTTING_DOWN: Self = Self(12);
    /// A bug of the server.
    pub const INTERNAL: Self = Self(13);
    /// An event of a kind or time that no feed may send.
    pub const BAD_EVENT: Self = Self(14);
    /// Not allowed.
    pub const UNAUTHORIZED: Self = Self(15);
    /// More than the quota of its principal.
    pub const QUOTA: Self = Self(16);
    /// The connection has stood for as long as one may without showing again who it is.
    pub const EXPIRED: Self = Self(17);

    /// A stream of the subscription was changed or removed while the server runs: ask again, for what there is now.
    pub const CHANGED: Self = Self(19);

    /// Another node leads. The reason begins with where feeds find it, see [`Close::leader`].
    pub const NOT_LEADER: Self = Self(18);

    /// The session is of no group, of one that there is not, or of another one than what it sends: see [`crate::groups`].
    pub const GROUP: Self = Self(20);

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FINISHED => "finished",
            Self::SUPERSEDED => "superseded",
            Self::PROTOCOL => "protocol",
            Self::VERSION => "version",
            Self::SILENT => "silent",
            Self::OVER_CREDIT => "over_credit",
            Self::UNDEFINED_KEY => "undefined_key",
            Self::DICTIONARY => "dictionary",
            Self::ACK_MODE => "ack_mode",
            Self::BUSY => "busy",
            Self::LAG => "lag",
            Self::SUBSCRIPTION => "subscription",
            Self::SHUTTING_DOWN => "shutting_down",
            Self::INTERNAL => "internal",
            Self::BAD_EVENT => "bad_event",
            Self::UNAUTHORIZED => "unauthorized",
            Self::QUOTA => "quota",
            Self::EXPIRED => "expired",
            Self::NOT_LEADER => "not_leader",
            Self::CHANGED => "changed",
            Self::GROUP => "group",
            _ => "unknown",
        }
    }

    /// Whether connecting again with the same request can end better.
    #[must_use]
    pub const fn may_retry(self) -> bool {
        matches!(
            self,
            Self::SILENT
                | Self::BUSY
                | Self::SHUTTING_DOWN
                | Self::INTERNAL
                | Self::LAG
                | Self::QUOTA
                | Self::EXPIRED
                | Self::NOT_LEADER
                | Self::CHANGED
        )
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "unknown" => write!(f, "code {}", self.0),
            name => f.pad(name),
        }
    }
}

/// Why a connection ended, as the side that says so put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// For machines.
    pub code: CloseCode,
    /// For people.
    pub reason: String,
}

impl Close {
    /// A reason.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Not here: feeds go to `leader`, who leads in `epoch`; nobody does, or nobody knows, without one.
    #[must_use]
    pub fn not_leader(leader: Option<SocketAddr>, epoch: u32) -> Self {
        let reason = match leader {
            Some(leader) => format!("{leader} leads in epoch {epoch}"),
            None => format!("no node leads in epoch {epoch}"),
        };
        Self::new(CloseCode::NOT_LEADER, reason)
    }

    /// As [`Close::not_leader`], where there are several groups: of which one, and which node that is.
    #[must_use]
    pub fn not_leader_of(group: u16, node: Option<u16>, leader: Option<SocketAddr>, epoch: u32) -> Self {
        let reason = match (leader, node) {
            (Some(leader), Some(node)) => {
                format!("{leader} (node {node}) leads group {group} in epoch {epoch}")
            }
            (Some(leader), None) => format!("{leader} leads group {group} in epoch {epoch}"),
            (None, Some(node)) => format!("node {node} leads group {group} in epoch {epoch}"),
            (None, None) => format!("no node leads group {group} in epoch {epoch}"),
        };
        Self::new(CloseCode::NOT_LEADER, reason)
    }

    /// The number behind a word, in the words of a node that does not lead.
    fn number_behind(&self, word: &str) -> Option<u16> {
        let mut words = (self.code == CloseCode::NOT_LEADER).then(|| self.reason.split([' ', '(', ')']))?;
        words.find(|found| *found == word)?;
        words.next()?.parse().ok()
    }

    /// The group that these words of a node that does not lead are about, where there are several.
    #[must_use]
    pub fn group(&self) -> Option<u16> {
        self.number_behind("group")
    }

    /// The number of the node that leads, if they say it.
    #[must_use]
    pub fn node(&self) -> Option<u16> {
        self.number_behind("node")
    }

    /// Where the leader is, if these are the words of a node that is not and knows it.
    #[must_use]
    pub fn leader(&self) -> Option<SocketAddr> {
        let words = (self.code == CloseCode::NOT_LEADER).then(|| self.reason.split(' ').next())?;
        words?.parse().ok()
    }

    /// The epoch in which that is so, as far as they say.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        let words = (self.code == CloseCode::NOT_LEADER).then(|| self.reason.rsplit(' ').next())?;
        words?.parse().ok()
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{}: {}", self.code, self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_lead_says_who_does() {
        let at: SocketAddr = "[::1]:7443".parse().unwrap();
        let close = Close::not_leader(Some(at), 7);
        assert_eq!(close.to_string(), "not_leader: [::1]:7443 leads in epoch 7");
        assert!(close.code.may_retry() && close.leader() == Some(at));
        assert_eq!((close.epoch(), Close::not_leader(None, 9).epoch()), (Some(7), Some(9)));
        assert_eq!(Close::not_leader(None, 7).leader(), None);
        let of = Close::not_leader_of(3, Some(2), Some(at), 7);
        assert_eq!(of.to_string(), "not_leader: [::1]:7443 (node 2) leads group 3 in epoch 7");
        for (node, leader) in [(Some(2), Some(at)), (None, Some(at)), (Some(2), None), (None, None)] {
            let of = Close::not_leader_of(3, node, leader, 7);
            let found = (of.group(), of.node(), of.leader(), of.epoch());
            assert_eq!(found, (Some(3), node, leader, Some(7)), "{of}");
        }
        assert_eq!((close.group(), close.node()), (None, None), "of the only one");
        let busy = Close::new(CloseCode::BUSY, "127.0.0.1:1 leads in epoch 7");
        assert_eq!((busy.leader(), busy.epoch()), (None, None));
    }
}
