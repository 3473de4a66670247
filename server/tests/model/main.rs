//! A model of the cluster: histories that nobody would think of, on real nodes, judged by an oracle.
//!
//! A seed gives a history ([`steps`]): clients connect, come and go, publish and repeat; nodes crash and start; links to the
//! broker break, lose, delay, repeat and swap messages; history is slow, short, or fails; numberings start anew. It happens
//! to a [`cluster`] of nodes with the server's own hub, sessions, connections and presence. Only two things are not the real ones:
//! clients and nodes are joined by socket pairs instead of TCP ([`client`]), and the [`broker`] is simulated ([`link`],
//! [`backplane`]), in the three ways of numbering that strategies have. Time is virtual and there is one thread, so what happens
//! follows from the seed.
//!
//! The [`oracle`] knows what the broker accepted, in which order, and what clients were told. It holds the server to this:
//!
//! - nobody gets what was not published to the room, what it has had, or what comes before that, and nothing outside of a
//!   membership;
//! - a member with a position misses nothing, or is sent away (2500) or disconnected before anything else comes; at rest it has
//!   everything, also the last message;
//! - `recovered: true` only with everything missed, in order and once, and always where nothing was lost;
//! - a member without a position misses nothing but what was lost on its node's link;
//! - offsets name the messages that they are on;
//! - an acknowledged message is in its room once, a repeated one too, and a connection's are in the order of sending;
//! - at rest every node answers who is present, and what history keeps, as it is.
//!
//! That the oracle can find fault is shown by [`lies`] and by faulty backplanes: each makes it fail within 200 seeds, and for its own reason.
//!
//! `MANIFOLD_MODEL_SEED` runs one seed, `MANIFOLD_MODEL_CASES` so many cases, and `MANIFOLD_MODEL_KEEP` (`0,3,17`) those steps of a
//! history alone: a failure names the command that shows it again with the fewest steps that were found to do.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod backplane;
mod broker;
mod cases;
mod client;
mod cluster;
mod lies;
mod link;
mod oracle;
mod random;
mod record;
mod steps;

use cases::{Case, env_number};
use cluster::Wrong;
use lies::Lie;
use manifold_strategies::faulty::Fault;
use record::Tally;

/// Cases of a run, unless the environment says otherwise.
const CASES: u64 = 2_000;
/// Seeds within which a lie must be found out.
const SEEDS_FOR_A_LIE: u64 = 200;

#[test]
fn histories_hold() {
    if let Some(seed) = env_number("MANIFOLD_MODEL_SEED") {
        let case = Case::from_environment(seed);
        return if case.run(None).is_err() {
            cases::explain(case)
        };
    }
    let count = env_number("MANIFOLD_MODEL_CASES").unwrap_or(CASES);
    let half = count / 2;
    let failing: Vec<(u64, String)> = std::thread::scope(|scope| {
        let halves = [0..half, half..count].map(|seeds| scope.spawn(move || cases::failing(seeds)));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    for (seed, wrong) in &failing {
        println!("seed {seed}: {}", wrong.lines().next().unwrap());
    }
    if let Some((seed, _)) = failing.first() {
        cases::explain(Case::of(*seed));
    }
}

#[test]
fn a_seed_is_a_history() {
    for seed in 0..20 {
        let (first, second) = (Case::of(seed).trace(), Case::of(seed).trace());
        assert_eq!(first, second, "seed {seed} went two ways");
    }
}

#[test]
fn histories_are_rich() {
    let mut tally = Tally::default();
    (0..200).for_each(|seed| Case::of(seed).count(&mut tally));
    println!("{tally:?}");
    assert!(tally.least() >= 15, "too little comes about in 200 cases: {tally:?}");
}

#[test]
fn lies_on_the_wire_are_found_out() {
    for lie in Lie::ALL {
        find_out(Wrong::Wire(lie), lie.shows());
    }
}

#[test]
fn faulty_backplanes_are_found_out() {
    let faults = [
        (Fault::Drop, "missing before"),
        (Fault::Duplicate, "came twice"),
        (Fault::Swap, "missing before"),
        (Fault::FalseAck, "acknowledged and is nowhere"),
        (Fault::EarlyJoin, "missing before"),
        (Fault::StuckPosition, "does not stand at"),
        (Fault::SilentSkip, "does not stand at"),
        (Fault::FreshId, "in its room twice"),
        (Fault::ForgetHistory, "missing before"),
        (Fault::RepeatHistory, "came twice"),
        (Fault::SwapHistory, "missing before"),
        (Fault::StaleHistory, "missing before"),
        (Fault::OwnHistory, "missing before"),
        (Fault::BoastfulHistory, "missing before"),
        (Fault::InclusiveHistory, "came twice"),
    ];
    faults.into_iter().for_each(|(fault, shows)| find_out(Wrong::Backplane(fault), shows));
}

/// Looks for a seed that fails for the right reason: its verdict says `shows`.
fn find_out(wrong: Wrong, shows: &str) {
    let verdict = |seed| {
        let why = Case::of(seed).run(Some(wrong)).err()?;
        let first = why.lines().next().unwrap_or_default();
        first.contains(shows).then(|| (seed, first.to_owned()))
    };
    match (0..SEEDS_FOR_A_LIE).find_map(verdict) {
        Some((seed, why)) => println!("{wrong:?} is found out by seed {seed}: {why}"),
        None => panic!("{wrong:?} is found out by no seed"),
    }
}
