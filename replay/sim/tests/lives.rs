//! A few hundred lives with every build; `cargo xtask sim` lives more of them.

use tidegate_replica::{Rule, Rules};
use tidegate_sim::{Options, live};

#[test]
fn a_seed_gives_the_same_life_twice_and_another_seed_another() {
    for seed in 1..20 {
        let life = live(seed, Options::default());
        assert_eq!(life, live(seed, Options::default()));
        assert_ne!(life.hash, live(seed + 1, Options::default()).hash);
    }
}

#[test]
fn no_life_breaks_a_promise_and_lives_are_not_dull() {
    let (mut acks, mut faults, mut losses, mut fenced, mut installed) = (0, 0, 0, 0, 0);
    for seed in 1..400 {
        let life = live(seed, Options::default());
        assert_eq!(life.broken, None, "cargo xtask sim --seed {seed}");
        (acks, faults) = (acks + life.acks, faults + life.faults);
        (losses, fenced) = (losses + life.losses, fenced + life.fenced);
        installed += life.installed;
    }
    assert!(acks > 50_000 && faults > 50_000, "{acks} acks, {faults} faults");
    assert!(losses > 10 && fenced > 100, "{losses} losses, {fenced} fenced");
    assert!(installed > 500, "{installed} snapshots of others");
}

/// The rules whose absence shows within a hundred lives; `cargo xtask sim --mutations` looks at all of them.
#[test]
fn a_missing_rule_is_noticed() {
    let slow = [
        Rule::JoinCounts,
        Rule::SnapshotLineage,
        Rule::ProposalIncarnation,
        Rule::SnapshotNewer,
        Rule::VersionCheck,
    ];
    for rule in Rule::ALL.into_iter().filter(|rule| !slow.contains(rule)) {
        let options = Options { rules: Rules::without(rule), trace: false };
        let noticed = (1..100).any(|seed| live(seed, options).broken.is_some());
        assert!(noticed, "nobody notices that {rule:?} does not hold");
    }
}
