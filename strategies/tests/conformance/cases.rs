//! The cases: each takes a cluster and says what is wrong with it, or nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use manifold_strategies::Guarantees;
use manifold_strategies::guarantees::ReplayKind;

use crate::cluster::Cluster;
use crate::{delivery, history, lifecycle, membership, order};

type Outcome = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One thing that a strategy must do.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Whether it applies to a strategy with these guarantees that needs a broker or not.
    pub applies: fn(&Guarantees, needs_broker: bool) -> bool,
    pub run: fn(Arc<Cluster>) -> Outcome,
}

macro_rules! case {
    ($module:ident :: $function:ident, $applies:expr) => {
        Case {
            name: stringify!($function),
            applies: $applies,
            run: |cluster| Box::pin($module::$function(cluster)),
        }
    };
}

/// What is read back can only be whole where rooms are.
fn replays(guarantees: &Guarantees) -> bool {
    guarantees.whole_rooms && guarantees.replay != ReplayKind::None
}

/// Every case.
pub static CASES: &[Case] = &[
    case!(delivery::reaches_all_members_and_only_them, |g, _| g.whole_rooms),
    case!(delivery::reaches_each_member_exactly_once, |g, _| g.whole_rooms),
    case!(delivery::carries_every_kind_of_room_and_payload, |g, _| g.whole_rooms),
    case!(delivery::serves_two_hundred_rooms_at_once, |g, _| g.whole_rooms),
    case!(delivery::a_retry_is_idempotent, |g, _| g.whole_rooms && g.idempotent_retry),
    case!(delivery::refuses_what_is_too_large, |_, _| true),
    case!(delivery::a_room_is_fragmented, |g, _| !g.whole_rooms),
    case!(order::keeps_each_publishers_order, |g, _| g.whole_rooms),
    case!(order::shows_all_members_one_order, |g, _| { g.whole_rooms && g.ordering.is_per_room() }),
    case!(order::positions_are_what_was_declared, |g, _| g.whole_rooms),
    case!(order::a_retry_leaves_positions_as_declared, |g, _| g.whole_rooms && g.idempotent_retry),
    case!(history::resumes_with_all_that_was_missed, |g, _| replays(g)),
    case!(history::resumes_on_another_node, |g, _| replays(g)),
    case!(history::a_resume_races_with_publishing, |g, _| replays(g)),
    case!(history::a_node_that_has_just_started_answers, |g, _| replays(g)),
    case!(history::too_much_is_incomplete, |g, _| replays(g)),
    case!(history::a_part_is_never_passed_off_as_all, |g, _| replays(g)),
    case!(history::a_position_that_never_was_is_incomplete, |g, _| replays(g)),
    case!(history::pages_are_as_asked, |g, _| replays(g)),
    case!(history::a_room_that_nobody_is_in_has_history, |g, _| replays(g)),
    case!(history::a_retry_is_kept_once, |g, _| replays(g) && g.idempotent_retry),
    case!(history::removed_history_is_gone, |g, _| replays(g)),
    case!(membership::a_join_is_effective, |g, _| g.whole_rooms),
    case!(membership::a_leave_ends_delivery, |g, _| g.whole_rooms),
    case!(membership::grows_from_one_to_four_nodes, |g, _| g.whole_rooms && g.spans_nodes),
    case!(lifecycle::shutdown_flushes_and_closes, |g, _| g.whole_rooms),
    case!(lifecycle::a_node_that_leaves_does_not_disturb, |g, _| g.whole_rooms && g.spans_nodes),
    case!(lifecycle::an_absent_broker_is_refused, |_, needs_broker| needs_broker),
    case!(lifecycle::an_absent_broker_is_retried, |_, needs_broker| needs_broker),
    case!(lifecycle::unknown_settings_are_refused, |_, _| true),
];
