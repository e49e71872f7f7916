//! Where a feed goes next when a node sent it away or fell silent, and how soon.
//!
//! While leading changes hands the nodes know of it one after the other: who was sent to the new leader may be there before it knows, and
//! who asks about a leader that has just died is still sent to it. News of an older epoch, and of a server that has just fallen silent,
//! are therefore no reason to go anywhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate_proto::Close;

/// How long a server that fell silent is not gone back to for somebody's word alone.
const GONE: Duration = Duration::from_secs(3);
/// Between two questions to a leader that does not know yet that it is one.
const NEWS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Between two questions while others do not know either. Refusing takes a server little.
const ASK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// Where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// To this one.
    To(SocketAddr),
    /// To the same once more.
    Same,
    /// To the next in turn.
    Turn,
}

/// What a feed has heard.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// The newest epoch in which somebody was said to lead.
    epoch: u32,
    /// Who fell silent, when, and in which epoch others still said that it leads.
    gone: Option<(SocketAddr, Instant, Option<u32>)>,
    pause: Duration,
}

impl Redirects {
    /// A session stands.
    pub(super) fn stands(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// A connection broke without a word.
    pub(super) fn broke(&mut self, server: SocketAddr, now: Instant) {
        self.gone = Some((server, now, None));
    }

    /// Whether a server has just fallen silent, so that others are asked first.
    pub(super) fn avoids(&self, server: SocketAddr, now: Instant) -> bool {
        self.gone.is_some_and(|(gone, at, _)| gone == server && now.duration_since(at) < GONE)
    }

    /// A node said that it does not lead: where to go, and after which pause.
    pub(super) fn elsewhere(&mut self, close: &Close, now: Instant) -> (Next, Duration) {
        let Some(leader) = close.leader() else { return (Next::Turn, self.longer(ASK)) };
        let epoch = close.epoch().unwrap_or(0);
        if epoch < self.epoch {
            return (Next::Same, self.longer(NEWS));
        }
        if let Some((server, at, known)) = &mut self.gone
            && *server == leader
            && now.duration_since(*at) < GONE
            && epoch <= *known.get_or_insert(epoch)
        {
            return (Next::Turn, self.longer(ASK));
        }
        let pause = if epoch > self.epoch { Duration::ZERO } else { self.longer(ASK) };
        self.epoch = epoch;
        (Next::To(leader), pause)
    }

    fn longer(&mut self, (least, most): (Duration, Duration)) -> Duration {
        self.pause = (self.pause * 2).clamp(least, most);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn newer_news_are_followed_at_once_and_older_ones_never() {
        let (mut heard, now) = (Redirects::default(), Instant::now());
        assert_eq!(
            heard.elsewhere(&Close::not_leader(Some(at(2)), 5), now),
            (Next::To(at(2)), Duration::ZERO)
        );
        // There before the new leader knows: it says what was.
        let pauses: Vec<u128> = (0..7)
            .map(|_| heard.elsewhere(&Close::not_leader(Some(at(1)), 4), now))
            .map(|(next, pause)| {
                assert_eq!(next, Next::Same);
                pause.as_millis()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20]);
        heard.stands();
        assert_eq!(
            heard.elsewhere(&Close::not_leader(Some(at(3)), 6), now),
            (Next::To(at(3)), Duration::ZERO)
        );
    }

    #[test]
    fn nobody_is_sent_back_to_who_fell_silent() {
        let (mut heard, now) = (Redirects::default(), Instant::now());
        heard.stands();
        heard.broke(at(1), now);
        let same = Close::not_leader(Some(at(1)), 5);
        assert_eq!(heard.elsewhere(&same, now), (Next::Turn, Duration::from_millis(20)));
        assert_eq!(heard.elsewhere(&same, now), (Next::Turn, Duration::from_millis(40)));
        assert_eq!(
            heard.elsewhere(&Close::not_leader(None, 5), now),
            (Next::Turn, Duration::from_millis(50))
        );
        assert!(heard.avoids(at(1), now) && !heard.avoids(at(2), now) && !heard.avoids(at(1), now + GONE));
        // It came back and was made leader again, or enough time has passed.
        assert_eq!(heard.elsewhere(&same, now + GONE).0, Next::To(at(1)));
        heard.broke(at(1), now);
        assert_eq!(heard.elsewhere(&same, now).0, Next::Turn);
        assert_eq!(
            heard.elsewhere(&Close::not_leader(Some(at(1)), 6), now),
            (Next::To(at(1)), Duration::ZERO)
        );
    }
}
