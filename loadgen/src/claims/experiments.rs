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

const EXPERIMENTS: [Experiment; 5] = [
    Experiment { strategy: SHARED_GROUP, options: &[], scenario: "small-rooms" },
    Experiment {
        strategy: "kafka-broadcast",
        options: &["hold=2", "deduplicate=false"],
        scenario: "small-rooms",
    },
    Experiment { strategy: "kafka-broadcast", options: &["hold=2"], scenario: "small-rooms" },
    Experiment { strategy: "kafka-keyed", options: &[], scenario: "whiteboard" },
    Experiment { strategy: "kafka-broadcast", options: &[], scenario: "whiteboard" },
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
