//! How likely an accusation is right: from how far ordinary hosts of the same traffic go in what the accused is accused of, and how
//! far attackers do.
//!
//! Each detector has one decisive figure and a threshold for it. Here it is the figure over its threshold, cut into levels that are twice
//! as far each: an eighth of the threshold, a quarter, a half, the threshold itself, and beyond. Hosts are counted by the furthest level they
//! were seen at, once for each [`Measure`]; accused ones are among them, and how much of an ordinary host each of them is follows from
//! the counts (expectation-maximisation of a mixture of two, Dempster et al. 1977, in a fixed number of rounds):
//!
//! - *Ordinary* hosts that reach a level reach the next with a probability of its own for each step, learnt from the counts, a priori one in
//!   eight (beta distributed, worth eight hosts). Beyond the threshold the slowest decay seen goes on, as a Pareto tail does.
//! - *Attackers* reach the threshold, and of those at any level four in five go on to the next.
//! - Of the hosts that show an eighth of the threshold one in fifty is an attacker a priori (worth fifty hosts); the counts change that too.
//!
//! The probability is that of a host which ends where the accused is (a local false discovery rate, Efron et al. 2001, one less it). An
//! accused host does not speak for itself: it is left out of the counts that judge it. All of it are sums and products in a fixed order over
//! integers, without a function of a system's library, so it comes out the same to the bit wherever the same input is read.

/// The decisive figure of a detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Measure {
    /// Ports of one host that failed.
    Ports,
    /// The same, with packets that no system sends by itself.
    StealthPorts,
    /// Hosts that failed on one port.
    Hosts,
    /// Pinged hosts that did not answer.
    Pinged,
    /// Failures of one service in a row.
    Failures,
    /// Addresses asked for on the link.
    Asked,
    /// Connections to a host not completed.
    HalfOpen,
    /// Datagrams to a host that nothing came back for.
    OneWay,
    /// Pings of a host.
    Pings,
    /// Large answers nobody asked for.
    Answers,
    /// Connections held open, or pages asked for: what one client takes of a service.
    HeldOpen,
    /// Logins refused.
    Refused,
    /// Sessions that look like refused logins, or are all alike.
    Sessions,
    /// Login forms sent.
    Forms,
    /// How regular calls are.
    Regular,
    /// Names that carry data, or that were made up and of which there is none.
    Carriers,
    /// Echoes that carry data.
    Echoes,
    /// Bytes sent out, against a history.
    Volume,
    /// Cards that claim an address.
    Owners,
    /// Hosts administered for the first time.
    Administered,
    /// Time without anything new.
    Quiet,
    /// Clients of a service and what they ask, against a history.
    Crowd,
}

impl Measure {
    /// How many there are.
    pub const COUNT: usize = Self::Crowd as usize + 1;
}

/// Levels: an eighth of the threshold, a quarter, a half, the threshold, twice, four times, eight times and more.
pub const LEVELS: usize = 7;
/// The level of the threshold.
const ACCUSED: usize = 3;
const _: () = assert!(Measure::COUNT <= Furthest::MEASURES && LEVELS < 8);

/// Of ordinary hosts at a level that many reach the next, a priori, and what that is worth in hosts.
const GO_ON: (f64, f64) = (1.0, 8.0);
/// Of hosts at the first level that many are attackers, a priori, and what that is worth in hosts.
const ATTACKERS: (f64, f64) = (1.0, 50.0);
/// Share of attackers at a level that reach the next.
const ATTACKERS_GO_ON: f64 = 0.8;
/// Hosts counted of a measure: then all counts are halved, so that habits of a site may change.
const HOSTS_MAX: u32 = 1_024;
/// Rounds of expectation and maximisation. From the prior they change hardly anything after ten.
const ROUNDS: usize = 16;
/// Doublings beyond the threshold that count.
const DOUBLINGS_MAX: usize = 16;
/// Nothing is sure.
const SURE: f64 = 0.999;

/// The furthest level a host was seen at, of each measure: three bits each, 0 where it reached none. Ten bytes of a [`super::host::Host`],
/// which has no more to spare.
#[derive(Debug, Clone, Copy, Default)]
pub struct Furthest([u16; 5]);

impl Furthest {
    /// Measures in one word.
    const IN_WORD: usize = 5;
    /// Measures that there is room for.
    const MEASURES: usize = 5 * Self::IN_WORD;

    const fn place(measure: Measure) -> (usize, usize) {
        let at = measure as usize;
        (at / Self::IN_WORD, at % Self::IN_WORD * 3)
    }

