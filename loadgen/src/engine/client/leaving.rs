//! Leaving for good, on purpose: what a member is owed then.
//!
//! Nobody can tell somebody who has left that a message was lost, so only what was there in good time before counts. And a
//! server may have been frozen since it last said anything, or until a moment ago, however promptly it confirms the leave: what
//! was acknowledged meanwhile, by other nodes, it had no chance to deliver.

use super::{Membership, Standing};
use crate::audit::Closing;
use crate::engine::books::Books;

/// A member has asked to leave; its windows stay open until that is confirmed or its connection ends.
#[derive(Debug)]
pub(super) struct Leaving {
    /// By sender: what had been sent when it asked.
    ends: Box<[u32]>,
    /// Until when its server had the chance to deliver by then.
    spoke_us: u64,
    slow: bool,
}

impl Leaving {
    /// Whether a message of a sender had been sent when the member asked.
    pub(super) fn is_owed(&self, sender: u32, sequence: u32) -> bool {
        self.ends.get(sender as usize).is_some_and(|end| sequence < *end)
    }

    /// How its windows end.
    fn closing(&self) -> Closing {
        if self.slow { Closing::Shed } else { Closing::Cut { at_us: self.spoke_us } }
    }
}

impl Membership {
    /// The member asks to leave a server that had the chance to deliver until `spoke_us`.
    pub(super) fn start_to_leave(&mut self, slow: bool, spoke_us: u64, books: &mut Books<'_>) {
        let ends = books.suspended(self.room, slow);
        self.leaving = Some(Box::new(Leaving { ends, spoke_us, slow }));
        self.standing = Standing::Leaving;
        self.position = None;
    }

    /// The leave was confirmed, or the connection ended.
    pub(super) fn left(&mut self, books: &mut Books<'_>) {
        if let Some(leaving) = self.leaving.take() {
            books.ended(self.room, self.windows, &leaving.ends, leaving.closing());
        }
        self.end();
    }
}
