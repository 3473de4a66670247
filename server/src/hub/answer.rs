//! What history answered to those who come back to a room: the same answer serves all who asked the same at the same time, and
//! what has to be made of it is made once.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use manifold_strategies::{Message, MessageId, Position, Resumed};

/// An answer of history.
#[derive(Debug)]
pub(crate) struct Answer {
    resumed: Resumed,
    /// The messages in it; made when somebody has to know.
    ids: OnceLock<HashSet<MessageId>>,
    /// Those of them that have no position.
    unplaced: Arc<HashSet<MessageId>>,
}

impl Answer {
    pub(crate) fn new(resumed: Resumed) -> Self {
        let unplaced = messages(&resumed).iter().filter(|message| message.position.offset == 0);
        let unplaced = Arc::new(unplaced.map(|message| message.envelope.id).collect());
        Self { resumed, ids: OnceLock::new(), unplaced }
    }

    pub(crate) fn resumed(&self) -> &Resumed {
        &self.resumed
    }

    /// Where the room stands after it.
    pub(crate) fn top(&self) -> Position {
        let (Resumed::Complete { top, .. } | Resumed::Incomplete { top }) = self.resumed;
        top
    }

    pub(super) fn holds(&self, id: MessageId) -> bool {
        let ids = || messages(&self.resumed).iter().map(|message| message.envelope.id).collect();
        self.ids.get_or_init(ids).contains(&id)
    }

    pub(super) fn unplaced(&self) -> &Arc<HashSet<MessageId>> {
        &self.unplaced
    }
}

fn messages(resumed: &Resumed) -> &[Message] {
    match resumed {
        Resumed::Complete { messages, .. } => messages,
        Resumed::Incomplete { .. } => &[],
    }
}
