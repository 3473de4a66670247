//! What faults do to answers of history.

use std::fmt;
use std::sync::Arc;

use super::{Fault, FaultyEntrance};
use crate::backplane::{Backplane, BoxFuture, History, Message, Page, PageQuery, Position, Resumed, RoomId};
use crate::error::{Error, ErrorKind, Result};

/// The history of a misbehaving backplane.
pub(super) struct FaultyHistory {
    pub(super) fault: Fault,
    pub(super) inner: Arc<dyn Backplane>,
    pub(super) entrance: Arc<FaultyEntrance>,
}

impl FaultyHistory {
    fn inner(&self) -> Result<&dyn History> {
        let none = || Error::new(ErrorKind::Config, "history", "the wrapped strategy keeps none");
        self.inner.history().ok_or_else(none)
    }

    /// Where to begin instead of at `since`.
    fn since(&self, since: Position) -> Position {
        match self.fault {
            Fault::InclusiveHistory => Position { offset: since.offset.saturating_sub(1), ..since },
            _ => since,
        }
    }

    fn limit(&self, limit: usize) -> usize {
        if self.fault == Fault::BoundlessHistory { usize::MAX } else { limit }
    }
}

/// What becomes of the messages of an answer.
fn spoil(fault: Fault, entrance: &FaultyEntrance, messages: &mut Vec<Message>) {
    match fault {
        Fault::ForgetHistory if !messages.is_empty() => {
            messages.remove(messages.len() / 2);
        }
        Fault::RepeatHistory => messages.extend(messages.first().cloned()),
        Fault::SwapHistory if messages.len() > 1 => messages.swap(0, 1),
        Fault::StaleHistory => drop(messages.pop()),
        Fault::OwnHistory => {
            let state = entrance.state.lock();
            messages.retain(|message| state.delivered.contains(&message.envelope.id));
        }
        _ => {}
    }
}

impl History for FaultyHistory {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        let (fault, entrance) = (self.fault, Arc::clone(&self.entrance));
        let answer = self.inner().map(|inner| inner.resume(room, self.since(since), self.limit(limit)));
        Box::pin(async move {
            Ok(match answer?.await? {
                Resumed::Complete { mut messages, top } => {
                    spoil(fault, &entrance, &mut messages);
                    Resumed::Complete { messages, top }
                }
                Resumed::Incomplete { top } if fault == Fault::BoastfulHistory => {
                    Resumed::Complete { messages: Vec::new(), top }
                }
                incomplete @ Resumed::Incomplete { .. } => incomplete,
            })
        })
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        let (fault, entrance) = (self.fault, Arc::clone(&self.entrance));
        let query = PageQuery {
            since: query.since.map(|since| self.since(since)),
            limit: self.limit(query.limit),
            reverse: query.reverse && fault != Fault::OneWayHistory,
        };
        let answer = self.inner().map(|inner| inner.page(room, query));
        Box::pin(async move {
            let mut page = answer?.await?;
            spoil(fault, &entrance, &mut page.messages);
            match fault {
                Fault::BoastfulHistory => page.foreign = false,
                Fault::ToplessHistory => page.top = Position::default(),
                _ => {}
            }
            Ok(page)
        })
    }

    fn remove(&self, room: &RoomId) -> Option<BoxFuture<'static, Result<()>>> {
        if self.fault == Fault::KeptHistory {
            return Some(Box::pin(std::future::ready(Ok(()))));
        }
        self.inner().ok()?.remove(room)
    }
}

impl fmt::Debug for FaultyHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyHistory").field("fault", &self.fault).finish_non_exhaustive()
    }
}
