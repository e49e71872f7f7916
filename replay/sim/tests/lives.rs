//! A few hundred lives with every build; `cargo xtask sim` lives more of them.

use tidegate_replica::{Rule, Rules};
use tidegate_sim::{Options, Scale, live, shrink};

#[test]
fn a_seed_gives_the_same_life_twice_and_another_seed_another() {
    for seed in 1..20 {
        let life = live(seed, &Options::default());
        assert_eq!(life, live(seed, &Options::default()));
        assert_ne!(life.hash, live(seed + 1, &Options::default()).hash);
    }
}

#[test]
fn no_life_breaks_a_promise_and_lives_are_not_dull() {
    let (mut acks, mut faults, mut losses, mut fenced, mut installed) = (0, 0, 0, 0, 0);
    let (mut several, mut copies, mut moves) = (0, 0, 0);
    for seed in 1..400 {
        let life = live(seed, &Options::default());
        assert_eq!(life.broken, None, "cargo xtask sim --seed {seed}");
        (acks, faults) = (acks + life.acks, faults + life.faults);
        (losses, fenced) = (losses + life.losses, fenced + life.fenced);
        installed += life.installed;
        several += u64::from(life.groups > 1);
        copies += life.copies;
        moves += life.moves;
    }
    assert!(several > 20, "{several} lives with several groups");
    assert!(acks > 50_000 && faults > 50_000, "{acks} acks, {faults} faults");
    assert!(losses > 10 && fenced > 100, "{losses} losses, {fenced} fenced");
    assert!(copies > 100, "{copies} copies came to other nodes");
    assert!(moves > 100, "{moves} slots came to other groups");
    assert!(installed > 500, "{installed} snapshots of others");
}

/// Each of them is needed; `cargo xtask sim --mutations` says what was noticed.
#[test]
fn a_missing_rule_is_noticed() {
    for rule in Rule::ALL {
        let options = Options { rules: Rules::without(rule), ..Options::default() };
        let noticed = (1..600).any(|seed| live(seed, &options).broken.is_some());
        assert!(noticed, "nobody notices that {rule:?} does not hold");
    }
}

#[test]
fn a_life_that_breaks_is_shortened_to_what_it_needs() {
    let rules = Rules::without(Rule::LossyLeaves);
    let options = Options { rules, ..Options::default() };
    let seed = (1..100).find(|seed| live(*seed, &options).broken.is_some()).expect("one breaks");
    let long = live(seed, &options);
    let short = shrink(seed, &options).expect("it breaks");
    assert!(
        short.life.script.len() < long.script.len(),
        "{} of {}",
        short.life.script.len(),
        long.script.len()
    );
    // It is what it says: the same again, and nothing of it can go.
    let again = Options { without: short.without.clone(), ..options.clone() };
    assert_eq!(live(seed, &again), short.life);
    assert!(shrink(seed, &again).is_some_and(|same| same.life.script == short.life.script));
    assert!(shrink(seed, &Options::default()).is_none(), "with all rules it breaks nothing");
}

/// `cargo xtask sim --scale` lives it with a hundred nodes and 1,600 groups.
#[test]
fn a_large_cluster_stays_within_its_budget() {
    let scale = Scale { nodes: 20, groups: 160, ..Scale::default() };
    scale.live(1).unwrap();
    let tight = Scale { state_bytes: 1_000, ..scale };
    assert!(tight.live(1).is_err_and(|why| why.starts_with("bytes of the state: ")));
}
