//! What the numbers have brought so far.

use anyhow::Result;

use super::counts::Counted;
use super::record::{FrameShape, Row, Window};
use super::rig::{Rig, Taken};
use super::subject::Subject;
use crate::campaign::is_cancelled;
use crate::record::Broker;
use crate::scenario::Scenario;

/// Lines, windows and notes, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    pub(super) windows: Vec<Window>,
    pub(super) frames: Vec<FrameShape>,
    pub(super) counted: Vec<Counted>,
    pub(super) brokers: Vec<Broker>,
    pub(super) notes: Vec<String>,
}

impl Found {
    /// Something that whoever reads the table must know.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Takes what an attempt brought; a failure becomes a note, unless the person wants to stop.
    pub(super) fn or_note<T>(&mut self, what: &str, attempt: Result<T>) -> Result<Option<T>> {
        match attempt {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_cancelled(&error) => Err(error),
            Err(error) => {
                self.note(format!("{what}: {error:#}"));
                Ok(None)
            }
        }
    }

    /// Adds those of a number's lines that nothing was found for: a target without its line would pass for one that is met.
    pub(super) fn complete(&mut self, lines: Vec<Row>) {
        for line in lines {
            let is_known = self.rows.iter().any(|row| (row.number, &row.what) == (line.number, &line.what));
            if !is_known {
                self.rows.push(line);
            }
        }
    }

    /// Makes a window and keeps it. One that fails, or may not be used, is noted.
    pub(super) fn window(
        &mut self,
        rig: &Rig,
        subject: &Subject,
        scenario: &Scenario,
        block: u32,
    ) -> Result<Option<Taken>> {
        let what = format!("block {block}, {}, {}", scenario.name, subject.name);
        rig.progress.note(&what);
        let taken = self.or_note(&what, rig.window(subject, scenario, block))?;
        Ok(taken.map(|taken| self.keep(&what, taken)))
    }

    /// Keeps a window that was made elsewhere.
    pub(super) fn keep(&mut self, what: &str, taken: Taken) -> Taken {
        if !taken.window.is_usable() {
            let audit = &taken.measured.audit;
            self.note(format!(
                "{what}: left out; {:.1} % of the load was sent, the slowest hundredth {:.1} ms late; {} lost, {} doubled, \
                 {} reordered",
                taken.window.offered_share * 100.0,
                taken.window.send_lag_us_p99.unwrap_or(0) as f64 / 1e3,
                audit.lost(),
                audit.duplicates,
                audit.reordered
            ));
        }
        self.windows.push(taken.window.clone());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Target;
    use super::*;
    use crate::engine::RunError;

    #[test]
    fn failures_become_notes_once_and_a_wish_to_stop_does_not() {
        let mut found = Found::default();
        for _ in 0..2 {
            let failed: Result<u32> = Err(anyhow::anyhow!("no server"));
            assert_eq!(found.or_note("small", failed).unwrap(), None);
        }
        assert_eq!(found.notes, ["small: no server"]);
        assert_eq!(found.or_note("small", Ok(1)).unwrap(), Some(1));
        let line = |what: &str, ours| Row::plain(4, what, "KiB", Target::AtMost(4.0), ours);
        found.rows.push(line("idle", vec![2.0]));
        found.complete(vec![line("idle", Vec::new()), line("after traffic", Vec::new())]);
        assert_eq!(found.rows, [line("idle", vec![2.0]), line("after traffic", Vec::new())]);
        let stopped: Result<u32> = Err(RunError::Cancelled.into());
        assert!(found.or_note("small", stopped).is_err());
    }
}
