//! The history of the test bus: what was published, unless the test says otherwise.

use std::fmt;
use std::sync::Arc;

use manifold_strategies::{BoxFuture, History, Message, Page, PageQuery, Position, Result, Resumed, RoomId};

use crate::test_backplane::{Bus, EPOCH};

/// A node's way to the bus's history.
pub(crate) struct TestHistory {
    pub(crate) bus: Arc<Bus>,
}

impl Bus {
    pub(crate) fn top(&self, room: &RoomId) -> Position {
        Position { epoch: EPOCH, offset: self.position(room.as_str()) }
    }

    /// Where a room stands, and what was kept of it by then.
    fn moment(&self, room: &RoomId) -> (Position, Vec<Message>) {
        // Publishing holds this lock from the one to the other.
        let offsets = self.offsets.lock().unwrap();
        let top = Position { epoch: EPOCH, offset: offsets.get(room).copied().unwrap_or(0) };
        (top, self.kept(room.as_str()))
    }

    fn resumed(&self, room: &RoomId, since: Position, limit: usize) -> Resumed {
        let (top, mut messages) = self.moment(room);
        messages.retain(|message| message.position.offset > since.offset);
        let whole = !self.is_dense() || since.offset + messages.len() as u64 == top.offset;
        if since.epoch == top.epoch && whole && messages.len() <= limit {
            Resumed::Complete { messages, top }
        } else {
            Resumed::Incomplete { top }
        }
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> Page {
        let PageQuery { since, limit, reverse } = query;
        let (top, mut messages) = self.moment(room);
        if since.is_some_and(|since| since.epoch != top.epoch) {
            return Page { messages: Vec::new(), top, foreign: true };
        }
        if reverse {
            messages.reverse();
        }
        messages.retain(|message| match since {
            None => true,
            Some(since) if reverse => message.position.offset < since.offset,
            Some(since) => message.position.offset > since.offset,
        });
        messages.truncate(limit);
        Page { messages, top, foreign: false }
    }
}

impl History for TestHistory {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        let (bus, room) = (Arc::clone(&self.bus), room.clone());
        bus.note("resume", &room);
        Box::pin(async move {
            let _ = bus.history_open.subscribe().wait_for(|open| *open).await;
            let answer = bus.answers.lock().unwrap().pop_front();
            answer.unwrap_or_else(|| Ok(bus.resumed(&room, since, limit)))
        })
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        let (bus, room) = (Arc::clone(&self.bus), room.clone());
        Box::pin(async move {
            let _ = bus.history_open.subscribe().wait_for(|open| *open).await;
            let unaware = bus.history_unaware.load(std::sync::atomic::Ordering::SeqCst);
            Ok(if unaware { Page::default() } else { bus.page(&room, query) })
        })
    }
}

impl fmt::Debug for TestHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestHistory")
    }
}
