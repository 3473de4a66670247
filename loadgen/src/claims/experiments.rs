//! Small runs that comparisons don't contain: strategies with options that make a claim visible.

/// A contender with options, in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experiment {
    /// Strategy name.
    pub strategy: &'static str,
    /// Options, `key=value`.
    pub options: &'static [&'static str],
    /// Scenario name.
    pub scenario: &'static str,
    /// Where the scenario runs as a variant: the name that it then has, and what it overrides.
    pub variant: Option<Variant>,
    /// How often it is made: more than once where a figure decides, and not a count.
    pub repeats: u32,
}

/// A scenario that is like another but for some keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Its name, which records carry.
    pub name: &'static str,
    /// Overrides, `key=value`.
    pub overrides: &'static [&'static str],
}

/// The steps of claim 6: publishes per second into one room, and the scenario of that step. The room has six members,
/// so that its partition is the load and not the fan-out: 4,000/s is eight times what the busiest chats reach.
pub(super) const SWEEP: [(u64, Variant); 3] = [
    (1_000, hot_room("giant-room-1000-per-s", &hot("traffic.rate_per_s=1000.0"))),
    (2_000, hot_room("giant-room-2000-per-s", &hot("traffic.rate_per_s=2000.0"))),
    (4_000, hot_room("giant-room-4000-per-s", &hot("traffic.rate_per_s=4000.0"))),
];

const fn hot(rate: &'static str) -> [&'static str; 5] {
    [rate, "rooms.members=6.0", "traffic.senders_per_room=6", "traffic.surges=[]", "churn.share_per_min=0.0"]
}

const fn hot_room(name: &'static str, overrides: &'static [&'static str]) -> Variant {
    Variant { name, overrides }
}

const fn plain(
    strategy: &'static str,
    options: &'static [&'static str],
    scenario: &'static str,
) -> Experiment {
    Experiment { strategy, options, scenario, variant: None, repeats: 1 }
}

const fn step(strategy: &'static str, index: usize) -> Experiment {
    Experiment { strategy, options: &[], scenario: "giant-room", variant: Some(SWEEP[index].1), repeats: 3 }
}

/// Strategies that exist to show a mistake: one scenario is enough to show it.
pub const COUNTER_EXAMPLES: &[&str] = &[SHARED_GROUP];

/// The counter-example of claim 1.
pub(super) const SHARED_GROUP: &str = "kafka-shared-group";
/// Claim 3: two partitions per node, duplicates left in.
pub(super) const NO_REMOVAL: &str = "kafka-broadcast hold=2 deduplicate=false";
/// Claim 3: the same with removal.
pub(super) const REMOVAL: &str = "kafka-broadcast hold=2";
/// Claim 9: a room's messages reach its members through several partitions.
pub(super) const SEVERAL_PARTITIONS: &str = "kafka-broadcast";

const EXPERIMENTS: [Experiment; 11] = [
    plain(SHARED_GROUP, &[], "small-rooms"),
    plain("kafka-broadcast", &["hold=2", "deduplicate=false"], "small-rooms"),
    plain("kafka-broadcast", &["hold=2"], "small-rooms"),
    plain("kafka-keyed", &[], "whiteboard"),
    plain("kafka-broadcast", &[], "whiteboard"),
    step("kafka-keyed", 0),
    step("redis-pubsub", 0),
    step("kafka-keyed", 1),
    step("redis-pubsub", 1),
    step("kafka-keyed", 2),
    step("redis-pubsub", 2),
];

/// The experiments for the claims; verdicts on the other claims come from the comparison itself.
pub fn experiments() -> &'static [Experiment] {
    &EXPERIMENTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_match_what_the_experiments_will_be_called() {
        let labels: Vec<String> =
            EXPERIMENTS.iter().map(|one| crate::campaign::label(one.strategy, one.options)).collect();
        for label in [SHARED_GROUP, NO_REMOVAL, REMOVAL, SEVERAL_PARTITIONS] {
            assert!(labels.iter().any(|have| have == label), "{label} is not among {labels:?}");
        }
    }
}
