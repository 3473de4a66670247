//! Which partitions a node should read in `demand` mode. Pure: time and effects are the keeper's.

use std::time::{Duration, Instant};

/// When to take all partitions, when to go back, and how long to keep an unneeded one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    pub(super) linger: Duration,
    pub(super) all_above: f64,
    pub(super) all_below: f64,
}

/// Rooms and assignment by partition.
#[derive(Debug)]
pub(super) struct Plan {
    thresholds: Thresholds,
    partitions: Vec<Partition>,
    all: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    rooms: u32,
    assigned: bool,
    /// When the last room left, while the linger lasts.
    idle_since: Option<Instant>,
}

impl Partition {
    fn needed(&self) -> bool {
        self.rooms > 0 || self.idle_since.is_some()
    }
}

impl Plan {
    pub(super) fn new(partitions: usize, thresholds: Thresholds) -> Self {
        Self { thresholds, partitions: vec![Partition::default(); partitions], all: false }
    }

    /// Counts a room; true if its partition is being read already.
    pub(super) fn join(&mut self, partition: i32) -> bool {
        let Some(cell) = self.cell(partition) else { return false };
        cell.rooms += 1;
        cell.idle_since = None;
        cell.assigned
    }

    /// Discounts a room.
    pub(super) fn leave(&mut self, partition: i32, now: Instant) {
        let Some(cell) = self.cell(partition) else { return };
        cell.rooms = cell.rooms.saturating_sub(1);
        if cell.rooms == 0 {
            cell.idle_since = Some(now);
        }
    }

    /// Lets time pass and settles the mode.
    pub(super) fn tick(&mut self, now: Instant) {
        let linger = self.thresholds.linger;
        for cell in &mut self.partitions {
            if cell.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= linger) {
                cell.idle_since = None;
            }
        }
        let needed = self.partitions.iter().filter(|cell| cell.needed()).count();
        let part = needed as f64 / self.partitions.len().max(1) as f64;
        if part > self.thresholds.all_above {
            self.all = true;
        } else if part < self.thresholds.all_below {
            self.all = false;
        }
    }

    /// Whether the node reads everything, because most of it is needed anyway.
    pub(super) fn all(&self) -> bool {
        self.all
    }

    /// Partitions to begin reading.
    pub(super) fn missing(&self) -> Vec<i32> {
        self.select(|cell, all| !cell.assigned && (all || cell.needed()))
    }

    /// Partitions to stop reading.
    pub(super) fn superfluous(&self) -> Vec<i32> {
        self.select(|cell, all| cell.assigned && !all && !cell.needed())
    }

    /// Takes note of what is read now.
    pub(super) fn set_assigned(&mut self, partitions: &[i32], assigned: bool) {
        for &partition in partitions {
            if let Some(cell) = self.cell(partition) {
                cell.assigned = assigned;
            }
        }
    }

    /// Partitions that are read now.
    pub(super) fn assigned(&self) -> Vec<i32> {
        self.select(|cell, _| cell.assigned)
    }

    /// When the next linger ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let oldest = self.partitions.iter().filter_map(|cell| cell.idle_since).min();
        oldest.map(|since| since + self.thresholds.linger)
    }

    fn select(&self, choose: impl Fn(&Partition, bool) -> bool) -> Vec<i32> {
        (0_i32..)
            .zip(&self.partitions)
            .filter(|(_, cell)| choose(cell, self.all))
            .map(|(partition, _)| partition)
            .collect()
    }

    fn cell(&mut self, partition: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(partition).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(10);

    fn plan(partitions: usize) -> Plan {
        Plan::new(partitions, Thresholds { linger: LINGER, all_above: 0.6, all_below: 0.4 })
    }

    /// Does what the plan says.
    fn settle(plan: &mut Plan, now: Instant) -> Vec<i32> {
        plan.tick(now);
        let (missing, superfluous) = (plan.missing(), plan.superfluous());
        plan.set_assigned(&missing, true);
        plan.set_assigned(&superfluous, false);
        plan.assigned()
    }

    #[test]
    fn partitions_follow_rooms_and_linger() {
        let (mut plan, start) = (plan(10), Instant::now());
        assert!(!plan.join(3));
        assert_eq!(settle(&mut plan, start), [3]);
        assert!(plan.join(3));
        plan.leave(3, start);
        assert_eq!(plan.deadline(), None, "one room is left");
        plan.leave(3, start);
        assert_eq!(plan.deadline(), Some(start + LINGER));
        assert_eq!(settle(&mut plan, start + LINGER / 2), [3]);
        assert_eq!(settle(&mut plan, start + LINGER), [0_i32; 0]);
        assert_eq!(plan.deadline(), None);
    }

    #[test]
    fn a_room_that_comes_back_in_time_keeps_its_partition() {
        let (mut plan, start) = (plan(10), Instant::now());
        plan.join(3);
        settle(&mut plan, start);
        plan.leave(3, start);
        assert!(plan.join(3), "still read");
        assert_eq!(settle(&mut plan, start + 2 * LINGER), [3]);
    }

    #[test]
    fn most_needed_means_all_with_hysteresis() {
        let (mut plan, start) = (plan(10), Instant::now());
        for partition in 0..6 {
            plan.join(partition);
        }
        assert_eq!(settle(&mut plan, start).len(), 6, "0.6 is not above 0.6");
        plan.join(6);
        assert_eq!(settle(&mut plan, start).len(), 10);
        for partition in 4..7 {
            plan.leave(partition, start);
        }
        assert_eq!(settle(&mut plan, start + LINGER).len(), 10, "0.4 is not below 0.4");
        plan.leave(3, start + LINGER);
        assert_eq!(settle(&mut plan, start + 2 * LINGER), [0, 1, 2]);
    }
}
