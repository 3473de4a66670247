//! A reader that stands still, or is thought to: whether the log has what comes next.

use super::{Reading, STEP_TIMEOUT, Turn, late};
use crate::error::Result;

/// What a log that holds offsets `start..end` means for a reader that wants `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Held,
    /// Retention took it.
    Trimmed,
    /// The log became shorter.
    Beyond,
}

fn compare(next: i64, start: i64, end: i64) -> Place {
    if next > end {
        Place::Beyond
    } else if next < start {
        Place::Trimmed
    } else {
        Place::Held
    }
}

impl Reading {
    /// Reads on where the reader stands, or from where the log begins; `None` if this is another log than before, or nobody
    /// knows.
    pub(super) async fn read_on(&mut self) -> Result<Option<Turn>> {
        let mark = self.copies.mark();
        let before = self.places.nexts(&self.assigned);
        if mark.is_none() || before.is_empty() || before.len() < self.assigned.len() {
            return Ok(None);
        }
        let same = tokio::time::timeout(STEP_TIMEOUT, self.incarnations.is_still(mark));
        if !same.await.unwrap_or_else(|_| Err(late()))? {
            return Ok(None);
        }
        let (topic, partitions) = (self.topic.clone(), self.assigned.clone());
        let bounds = self.ask(move |cluster| {
            let starts = cluster.starts_blocking(&topic, &partitions)?;
            Ok((starts, cluster.ends_blocking(&topic, &partitions)?))
        });
        let (starts, ends) = bounds.await?;
        let of = |offsets: &[(i32, i64)], partition| {
            // Both have answered for every partition, or failed.
            offsets.iter().find(|(of, _)| *of == partition).map_or(0, |&(_, offset)| offset)
        };
        let place = |&(partition, next)| compare(next, of(&starts, partition), of(&ends, partition));
        let places: Vec<Place> = before.iter().map(place).collect();
        let trimmed = places.contains(&Place::Trimmed);
        if places.contains(&Place::Beyond) || (trimmed && self.detour.is_some()) {
            return Ok(None);
        }
        // It may have gone on meanwhile.
        let mut offsets = self.places.nexts(&self.assigned);
        for (partition, next) in &mut offsets {
            let start = of(&starts, *partition);
            if *next < start {
                *next = start;
                self.copies.reads_from(self.places.skip_to(*partition, start), start);
            }
        }
        self.consumer.read_anew_blocking(&self.topic, &offsets)?;
        Ok(Some(match trimmed {
            true => Turn::Lost("the log no longer held what this node was to read next"),
            // Whatever else there is to do is done in the next turn.
            false => Turn::Again,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_held_unless_the_log_lost_it() {
        assert_eq!(compare(5, 0, 9), Place::Held);
        assert_eq!(compare(9, 9, 9), Place::Held);
        assert_eq!(compare(5, 7, 9), Place::Trimmed);
        assert_eq!(compare(5, 0, 4), Place::Beyond);
    }
}
