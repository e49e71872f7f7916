//! What a thread does when a turn found no work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_engine::Sleeper;

/// How to wait for work. [`IdleStrategy::Adaptive`] is the default everywhere: with more threads than cores a pure spin
/// takes the core from the very thread it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdleStrategy {
    /// Burns the core; the shortest reaction, only for cores that nobody else needs.
    Spin,
    /// Gives the rest of the time slice away after each empty turn.
    Yield,
    /// Sleeps up to a millisecond after each empty turn.
    Park,
    /// Spins, then yields, then sleeps: until woken where somebody does that, else for longer and longer, up to a millisecond
    /// in the first second without work and eight from then on.
    #[default]
    Adaptive,
}

/// A text that names no idle strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("idle strategy `{0}` is none of spin, yield, park, adaptive")]
pub struct IdleStrategyError(String);

impl FromStr for IdleStrategy {
    type Err = IdleStrategyError;

    fn from_str(text: &str) -> Result<Self, IdleStrategyError> {
        match text {
            "spin" => Ok(Self::Spin),
            "yield" => Ok(Self::Yield),
            "park" => Ok(Self::Park),
            "adaptive" => Ok(Self::Adaptive),
            other => Err(IdleStrategyError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for IdleStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spin => "spin",
            Self::Yield => "yield",
            Self::Park => "park",
            Self::Adaptive => "adaptive",
        })
    }
}

const PARK_MAX: Duration = Duration::from_millis(1);
/// Once [`QUIET_TURNS`] waits found nothing, about a second: whoever sends after that waits longer for the first answer.
const PARK_QUIET: Duration = Duration::from_millis(8);
const QUIET_TURNS: u32 = 1_000;
const PARK_FIRST: Duration = Duration::from_micros(16);
const SPIN_TURNS: u32 = 64;
const YIELD_TURNS: u32 = 64;
/// A thread that is woken looks around so often all the same.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Doublings from [`PARK_FIRST`] to beyond [`PARK_MAX`].
const PARK_STEPS: u32 = 7;

/// An idle strategy and how long it has been idle. One per waiting thread; a producer before a full ring uses the same.
#[derive(Clone, Debug)]
pub struct Idle {
    strategy: IdleStrategy,
    empty_turns: u32,
}

impl Idle {
    /// A thread that has just worked.
    #[must_use]
    pub fn new(strategy: IdleStrategy) -> Self {
        Self { strategy, empty_turns: 0 }
    }

    /// Call after each turn: returns at once when it `worked`, else waits as the strategy says.
    #[inline]
    pub fn idle(&mut self, worked: bool) {
        if worked {
            self.empty_turns = 0;
        } else {
            self.wait();
        }
    }

    /// As [`Idle::idle`], for a thread that others wake: instead of sleeping by the clock it sleeps on `sleeper`, for at most
    /// `longest`. `has_work` is asked once everybody knows that it is about to sleep.
    #[inline]
    pub fn idle_on(
        &mut self,
        worked: bool,
        sleeper: &Sleeper,
        longest: Duration,
        has_work: impl FnOnce() -> bool,
    ) {
        if worked {
            self.empty_turns = 0;
        } else if self.sleeps() {
            sleeper.sleep(longest.min(SLEEP_MAX), has_work);
        } else {
            self.wait();
        }
    }

    /// Whether the next wait is a sleep.
    fn sleeps(&self) -> bool {
        match self.strategy {
            IdleStrategy::Spin | IdleStrategy::Yield => false,
            IdleStrategy::Park => true,
            IdleStrategy::Adaptive => self.empty_turns >= SPIN_TURNS,
        }
    }

    fn wait(&mut self) {
        let turn = self.empty_turns;
        self.empty_turns = turn.saturating_add(1);
        match self.strategy {
            IdleStrategy::Spin => std::hint::spin_loop(),
            IdleStrategy::Yield => std::thread::yield_now(),
            // Nobody unparks here; the bound is the latency.
            IdleStrategy::Park => std::thread::park_timeout(PARK_MAX),
            IdleStrategy::Adaptive if turn < SPIN_TURNS => std::hint::spin_loop(),
            IdleStrategy::Adaptive if turn < SPIN_TURNS + YIELD_TURNS => std::thread::yield_now(),
            IdleStrategy::Adaptive if turn > QUIET_TURNS => std::thread::park_timeout(PARK_QUIET),
            IdleStrategy::Adaptive => {
                let step = (turn - SPIN_TURNS - YIELD_TURNS).min(PARK_STEPS);
                std::thread::park_timeout((PARK_FIRST * (1 << step)).min(PARK_MAX));
            }
        }
    }
}
