//! Reading what a room carried, for clients that come back, for those who ask for history, and for the server API.

mod missed;

use std::sync::Arc;
use std::time::Duration;

use manifold_protocol::{ClientInfo, ErrorCode, HistoryRequest, HistoryResult, Json, Publication};
use manifold_strategies::{
    Error, ErrorKind, History, Message, Page, PageQuery, Position, Result as BackplaneResult, RoomId,
};

use crate::connection::reply_code;
use crate::epoch;
use crate::node::Node;

pub(crate) use missed::{Missed, Reads, read_missed};

/// A position as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Since {
    pub(crate) offset: u64,
    /// Empty: whatever epoch the room is in.
    pub(crate) epoch: Box<str>,
}

/// What to read, as clients ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryQuery {
    /// 0: only where the room stands; negative: as many as there may be.
    pub(crate) limit: i32,
    /// Exclusive, in either direction.
    pub(crate) since: Option<Since>,
    /// Newest first.
    pub(crate) reverse: bool,
}

impl From<&HistoryRequest<'_>> for HistoryQuery {
    fn from(request: &HistoryRequest<'_>) -> Self {
        let since = request.since.as_ref();
        let since = since.map(|since| Since { offset: since.offset, epoch: Box::from(&*since.epoch) });
        Self { limit: request.limit, since, reverse: request.reverse }
    }
}

impl Since {
    /// The position in the room's numbering. `None`: no server of ours ever named this epoch.
    async fn position(&self, history: &dyn History, room: &RoomId) -> BackplaneResult<Option<Position>> {
        let at = |epoch, offset| Some(Position { epoch, offset });
        if self.epoch.is_empty() {
            return Ok(at(top(history, room).await?.epoch, self.offset));
        }
        Ok(match epoch::read(&self.epoch) {
            Some((epoch, true)) if self.offset == epoch::OFFSET_AT_ZERO => at(epoch, 0),
            Some((epoch, _)) => at(epoch, self.offset),
            None => None,
        })
    }

    /// Whether the client broke off while it was handed over to another numbering: then nobody knows how far it came.
    fn was_interrupted(&self) -> bool {
        self.offset == 0 && epoch::read(&self.epoch).is_some_and(|(_, handed_over)| handed_over)
    }
}

/// Where a room stands.
async fn top(history: &dyn History, room: &RoomId) -> BackplaneResult<Position> {
    let query = PageQuery { since: None, limit: 0, reverse: false };
    history.page(room, query).await.map(|page| page.top)
}

/// Where a room stands, if the backplane knows.
pub(crate) async fn position(node: &Node, room: &RoomId) -> Option<Position> {
    match top(node.backplane().history()?, room).await {
        Ok(position) => Some(position).filter(|position| *position != Position::default()),
        Err(error) => {
            node.metrics().count_backplane_error(error.kind());
            tracing::debug!(%room, %error, "nobody knows where the room stands");
            None
        }
    }
}

/// Reads a page of a room's history.
///
/// # Errors
/// 108 where nothing is kept, 107 for a query that means nothing, 112 for a position of another epoch, 100 or 111 where the
/// backplane fails or takes too long.
pub(crate) async fn read(node: Arc<Node>, room: RoomId, query: HistoryQuery) -> Result<Page, ErrorCode> {
    let patience = Duration::from_millis(node.config().recovery_timeout_ms);
    let page = tokio::time::timeout(patience, read_page(&node, &room, &query)).await;
    let page = page.unwrap_or_else(|_elapsed| Err(fault(&node, &late("history"))))?;
    node.metrics().count_history_read();
    Ok(page)
}

