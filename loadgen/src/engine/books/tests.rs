use super::*;
use crate::engine::plan::Plan;
use crate::scenario::Scenario;

#[test]
fn what_comes_live_behind_a_join_ends_a_silence_though_it_was_sent_before_and_history_and_copies_do_not() {
    let scenario = Scenario::load("redis-restart", &[]).unwrap();
    let plan = Plan::new(&scenario, "", 7, 1).unwrap();
    let run = plan.run;
    let shared = Shared::new(plan, scenario, 7, 1_000_000, Vec::new());
    let mut books = Books::new(&shared, 0);
    let windows = books.ledger.allocate(shared.plan.rooms[0].streams);
    let mut order = OrderTrack::new(0);
    shared.next[0].store(5, Ordering::Release);
    books.opened(0, windows, false);
    let stamp = |sequence| Stamp { run, room: 0, sender: 0, sequence, intended_us: 0, lag_us: 0 };
    books.delivered(&stamp(5), windows, &mut order, false, 1_000_000);
    books.lulls.clear();
    books.recovered(&stamp(2), windows, &mut order, 2_000_000);
    books.delivered(&stamp(5), windows, &mut order, false, 3_000_000);
    assert_eq!(books.lulls, [], "history, then a copy");
    books.delivered(&stamp(4), windows, &mut order, false, 4_000_000);
    assert_eq!(books.lulls, [Lull { room: 0, from_us: 1_000_000, to_us: 4_000_000 }]);
}
