//! Makes a life that breaks something shorter: whatever it breaks without as well is left out.

use crate::cluster::{Life, Options, Without, live};
use std::collections::BTreeSet;

/// A life that breaks the same with as little as could be found.
#[derive(Clone, Debug)]
pub struct Short {
    /// What is left out.
    pub without: Without,
    /// How it goes then.
    pub life: Life,
    /// Lives lived to find out.
    pub lives: u64,
}

/// What is broken, numbers apart: another offset or node is the same fault still.
fn kind(life: &Life) -> Option<String> {
    life.broken.as_ref().map(|(_, what)| what.chars().filter(|letter| !letter.is_ascii_digit()).collect())
}

/// Leaves out of a life whatever it breaks the same without: each disturbance of the network, then faults, half of them at a time, a
/// quarter, and so on to one. Nothing when the life breaks nothing.
#[must_use]
pub fn shrink(seed: u64, options: &Options) -> Option<Short> {
    let life = live(seed, options);
    let broken = kind(&life)?;
    let mut short = Short { without: options.without.clone(), life, lives: 1 };
    let attempt = |short: &mut Short, without: Without| {
        let life = live(seed, &Options { without: without.clone(), ..options.clone() });
        short.lives += 1;
        let same = kind(&life).as_ref() == Some(&broken);
        if same {
            (short.without, short.life) = (without, life);
        }
        same
    };
    let network: [fn(&mut Without); 5] = [
        |without| without.loss = true,
        |without| without.doubles = true,
        |without| without.spikes = true,
        |without| without.damage = true,
        |without| without.snapshots = true,
    ];
    for leave_out in network {
        let mut without = short.without.clone();
        leave_out(&mut without);
        attempt(&mut short, without);
    }
    let numbers = |short: &Short| short.life.script.iter().map(|fault| fault.number).collect::<Vec<_>>();
    let mut size = numbers(&short).len().div_ceil(2);
    while size > 0 {
        let (mut at, mut any) = (0, false);
        loop {
            let left = numbers(&short);
            let Some(out) = left.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let out: BTreeSet<u64> = out.iter().take(size).copied().collect();
            let mut without = short.without.clone();
            without.faults.extend(out);
            if attempt(&mut short, without) {
                any = true;
            } else {
                at += size;
            }
        }
        // What could not go alone may, once others have gone.
        size = if size == 1 && any { 1 } else { size / 2 };
    }
    Some(short)
}
