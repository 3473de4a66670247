//! The claims of the write-ups that this project grows from, each with an experiment and a verdict computed from runs.
//!
//! What lives here: the claims, the rules that judge them, and the experiments that ordinary comparisons don't contain.
//! Strategies are named here because the claims name them; the rest of the load generator knows none.

mod experiments;
mod order;
mod plans;
mod rules;
#[cfg(test)]
mod tests;

pub use experiments::{COUNTER_EXAMPLES, Experiment, Variant, experiments};
pub use rules::{ClaimRow, Judgement, judge_claims};
