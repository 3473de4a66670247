//! Leaving for good, on purpose: what a member is owed then.
//!
//! Nobody can tell somebody who has left that a message was lost, so only what was there in good time before counts. And a
//! server that did not confirm the leave promptly may have been frozen since it last said anything: what was acknowledged
//! after that, by other nodes, it had no chance to deliver.

use super::{Membership, Standing};
use crate::audit::Closing;
use crate::engine::books::Books;
use crate::engine::conductor::EDGE_US;

/// A member has asked to leave; its windows stay open until that is confirmed or its connection ends.
#[derive(Debug)]
pub(super) struct Leaving {
    /// By sender: what had been sent when it asked.
    ends: Box<[u32]>,
    asked_us: u64,
    /// When its connection had last brought something by then.
    heard_us: u64,
    slow: bool,
}

impl Leaving {
    /// Whether a message of a sender had been sent when the member asked.
    pub(super) fn is_owed(&self, sender: u32, sequence: u32) -> bool {
        self.ends.get(sender as usize).is_some_and(|end| sequence < *end)
    }

    /// How its windows end at `now_us`.
    fn closing(&self, now_us: u64) -> Closing {
        let prompt = now_us <= self.asked_us + EDGE_US;
        match self.slow {
            true => Closing::Shed,
            false if prompt => Closing::Cut { at_us: self.asked_us },
            false => Closing::Cut { at_us: self.asked_us.min(self.heard_us) },
        }
    }
}

impl Membership {
    /// The member asks to leave.
    pub(super) fn start_to_leave(&mut self, slow: bool, now_us: u64, heard_us: u64, books: &mut Books<'_>) {
        let ends = books.suspended(self.room, slow);
        self.leaving = Some(Box::new(Leaving { ends, asked_us: now_us, heard_us, slow }));
        self.standing = Standing::Leaving;
        self.position = None;
    }

    /// The leave was confirmed, or the connection ended.
    pub(super) fn left(&mut self, now_us: u64, books: &mut Books<'_>) {
        if let Some(leaving) = self.leaving.take() {
            books.ended(self.room, self.windows, &leaving.ends, leaving.closing(now_us));
        }
        self.end();
    }
}
