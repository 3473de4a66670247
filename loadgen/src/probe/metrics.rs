//! The nodes' own counters, from `/metrics`.

/// Counters of one node that reports need.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Envelopes decoded.
    pub envelopes_received: u64,
    /// Envelopes that some member wanted.
    pub envelopes_wanted: u64,
    /// Publishes passed to the backplane.
    pub publishes: u64,
    /// Records or commands written for them.
    pub broker_writes: u64,
    /// Duplicates removed.
    pub duplicates_removed: u64,
    /// Messages declared lost.
    pub gap_messages: u64,
    /// Messages in the broker that the node hasn't read; `None` where it doesn't know.
    pub lag_messages: Option<u64>,
}

impl Counters {
    /// What was added since an earlier reading of the same node. A node that was restarted in between counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let restarted =
            self.envelopes_received < earlier.envelopes_received || self.publishes < earlier.publishes;
        let earlier = if restarted { &Self::default() } else { earlier };
        Self {
            envelopes_received: self.envelopes_received.saturating_sub(earlier.envelopes_received),
            envelopes_wanted: self.envelopes_wanted.saturating_sub(earlier.envelopes_wanted),
            publishes: self.publishes.saturating_sub(earlier.publishes),
            broker_writes: self.broker_writes.saturating_sub(earlier.broker_writes),
            duplicates_removed: self.duplicates_removed.saturating_sub(earlier.duplicates_removed),
            gap_messages: self.gap_messages.saturating_sub(earlier.gap_messages),
            lag_messages: self.lag_messages,
        }
    }
}

/// Reads the counters from Prometheus text. Unknown lines are skipped; missing counters are zero. `None` where none of
/// them is there: a server that isn't ours.
pub fn parse_metrics(text: &str) -> Option<Counters> {
    let value = |name: &str| {
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let rest = line.strip_prefix("manifold_backplane_")?.strip_prefix(name)?;
            // A longer name that begins alike is another metric; labels may follow this one.
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        })
    };
    let count = |name: &str| value(name).map_or(0, |value| value.max(0.0) as u64);
    value("envelopes_received_total")?;
    Some(Counters {
        envelopes_received: count("envelopes_received_total"),
        envelopes_wanted: count("envelopes_wanted_total"),
        publishes: count("publishes_total"),
        broker_writes: count("broker_writes_total"),
        duplicates_removed: count("duplicates_removed_total"),
        gap_messages: count("gap_messages_total"),
        lag_messages: value("lag_messages").filter(|lag| *lag >= 0.0).map(|lag| lag as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP manifold_backplane_publishes_total x\n\
        manifold_backplane_publishes_total 10\n\
        manifold_backplane_envelopes_received_total{node=\"n1\"} 30\n\
        manifold_backplane_envelopes_wanted_total 20\n\
        manifold_backplane_broker_writes_total 3e1\n\
        manifold_backplane_lag_messages -1\n";

    #[test]
    fn reads_what_is_there() {
        let counters = parse_metrics(TEXT).unwrap();
        assert_eq!(counters.publishes, 10);
        assert_eq!((counters.envelopes_received, counters.broker_writes), (30, 30));
        assert_eq!(counters.lag_messages, None);
        assert_eq!(parse_metrics("other 1\n"), None);
    }

    #[test]
    fn a_restarted_node_counts_from_zero() {
        let before = Counters { envelopes_received: 100, publishes: 50, ..Counters::default() };
        let after = Counters { envelopes_received: 7, publishes: 3, ..Counters::default() };
        assert_eq!(after.since(&before).envelopes_received, 7);
        let after = Counters { envelopes_received: 130, publishes: 60, ..Counters::default() };
        assert_eq!(after.since(&before).publishes, 10);
    }
}
