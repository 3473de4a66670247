//! What came of members that were away and asked for what they had missed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Recoveries of a run by outcome, and what servers did wrong in them. A recovery is one membership's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recoveries {
    /// The server said that the member had missed nothing or got all of it (`recovered: true`): what was sent while it
    /// was away is expected like everything else.
    pub complete: u64,
    /// The server said that it could not tell what the member had missed: that is a declared loss.
    pub incomplete: u64,
    /// Members that were cut off and not back by the end.
    pub never: u64,
    /// First copies that came with the replies. They count as deliveries; their latency is in a histogram of its own.
    pub publications: u64,
    /// Copies in the replies that the member had already.
    pub repeated: u64,
    /// First copies in the replies that are among the audit's `reordered`.
    pub reordered: u64,
    /// Messages that a server had said it recovered, and that never came (counted as lost silently, too).
    pub forgotten: u64,
}

impl Recoveries {
    /// Those that a server answered.
    pub fn answered(&self) -> u64 {
        self.complete + self.incomplete
    }

    /// Whether what servers said was true: nothing forgotten, nothing twice, all in order.
    pub fn are_true(&self) -> bool {
        self.forgotten == 0 && self.repeated == 0 && self.reordered == 0
    }

    /// Adds another thread's, or another run's.
    pub fn add(&mut self, other: &Self) {
        self.complete += other.complete;
        self.incomplete += other.incomplete;
        self.never += other.never;
        self.publications += other.publications;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.forgotten += other.forgotten;
    }
}
