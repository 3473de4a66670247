//! What goes wrong in a soak, and when: at random, by the seed.

use manifold_compose::StrategyBrokers;

use crate::campaign::{Entrant, mix};
use crate::record::{Deed, Fault, Target};
use crate::scenario::{ClientDeed, ClientStep, Scenario, ScenarioError};
use crate::schedule::Random;

const BASE: &str = include_str!("soak.toml");
/// Nothing goes wrong before.
const FIRST_AT_S: f64 = 10.0;
/// The end of the load, in which all must be as before.
pub(super) const HEALTHY_S: f64 = 25.0;
/// The last trouble is over this long before the end: what it left behind has time to heal, and then to show that it has. A
/// broker that is started again needs some of it.
const LAST_BEFORE_END_S: f64 = HEALTHY_S + 15.0;
/// From the end of one trouble to the next.
const PAUSE_S: (f64, f64) = (8.0, 20.0);
/// From one of the clients' own troubles to the next.
const CLIENT_PAUSE_S: (f64, f64) = (6.0, 18.0);
/// Nodes that join in the course of a soak: each stays.
const JOINS_MAX: u32 = 2;

/// Something that goes wrong, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trouble {
    begins: Deed,
    ends: Option<Deed>,
    on: Target,
    /// Shortest and longest, seconds.
    for_s: (f64, f64),
}

const fn trouble(begins: Deed, ends: Deed, on: Target, for_s: (f64, f64)) -> Trouble {
    Trouble { begins, ends: Some(ends), on, for_s }
}

/// A strategy of one node has no other to go to, and must live long for its memory to be judged.
const LONE: &[Trouble] = &[trouble(Deed::Stop, Deed::Continue, Target::Node, (0.5, 4.0))];

/// They strike one node: the others live through the whole soak, and their memory is judged.
const NODES: &[Trouble] = &[
    trouble(Deed::Kill, Deed::Restart, Target::Node, (0.5, 6.0)),
    trouble(Deed::Stop, Deed::Continue, Target::Node, (1.0, 12.0)),
    trouble(Deed::Drain, Deed::Restart, Target::Node, (0.5, 4.0)),
    trouble(Deed::Exhaust, Deed::Relieve, Target::NodeFiles, (2.0, 5.0)),
    Trouble { begins: Deed::Add, ends: None, on: Target::Node, for_s: (0.0, 0.0) },
];

const KAFKA: &[Trouble] = &[
    trouble(Deed::Kill, Deed::Restart, Target::Kafka, (0.2, 4.0)),
    trouble(Deed::Stop, Deed::Continue, Target::Kafka, (1.0, 10.0)),
    trouble(Deed::Stall, Deed::Mend, Target::KafkaLink, (1.0, 6.0)),
    trouble(Deed::Cut, Deed::Mend, Target::KafkaLink, (0.5, 4.0)),
    trouble(Deed::Slow, Deed::Mend, Target::KafkaLink, (2.0, 8.0)),
];

const REDIS: &[Trouble] = &[
    trouble(Deed::Kill, Deed::Restart, Target::Redis, (0.2, 4.0)),
    trouble(Deed::Stop, Deed::Continue, Target::Redis, (1.0, 10.0)),
    trouble(Deed::Stall, Deed::Mend, Target::RedisLink, (1.0, 6.0)),
    trouble(Deed::Cut, Deed::Mend, Target::RedisLink, (0.5, 4.0)),
    trouble(Deed::Slow, Deed::Mend, Target::RedisLink, (2.0, 8.0)),
    trouble(Deed::Exhaust, Deed::Relieve, Target::RedisMemory, (1.0, 4.0)),
];

/// The soak of one strategy: the shared load, and troubles that can befall it. The same seed gives the same timeline.
///
/// # Errors
/// A length or a rate out of bounds.
pub fn scenario(
    entrant: &Entrant,
    minutes: f64,
    rate_per_s: f64,
    seed: u64,
) -> Result<Scenario, ScenarioError> {
    let overrides =
        [format!("duration_s={:?}", minutes * 60.0), format!("traffic.rate_per_s={rate_per_s:?}")];
    let mut scenario = Scenario::parse("soak", BASE, &overrides)?;
    let mut random = Random::new(mix(seed, &entrant.label(), 0), 0);
    let until_s = scenario.duration_s - LAST_BEFORE_END_S;
    scenario.faults = faults(&troubles(entrant.brokers()), until_s, &mut random);
    scenario.clients = clients(until_s, &mut random);
    Ok(scenario)
}

fn troubles(brokers: Option<&StrategyBrokers>) -> Vec<Trouble> {
    let (kafka, redis) = brokers.map_or((false, false), |brokers| (brokers.kafka, brokers.redis));
    if !kafka && !redis {
        return LONE.to_vec();
    }
    let mut all = NODES.to_vec();
    if kafka {
        all.extend(KAFKA);
    }
    if redis {
        all.extend(REDIS);
    }
    all
}

