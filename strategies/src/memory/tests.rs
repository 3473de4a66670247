//! What a room keeps, and for how long. Time itself is tested where the rings are.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::{Memory, Settings};
use crate::backplane::{
    Backplane, BoxFuture, Entrance, Envelope, Event, History, MessageId, Page, PageQuery, Position, Resumed,
    RoomId,
};
use crate::error::Result;

#[derive(Default)]
struct Inbox(Mutex<Vec<Event>>);

impl Entrance for Inbox {
    fn deliver(&self, batch: &mut Vec<Event>) {
        self.0.lock().append(batch);
    }
}

fn memory(settings: &str) -> (Memory, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let settings = Settings::parse(&settings.parse().unwrap()).unwrap();
    (Memory::start(Arc::clone(&inbox) as Arc<_>, settings).unwrap(), inbox)
}

/// What a call of memory answers, which is always at once.
fn now<T>(answer: BoxFuture<'static, Result<T>>) -> T {
    answer.now_or_never().expect("memory answers at once").unwrap()
}

fn envelope(room: &str, id: u128, payload_bytes: usize) -> Envelope {
    Envelope {
        room: RoomId::new(room),
        id: MessageId(id),
        published_at_us: 0,
        info: Bytes::new(),
        payload: vec![b'x'; payload_bytes].into(),
    }
}

fn everything(memory: &Memory, room: &str) -> Page {
    let query = PageQuery { since: None, limit: usize::MAX, reverse: false };
    now(memory.history().expect("there is history").page(&RoomId::new(room), query))
}

fn resumed(memory: &Memory, room: &str, since: Position) -> Resumed {
    now(memory.history().expect("there is history").resume(&RoomId::new(room), since, 300))
}

#[test]
fn a_room_goes_on_after_its_last_member() {
    let (memory, inbox) = memory("");
    let room = RoomId::new("r");
    let at_join = now(memory.join(&room));
    assert!(at_join.epoch > 0 && at_join.offset == 0);
    let first = now(memory.publish(envelope("r", 1, 1)));
    now(memory.leave(&room));
    let second = now(memory.publish(envelope("r", 2, 1)));
    assert_eq!((first.offset, second.offset), (1, 2));
    assert_eq!(inbox.0.lock().len(), 1, "nobody was there to hear the second");
    match resumed(&memory, "r", first) {
        Resumed::Complete { messages, top } => {
            assert_eq!((messages.len(), messages[0].position, top), (1, second, second));
        }
        other @ Resumed::Incomplete { .. } => panic!("{other:?}"),
    }
    assert_eq!(now(memory.join(&room)), second, "the same epoch");
    assert_eq!(resumed(&memory, "r", second), Resumed::Complete { messages: Vec::new(), top: second });
}

#[test]
fn a_retry_gets_the_first_position() {
    let (memory, _) = memory("");
    let first = now(memory.publish(envelope("r", 1, 1)));
    now(memory.publish(envelope("r", 2, 1)));
    assert_eq!(now(memory.publish(envelope("r", 1, 1))), first);
    assert_eq!(everything(&memory, "r").messages.len(), 2);
}

#[test]
fn a_room_that_is_forgotten_starts_a_new_epoch() {
    let (memory, _) = memory("history_bytes_max = 4194304");
    let first = now(memory.publish(envelope("0", 0, 30_000)));
    let member = RoomId::new("member");
    let joined = now(memory.join(&member));
    for i in 1..200u32 {
        now(memory.publish(envelope(&i.to_string(), i.into(), 30_000)));
    }
    let forgotten = everything(&memory, "0");
    assert!(forgotten.messages.is_empty() && forgotten.top.epoch != first.epoch);
    assert!(matches!(resumed(&memory, "0", first), Resumed::Incomplete { .. }));
    assert_eq!(everything(&memory, "199").messages.len(), 1);
    assert_eq!(now(memory.join(&member)), joined, "a room with members stays");
}

#[test]
fn removed_history_leaves_the_numbering() {
    let (memory, _) = memory("");
    let first = now(memory.publish(envelope("r", 1, 1)));
    let second = now(memory.publish(envelope("r", 2, 1)));
    now(memory.remove(&RoomId::new("r")).expect("memory can"));
    let page = everything(&memory, "r");
    assert_eq!((page.messages.len(), page.top), (0, second));
    assert_eq!(resumed(&memory, "r", first), Resumed::Incomplete { top: second });
    assert_eq!(resumed(&memory, "r", second), Resumed::Complete { messages: Vec::new(), top: second });
}

#[test]
fn without_history_an_empty_room_keeps_nothing() {
    let (memory, inbox) = memory("history_messages = 0");
    assert!(memory.history().is_none());
    let room = RoomId::new("r");
    assert_eq!(now(memory.publish(envelope("r", 1, 1))), Position::default());
    let before = now(memory.join(&room));
    assert_eq!(now(memory.publish(envelope("r", 2, 1))), Position { offset: 1, ..before });
    now(memory.leave(&room));
    assert_ne!(now(memory.join(&room)).epoch, before.epoch);
    assert_eq!(inbox.0.lock().len(), 1);
}
