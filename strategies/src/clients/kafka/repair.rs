//! Reading on where the log no longer holds the next offset: retention overtook the reader, or the log became shorter.
//! Shared by every strategy that reads partitions at offsets of its own.

use super::cluster::Cluster;
use crate::error::Result;

/// How far a partition was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTo {
    /// The partition.
    pub partition: i32,
    /// The offset that would be read next.
    pub next: i64,
    /// The broker's time of the newest record read, in ms since the Unix epoch, if any was.
    pub newest_ms: Option<i64>,
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The partition.
    pub partition: i32,
    /// The offset to be read next.
    pub offset: i64,
    /// Offsets count anew: the log is shorter than what was read of it.
    pub renumbered: bool,
}

/// What a log that holds offsets `start..end` means for a reader.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Reading goes on at this offset, perhaps behind what retention took.
    At(i64),
    /// The log became shorter: it was truncated, or created anew.
    Shorter,
}

fn compare(next: i64, start: i64, end: i64) -> Found {
    if next > end { Found::Shorter } else { Found::At(next.max(start)) }
}

impl Cluster {
    /// Where each partition can be read on. A log that became shorter is read from the first record that is not older than
    /// the newest one read (from its end, if none was): what was delivered already is the caller's to recognise.
    ///
    /// # Errors
    /// As [`ends_blocking`](Self::ends_blocking).
    pub fn resume_blocking(&self, topic: &str, read: &[ReadTo]) -> Result<Vec<Resume>> {
        let partitions: Vec<i32> = read.iter().map(|read| read.partition).collect();
        let starts = self.starts_blocking(topic, &partitions)?;
        let ends = self.ends_blocking(topic, &partitions)?;
        let of = |offsets: &[(i32, i64)], partition| {
            offsets.iter().find(|(of, _)| *of == partition).map(|&(_, offset)| offset)
        };
        let mut resumes = Vec::with_capacity(read.len());
        for &ReadTo { partition, next, newest_ms } in read {
            // Both have answered for every partition, or failed.
            let (start, end) = (of(&starts, partition).unwrap_or(next), of(&ends, partition).unwrap_or(next));
            resumes.push(match (compare(next, start, end), newest_ms) {
                (Found::At(offset), _) => Resume { partition, offset, renumbered: false },
                (Found::Shorter, None) => Resume { partition, offset: end, renumbered: true },
                (Found::Shorter, Some(time)) => {
                    let found = self.at_times_blocking(topic, &[(partition, time)])?;
                    Resume { partition, offset: of(&found, partition).unwrap_or(end), renumbered: true }
                }
            });
        }
        for Resume { partition, .. } in resumes.iter().filter(|resume| resume.renumbered) {
            tracing::error!(partition, "the log became shorter: was the topic created anew or truncated?");
        }
        Ok(resumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_may_have_lost_its_start_or_its_end() {
        assert_eq!(compare(5, 0, 9), Found::At(5));
        assert_eq!(compare(9, 0, 9), Found::At(9));
        assert_eq!(compare(5, 7, 9), Found::At(7));
        assert_eq!(compare(5, 0, 4), Found::Shorter);
        assert_eq!(compare(5, 0, 0), Found::Shorter);
    }
}