async fn read_page(node: &Node, room: &RoomId, query: &HistoryQuery) -> Result<Page, ErrorCode> {
    let history = node.backplane().history().ok_or(ErrorCode::NOT_AVAILABLE)?;
    let limit_max = node.config().history_messages_max as usize;
    let limit = usize::try_from(query.limit).map_or(limit_max, |limit| limit.min(limit_max));
    let since = match &query.since {
        None => None,
        Some(Since { offset: 0, .. }) if query.reverse => return Err(ErrorCode::BAD_REQUEST),
        Some(since) => {
            let position = since.position(history, room).await.map_err(|error| fault(node, &error))?;
            Some(position.ok_or(ErrorCode::UNRECOVERABLE_POSITION)?)
        }
    };
    let page = history.page(room, PageQuery { since, limit, reverse: query.reverse }).await;
    let page = page.map_err(|error| fault(node, &error))?;
    if page.foreign { Err(ErrorCode::UNRECOVERABLE_POSITION) } else { Ok(page) }
}

/// Forgets what is kept of a room.
///
/// # Errors
/// 108 where nothing is kept or it cannot be forgotten, 100 or 111 where the backplane fails or takes too long.
pub(crate) async fn remove(node: &Node, room: &RoomId) -> Result<(), ErrorCode> {
    let history = node.backplane().history().ok_or(ErrorCode::NOT_AVAILABLE)?;
    let removal = history.remove(room).ok_or(ErrorCode::NOT_AVAILABLE)?;
    let patience = Duration::from_millis(node.config().recovery_timeout_ms);
    let removed = tokio::time::timeout(patience, removal).await;
    removed.unwrap_or_else(|_elapsed| Err(late("history_remove"))).map_err(|error| fault(node, &error))
}

fn late(operation: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, operation, "no answer within recovery_timeout_ms")
}

/// Takes note of a failure, and says how it is told.
fn fault(node: &Node, error: &Error) -> ErrorCode {
    node.metrics().count_backplane_error(error.kind());
    tracing::debug!(%error, "history cannot be read");
    reply_code(error.kind())
}

/// Messages as clients get them back: with their offsets if they are of `epoch`, in which the client counts. `None`: one of them is
/// not what this server writes.
pub(crate) fn publications(messages: &[Message], epoch: Option<u64>) -> Option<Vec<Publication<'_>>> {
    messages.iter().map(|message| publication(message, epoch)).collect()
}

fn publication(message: &Message, epoch: Option<u64>) -> Option<Publication<'_>> {
    let envelope = &message.envelope;
    let data = std::str::from_utf8(&envelope.payload).ok()?;
    let info = match std::str::from_utf8(&envelope.info).ok()? {
        "" => None,
        text => Some(Json::trusted(text).decode::<ClientInfo<'_>>().ok()?),
    };
    let offset = if epoch == Some(message.position.epoch) { message.position.offset } else { 0 };
    Some(Publication { data: Some(Json::trusted(data)), info, offset, ..Publication::default() })
}

/// A page as the protocol has it. `None`: a message in it is not what this server writes.
pub(crate) fn result(page: &Page) -> Option<HistoryResult<'_>> {
    Some(HistoryResult {
        publications: publications(&page.messages, Some(page.top.epoch))?,
        epoch: epoch::encode(page.top.epoch).into(),
        offset: page.top.offset,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use manifold_strategies::{Envelope, MessageId};

    use super::*;

    fn message(payload: &'static [u8], info: &'static [u8]) -> Message {
        let envelope = Envelope {
            room: RoomId::new("a"),
            id: MessageId(1),
            published_at_us: 0,
            info: Bytes::from_static(info),
            payload: Bytes::from_static(payload),
        };
        Message { envelope, position: Position { epoch: 7, offset: 3 } }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let messages = [message(b"[1e400]", br#"{"user":"","client":"ca06"}"#), message(b"null", b"")];
        let read = publications(&messages, Some(7)).expect("well-formed");
        assert_eq!(read[0].data.map(Json::as_str), Some("[1e400]"));
        assert_eq!(read[0].info.as_ref().map(|info| &*info.client), Some("ca06"));
        assert_eq!((read[1].data, &read[1].info, read[1].offset), (Some(Json::NULL), &None, 3));
        let elsewhere = publications(&messages, None).expect("well-formed");
        assert!(elsewhere.iter().all(|publication| publication.offset == 0));
        assert!(publications(&[message(b"\xff", b"")], None).is_none());
        assert!(publications(&[message(b"1", b"no info")], None).is_none());
    }
}