    const fn reached(self, measure: Measure) -> usize {
        let (word, shift) = Self::place(measure);
        (self.0[word] >> shift & 7) as usize
    }

    fn reach(&mut self, measure: Measure, reached: usize) {
        let (word, shift) = Self::place(measure);
        self.0[word] = self.0[word] & !(7 << shift) | (reached as u16) << shift;
    }
}

/// How many levels a figure so many times its threshold has reached.
fn reached(times: f64) -> usize {
    let (mut count, mut bound) = (0, 0.125);
    while count < LEVELS && times >= bound {
        (count, bound) = (count + 1, bound * 2.0);
    }
    count
}

/// Whether a count that goes from `before` to `now` reaches a level of `threshold`: only then is anything to be noted.
#[inline]
#[must_use]
pub fn steps(before: u64, now: u64, threshold: u64) -> bool {
    let level =
        |count: u64| (count.saturating_mul(8) / threshold.max(1)).checked_ilog2().map_or(0, |log| log + 1);
    level(now) > level(before)
}

/// Hosts by how far they went.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    hosts: [[u32; LEVELS]; Measure::COUNT],
}

impl Evidence {
    /// Notes that a host showed so many times a threshold, if that is further than before.
    pub fn note(&mut self, measure: Measure, furthest: &mut Furthest, times: f64) {
        let (before, now) = (furthest.reached(measure), reached(times));
        if now <= before {
            return;
        }
        let hosts = &mut self.hosts[measure as usize];
        if let Some(last) = before.checked_sub(1) {
            hosts[last] = hosts[last].saturating_sub(1);
        }
        hosts[now - 1] += 1;
        furthest.reach(measure, now);
        if hosts.iter().sum::<u32>() >= HOSTS_MAX {
            hosts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// Probability that a host which shows so many times a threshold is an attacker; between 0.001 and 0.999, and never less for more.
    #[must_use]
    pub fn probability(&self, measure: Measure, furthest: Furthest, times: f64) -> f64 {
        let mut hosts = self.hosts[measure as usize].map(f64::from);
        // Nobody is evidence against others like himself.
        if let Some(own) = furthest.reached(measure).checked_sub(1) {
            hosts[own] = (hosts[own] - 1.0).max(0.0);
        }
        let (odds, growth) = fit(&hosts);
        // The odds of a level are those of its middle.
        let (mut middle, mut odds) = (0.75, odds / growth);
        for _ in 0..DOUBLINGS_MAX {
            if times < 2.0 * middle {
                break;
            }
            (middle, odds) = (2.0 * middle, odds * growth);
        }
        let part = (times / middle - 1.0).clamp(0.0, 1.0);
        odds += (odds * growth - odds) * part;
        // Of infinite odds the share would be no number.
        (odds.min(1e12) / (1.0 + odds.min(1e12))).clamp(1.0 - SURE, SURE)
    }
}

/// Odds that a host which ends at the level of the threshold is an attacker, and what they are multiplied by with each level.
fn fit(hosts: &[f64; LEVELS]) -> (f64, f64) {
    let mut attackers = [0.0; LEVELS];
    let (mut odds, mut growth) = share_out(hosts, &attackers);
    for _ in 0..ROUNDS {
        let mut own = odds;
        for share in &mut attackers[ACCUSED..] {
            *share = own / (1.0 + own);
            own *= growth;
        }
        (odds, growth) = share_out(hosts, &attackers);
    }
    (odds, growth)
}

/// The same where it is known which share of each level are attackers.
fn share_out(hosts: &[f64; LEVELS], attackers: &[f64; LEVELS]) -> (f64, f64) {
    // Ordinary hosts that reached each level.
    let mut ordinary = [0.0; LEVELS];
    let (mut sum, mut guilty) = (0.0, 0.0);
    for level in (0..LEVELS).rev() {
        sum += hosts[level] * (1.0 - attackers[level]);
        guilty += hosts[level] * attackers[level];
        ordinary[level] = sum;
    }
    let go_on = |next: f64, here: f64| (GO_ON.0 + next) / (GO_ON.1 + here);
    let mut reach = 1.0;
    for level in 0..ACCUSED {
        reach *= go_on(ordinary[level + 1], ordinary[level]);
    }
    let all = go_on(ordinary[1..].iter().sum(), ordinary[..LEVELS - 1].iter().sum());
    let last = go_on(ordinary[ACCUSED], ordinary[ACCUSED - 1]);
    // More of the same never speaks for the accused.
    let beyond = all.max(last).min(ATTACKERS_GO_ON);
    let share = (ATTACKERS.0 + guilty) / (ATTACKERS.1 + hosts.iter().sum::<f64>());
    let odds = share / (1.0 - share) * (1.0 - ATTACKERS_GO_ON) / (reach * (1.0 - beyond));
    (odds, ATTACKERS_GO_ON / beyond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Xorshift in (0, 1).
    fn random(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    /// How far ordinary hosts of a site go, over the first level: shapes of tails.
    #[derive(Clone, Copy, Debug)]
    enum Tail {
        /// Of those at a level so many reach the next.
        Pareto(f64),
        /// A logarithm that is normal, with such a deviation.
        LogNormal(f64),
        /// So many go on from the first level, and ever fewer.
        Exponential(f64),
    }

    impl Tail {
        fn draw(self, next: &mut impl FnMut() -> f64) -> f64 {
            match self {
                Self::Pareto(go_on) => 0.125 * next().powf(std::f64::consts::LN_2 / go_on.ln()),
                Self::Exponential(go_on) => 0.125 * (1.0 + next().ln() / go_on.ln()),
                Self::LogNormal(deviation) => loop {
                    let normal = (-2.0 * next().ln()).sqrt() * (std::f64::consts::TAU * next()).cos();
                    let times = 0.05 * (deviation * normal).exp();
                    if times >= 0.125 {
                        return times;
                    }
                },
            }
        }
    }

    /// One site after the other, each with its own share of attackers and its own tail; all who are accused, with their probability.
    fn accused(sites: u64, tail: impl Fn(f64) -> Tail) -> Vec<(f64, bool)> {
        let mut all = Vec::new();
        for site in 1..=sites {
            let mut next = random(site);
            let hosts = (5.0 * 100f64.powf(next())) as usize;
            // The prior of shares: beta with 1 and 49.
            let share = 1.0 - next().powf(1.0 / 49.0);
            let tail = tail(next());
            let mut evidence = Evidence::default();
            for _ in 0..hosts {
                let guilty = next() < share;
                let times = if guilty {
                    next().powf(std::f64::consts::LN_2 / ATTACKERS_GO_ON.ln())
                } else {
                    tail.draw(&mut next)
                };
                let mut furthest = Furthest::default();
                // It gets there step by step, as counts do.
                (1..8).for_each(|part| {
                    evidence.note(Measure::Ports, &mut furthest, times * f64::from(part) / 8.0)
                });
                evidence.note(Measure::Ports, &mut furthest, times);
                if times >= 1.0 {
                    all.push((evidence.probability(Measure::Ports, furthest, times), guilty));
                }
            }
        }
        all
    }

    /// Of each tenth of the scale: accused, mean probability, share that is right.
    fn reliability(accused: &[(f64, bool)]) -> Vec<(usize, f64, f64)> {
        (0..10)
            .map(|tenth| {
                let held: Vec<_> =
                    accused.iter().filter(|(p, _)| ((p * 10.0) as usize).min(9) == tenth).collect();
                let count = held.len().max(1) as f64;
                let mean = held.iter().map(|(p, _)| p).sum::<f64>() / count;
                (held.len(), mean, held.iter().filter(|(_, guilty)| *guilty).count() as f64 / count)
            })
            .collect()
    }

    /// What is told is what happens, where the model holds: within 0.12 in each tenth of the scale, within 0.02 in the last and over all. Sites differ by
    /// more than few hosts can show, so it cannot be nearer.
    #[test]
    fn accusations_are_right_as_often_as_told() {
        let all = accused(6_000, |u| Tail::Pareto(0.03 + 0.25 * u * u));
        let told = reliability(&all);
        for &(count, mean, right) in &told {
            assert!(count < 100 || (right - mean).abs() <= 0.12, "{told:?}");
        }
        assert!(told[3..].iter().all(|&(count, ..)| count >= 100), "{told:?}");
        assert!((told[9].1 - told[9].2).abs() <= 0.02, "{told:?}");
        let count = all.len() as f64;
        let mean = all.iter().map(|(p, _)| p).sum::<f64>() / count;
        let right = all.iter().filter(|(_, guilty)| *guilty).count() as f64 / count;
        assert!((mean - right).abs() <= 0.02, "{mean} {right}");
    }

    /// Where it does not hold, because ordinary hosts go less far than a Pareto tail, it is not much too sure of itself anywhere.
    #[test]
    fn other_tails_make_it_careful() {
        let tails: [fn(f64) -> Tail; 2] =
            [|u| Tail::LogNormal(0.4 + 0.5 * u), |u| Tail::Exponential(0.05 + 0.3 * u)];
        for tail in tails {
            let told = reliability(&accused(3_000, tail));
            for &(count, mean, right) in &told {
                assert!(count < 100 || right >= mean - 0.12, "{told:?}");
            }
            assert!(told[9].0 > 1_000, "{told:?}");
        }
    }

    /// A site whose ordinary hosts go far is believed less than a quiet one.
    #[test]
    fn a_noisy_site_is_believed_less() {
        let site = |go_on: u32| {
            let mut evidence = Evidence::default();
            for host in 0..400u32 {
                let mut times = 0.125;
                let mut left = host;
                while left.is_multiple_of(go_on) && left > 0 && times < 0.6 {
                    (times, left) = (times * 2.0, left / go_on);
                }
                evidence.note(Measure::Hosts, &mut Furthest::default(), times);
            }
            evidence.probability(Measure::Hosts, Furthest::default(), 2.0)
        };
        let new = Evidence::default().probability(Measure::Hosts, Furthest::default(), 2.0);
        assert!(site(2) < 0.1 && new > 0.8 && site(20) > 0.8, "{} {new} {}", site(2), site(20));
    }

    /// Each measure has a place of its own.
    #[test]
    fn measures_do_not_touch_each_other() {
        let all = [
            Measure::Ports,
            Measure::Failures,
            Measure::Asked,
            Measure::Answers,
            Measure::HeldOpen,
            Measure::Regular,
            Measure::Carriers,
            Measure::Administered,
            Measure::Quiet,
            Measure::Crowd,
        ];
        let mut furthest = Furthest::default();
        all.iter().enumerate().for_each(|(at, &measure)| furthest.reach(measure, 7 - at % 7));
        all.iter().enumerate().for_each(|(at, &measure)| assert_eq!(furthest.reached(measure), 7 - at % 7));
        furthest.reach(Measure::Crowd, 0);
        assert_eq!((furthest.reached(Measure::Quiet), furthest.reached(Measure::Crowd)), (7 - 8 % 7, 0));
    }

    #[test]
    fn who_is_judged_does_not_count() {
        let (mut evidence, mut furthest) = (Evidence::default(), Furthest::default());
        let before = evidence.probability(Measure::Forms, furthest, 3.0);
        for times in [0.2, 0.5, 1.0, 3.0] {
            evidence.note(Measure::Forms, &mut furthest, times);
        }
        assert_eq!(evidence.probability(Measure::Forms, furthest, 3.0).to_bits(), before.to_bits());
        // For another it does.
        assert_ne!(
            evidence.probability(Measure::Forms, Furthest::default(), 3.0).to_bits(),
            before.to_bits()
        );
        assert_eq!(evidence.hosts[Measure::Forms as usize], [0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn steps_are_those_of_levels() {
        for threshold in [5u64, 15, 20, 100, 150] {
            for count in 0..4_000 {
                let level = |count: u64| reached(count as f64 / threshold as f64);
                if count < threshold * 8 {
                    assert_eq!(
                        steps(count, count + 1, threshold),
                        level(count + 1) > level(count),
                        "{count} of {threshold}"
                    );
                }
            }
        }
    }

    proptest! {
        /// In (0, 1), never less for more evidence, whatever was counted, and bounded.
        #[test]
        fn more_evidence_is_never_worth_less(
            notes in prop::collection::vec((0usize..60, -6f64..8.0), 0..300),
            times in prop::collection::vec(0f64..1_000.0, 2..40),
        ) {
            let mut evidence = Evidence::default();
            let mut hosts = [Furthest::default(); 60];
            for (host, log) in notes {
                evidence.note(Measure::Pings, &mut hosts[host], log.exp2());
            }
            for furthest in [hosts[0], Furthest::default()] {
                let mut sorted = times.clone();
                sorted.extend([0.0, f64::INFINITY]);
                sorted.sort_by(f64::total_cmp);
                let told: Vec<f64> =
                    sorted.iter().map(|&times| evidence.probability(Measure::Pings, furthest, times)).collect();
                prop_assert!(told.is_sorted(), "{told:?}");
                prop_assert!(told.iter().all(|p| (0.001..=0.999).contains(p)), "{told:?}");
            }
            prop_assert!(evidence.hosts.iter().flatten().sum::<u32>() < HOSTS_MAX);
        }
    }
}