/// One after the other: what two at once do is up to how long the first takes to heal. Every kind comes once before any
/// comes again.
fn faults(troubles: &[Trouble], until_s: f64, random: &mut Random) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut joins = 0;
    let mut at_s = FIRST_AT_S;
    let mut deck: Vec<Trouble> = Vec::new();
    loop {
        if deck.is_empty() {
            deck =
                troubles.iter().filter(|one| one.begins != Deed::Add || joins < JOINS_MAX).copied().collect();
        }
        let trouble = deck.swap_remove(random.below(deck.len() as u64) as usize);
        let for_s = between(trouble.for_s, random);
        if at_s + for_s > until_s {
            return faults;
        }
        joins += u32::from(trouble.begins == Deed::Add);
        faults.push(Fault { at_s, deed: trouble.begins, to: trouble.on });
        if let Some(deed) = trouble.ends {
            faults.push(Fault { at_s: at_s + for_s, deed, to: trouble.on });
        }
        at_s += for_s + between(PAUSE_S, random);
    }
}

/// Clients lose their connections throughout, whatever else happens.
fn clients(until_s: f64, random: &mut Random) -> Vec<ClientStep> {
    let mut steps = Vec::new();
    let mut at_s = FIRST_AT_S / 2.0;
    while at_s < until_s {
        let (deed, most) = match random.below(8) {
            0 => (ClientDeed::HalfOpen, 0.1),
            1 => (ClientDeed::Garbage, 0.1),
            2 => (ClientDeed::Move, 0.3),
            _ => (ClientDeed::Disconnect, 0.5),
        };
        steps.push(ClientStep { at_s, deed, share: between((0.05, most), random) });
        at_s += between(CLIENT_PAUSE_S, random);
    }
    steps
}

fn between((low, high): (f64, f64), random: &mut Random) -> f64 {
    low + (high - low) * random.unit()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use manifold_compose::STRATEGIES;

    use super::*;

    fn of(strategy: &str, minutes: f64, seed: u64) -> Scenario {
        let entrant = Entrant { strategy: strategy.to_owned(), options: Vec::new() };
        scenario(&entrant, minutes, 100.0, seed).unwrap()
    }

    #[test]
    fn a_seed_makes_one_timeline_and_another_seed_another() {
        assert_eq!(of("hybrid", 20.0, 7), of("hybrid", 20.0, 7));
        assert_ne!(of("hybrid", 20.0, 7).faults, of("hybrid", 20.0, 8).faults);
        assert_ne!(of("kafka-keyed", 20.0, 7).faults, of("kafka-broadcast", 20.0, 7).faults);
    }

    #[test]
    fn troubles_fit_the_strategy_end_and_leave_time_to_heal() {
        for known in STRATEGIES {
            let scenario = of(known.name, 20.0, 3);
            let last_s = scenario.duration_s - LAST_BEFORE_END_S;
            let mut open: Option<(Target, f64)> = None;
            for fault in &scenario.faults {
                assert!(fault.deed.suits(fault.to), "{fault:?}");
                assert!(fault.at_s >= FIRST_AT_S && fault.at_s <= last_s, "{fault:?}");
                match fault.to.broker() {
                    Some(crate::record::ComponentKind::Kafka) => assert!(known.kafka, "{fault:?}"),
                    Some(_) => assert!(known.redis, "{fault:?}"),
                    None => {}
                }
                match open.take() {
                    Some((target, since)) => assert!(target == fault.to && fault.at_s >= since, "{fault:?}"),
                    None if fault.deed == Deed::Add => {}
                    None => open = Some((fault.to, fault.at_s)),
                }
            }
            assert!(open.is_none(), "a trouble that never ends");
            assert!(scenario.clients.len() > 60, "{}", scenario.clients.len());
            let joins = scenario.faults.iter().filter(|fault| fault.deed == Deed::Add).count();
            assert!(joins <= JOINS_MAX as usize);
        }
    }

    #[test]
    fn twenty_minutes_see_every_kind_of_trouble() {
        let scenario = of("hybrid", 20.0, 1);
        let kinds = |faults: &[Fault]| -> BTreeSet<String> {
            faults.iter().map(|fault| format!("{:?} {:?}", fault.deed, fault.to)).collect()
        };
        assert!(scenario.faults.len() > 60, "{}", scenario.faults.len());
        assert_eq!(kinds(&scenario.faults).len(), 2 * (NODES.len() + KAFKA.len() + REDIS.len()) - 1 - 5);
    }

    #[test]
    fn a_short_soak_is_a_soak() {
        let scenario = of("redis-pubsub", 1.0, 1);
        assert!(!scenario.faults.is_empty() && !scenario.clients.is_empty());
        let entrant = Entrant { strategy: "memory".to_owned(), options: Vec::new() };
        assert!(super::scenario(&entrant, 1e9, 100.0, 1).is_err());
    }
}
