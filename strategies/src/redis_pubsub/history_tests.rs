//! Replies of Redis, and what follows from them.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::clients::redis::resp;
use crate::redis_pubsub::sequence::head;

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn text(bytes: impl AsRef<[u8]>) -> Value {
    Value::Text(Bytes::copy_from_slice(bytes.as_ref()))
}

fn entry(position: Position, body: &str) -> Value {
    let field = vec![text(position.epoch.to_be_bytes()), text(body)];
    Value::Array(vec![text(format!("{}-0", position.offset)), Value::Array(field)])
}

fn reply(top: Position, entries: Vec<Value>) -> Value {
    Value::Array(vec![text(head(top)), Value::Array(entries)])
}

/// What the script answers about a stream that has these offsets of epoch 1, each message named by its offset.
fn answer(top: Position, offsets: impl IntoIterator<Item = u64>) -> Answer {
    let entries = offsets.into_iter().map(|offset| entry(at(1, offset), &offset.to_string())).collect();
    Answer::read(&reply(top, entries)).unwrap()
}

/// A message whose id is the number in its body.
fn read(body: &[u8]) -> Option<Envelope> {
    let id = std::str::from_utf8(body).ok()?.parse().ok()?;
    Some(Envelope {
        room: RoomId::new("room"),
        id: MessageId(id),
        published_at_us: 0,
        info: Bytes::new(),
        payload: Bytes::copy_from_slice(body),
    })
}

fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.position.offset).collect()
}

/// Offsets of a complete answer.
fn complete(resumed: Option<Resumed>) -> Option<Vec<u64>> {
    match resumed {
        Some(Resumed::Complete { messages, .. }) => Some(offsets(&messages)),
        _ => None,
    }
}

fn incomplete(top: Position) -> Option<Resumed> {
    Some(Resumed::Incomplete { top })
}

#[test]
fn a_reply_is_read_as_redis_writes_it() {
    let mut wire = b"*2\r\n$16\r\n\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\r\n".to_vec();
    wire.extend_from_slice(b"*1\r\n*2\r\n$3\r\n3-0\r\n*2\r\n$8\r\n\0\0\0\0\0\0\0\x01\r\n$4\r\nbody\r\n");
    let value = resp::take(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
    let body = Bytes::from_static(b"body");
    let expected = Answer { top: at(1, 3), entries: vec![Entry { position: at(1, 3), body }] };
    assert_eq!(Answer::read(&value).unwrap(), expected);
    assert!(Answer::read(&reply(at(1, 0), Vec::new())).unwrap().entries.is_empty());
}

#[test]
fn other_replies_are_refused() {
    let fields = |fields: Vec<Value>| Value::Array(vec![text("1-0"), Value::Array(fields)]);
    let epoch = || text(1_u64.to_be_bytes());
    for wrong in [
        Value::Null,
        Value::Array(Vec::new()),
        Value::Array(vec![text("short"), Value::Array(Vec::new())]),
        Value::Array(vec![text([0_u8; 24]), Value::Array(Vec::new())]),
        reply(at(1, 1), vec![Value::Integer(1)]),
        reply(at(1, 1), vec![Value::Array(vec![text("1-1"), Value::Array(vec![epoch(), text("")])])]),
        reply(at(1, 1), vec![Value::Array(vec![text("x-0"), Value::Array(vec![epoch(), text("")])])]),
        reply(at(1, 1), vec![fields(vec![text("epoch"), text("")])]),
        reply(at(1, 1), vec![fields(vec![epoch()])]),
    ] {
        assert_eq!(Answer::read(&wrong).unwrap_err().kind(), ErrorKind::Corrupt, "{wrong:?}");
    }
}

#[test]
fn questions_are_what_the_script_takes() {
    let arguments = |question: Question| question.arguments().map(|bytes| String::from_utf8(bytes).unwrap());
    let resuming = Resuming::new(at(0, 7), 300).question();
    let enough = ENOUGH_BYTES.to_string();
    assert_eq!(
        arguments(resuming),
        ["\0\0\0\0\0\0\0\0", "(7-0", "300", enough.as_str(), "XRANGE", "300", "7"]
    );
    let newest = Paging::new(PageQuery { since: None, limit: 5, reverse: true }).question();
    assert_eq!(arguments(newest), ["", "+", "5", enough.as_str(), "XREVRANGE", "", "0"]);
    let before_all = Paging::new(PageQuery { since: Some(at(0, 0)), limit: 5, reverse: true }).question();
    assert_eq!(arguments(before_all)[2], "0", "nothing comes before the first message");
}

#[test]
fn only_what_is_all_there_is_complete() {
    let resume = |since, limit, answer| Resuming::new(since, limit).take(answer, read);
    let since = at(1, 5);
    assert_eq!(complete(resume(since, 3, answer(at(1, 8), [6, 7, 8]))), Some(vec![6, 7, 8]));
    assert_eq!(complete(resume(since, 0, answer(since, []))), Some(Vec::new()), "nothing is missing");
    for (what, top, kept) in [
        ("trimmed", at(1, 8), vec![7, 8]),
        ("expired", at(1, 8), vec![]),
        ("a hole", at(1, 8), vec![6, 8]),
        ("too many", at(1, 9), vec![6, 7, 8]),
        ("went back", at(1, 4), vec![]),
        ("another epoch", at(2, 8), vec![6, 7, 8]),
        ("another epoch, quiet", at(2, 5), vec![]),
        ("more than the head counts", at(1, 7), vec![6, 7, 8]),
    ] {
        assert_eq!(resume(since, 3, answer(top, kept)), incomplete(top), "{what}");
    }
    let left_over = reply(at(2, 6), vec![entry(at(1, 6), "6")]);
    let resumed = resume(at(2, 5), 3, Answer::read(&left_over).unwrap());
    assert_eq!(resumed, incomplete(at(2, 6)), "an entry of an epoch before");
    let unreadable = reply(at(1, 6), vec![entry(at(1, 6), "no number")]);
    assert_eq!(resume(since, 3, Answer::read(&unreadable).unwrap()), incomplete(at(1, 6)));
    let far = at(1, u64::MAX);
    assert_eq!(resume(far, 3, answer(at(1, 8), [])), incomplete(at(1, 8)));
}

#[test]
fn a_resume_in_several_answers_is_one() {
    let mut resuming = Resuming::new(at(1, 0), 6);
    assert_eq!(resuming.take(answer(at(1, 4), [1, 2]), read), None);
    assert_eq!(resuming.question().since, Some(at(1, 2)));
    assert_eq!(resuming.question().limit, 4);
    // Two more were published in between.
    assert_eq!(complete(resuming.take(answer(at(1, 6), [3, 4, 5, 6]), read)), Some(vec![1, 2, 3, 4, 5, 6]));

    let mut resuming = Resuming::new(at(1, 0), 6);
    resuming.take(answer(at(1, 6), [1, 2]), read);
    assert_eq!(
        resuming.take(answer(at(1, 7), [3, 4, 5, 6]), read),
        incomplete(at(1, 7)),
        "more than the limit"
    );

    let mut resuming = Resuming::new(at(1, 0), 6);
    resuming.take(answer(at(1, 6), [1, 2]), read);
    assert_eq!(
        resuming.take(answer(at(1, 6), []), read),
        incomplete(at(1, 6)),
        "the rest was trimmed meanwhile"
    );
}

#[test]
fn a_repeat_is_answered_once() {
    let entries = [(1, "7"), (2, "8"), (3, "7")].map(|(offset, body)| entry(at(1, offset), body));
    let repeated = Answer::read(&reply(at(1, 3), entries.to_vec())).unwrap();
    let resumed = Resuming::new(at(1, 0), 9).take(repeated, read);
    assert!(matches!(&resumed, Some(Resumed::Complete { top, .. }) if top.offset == 3), "{resumed:?}");
    assert_eq!(complete(resumed), Some(vec![1, 2]));
}

#[test]
fn pages_go_both_ways() {
    let query = |since, limit, reverse| Paging::new(PageQuery { since, limit, reverse });
    let page = query(None, 2, false).take(answer(at(1, 9), [5, 6]), read).unwrap();
    assert_eq!((offsets(&page.messages), page.top, page.foreign), (vec![5, 6], at(1, 9), false));
    let page = query(Some(at(1, 9)), 2, true).take(answer(at(1, 9), [8, 7]), read).unwrap();
    assert_eq!(offsets(&page.messages), [8, 7]);
    let page = query(None, 0, false).take(answer(at(1, 9), []), read).unwrap();
    assert_eq!((page.messages.len(), page.top), (0, at(1, 9)), "the top alone");
    let page = query(Some(at(2, 3)), 5, false).take(answer(at(1, 9), []), read).unwrap();
    assert!(page.foreign && page.messages.is_empty() && page.top == at(1, 9));
    let page = query(None, 5, false).take(answer(at(2, 1), [3, 4]), read).unwrap();
    assert!(page.messages.is_empty(), "what is left of another epoch is none of this one's history");
}

#[test]
fn a_page_goes_on_where_a_large_answer_ended() {
    let large = |offsets: &[u64]| {
        let body = "0".repeat(ENOUGH_BYTES / 2);
        let named = |offset: &u64| entry(at(1, *offset), &format!("{offset}{body}"));
        Answer::read(&reply(at(1, 9), offsets.iter().map(named).collect())).unwrap()
    };
    let number = |body: &[u8]| read(&body[..1]);
    let mut paging = Paging::new(PageQuery { since: None, limit: 4, reverse: false });
    assert_eq!(paging.take(large(&[1, 2]), number), None);
    assert_eq!(paging.question().since, Some(at(1, 2)));
    assert_eq!(paging.question().limit, 2);
    let page = paging.take(large(&[3, 4]), number).unwrap();
    assert_eq!(offsets(&page.messages), [1, 2, 3, 4]);

    let mut paging = Paging::new(PageQuery { since: None, limit: 4, reverse: false });
    paging.take(large(&[1, 2]), number);
    let page = paging.take(answer(at(2, 1), []), number).unwrap();
    assert!(page.messages.is_empty() && page.top == at(2, 1), "numbering started anew meanwhile");
}

#[test]
fn what_one_call_collects_is_bounded() {
    let body = vec![b'1'; 1024 * 1024];
    let large = |body: &[u8]| {
        let mut envelope = read(b"1")?;
        envelope.payload = Bytes::copy_from_slice(body);
        Some(envelope)
    };
    let mut resuming = Resuming::new(at(1, 0), 300);
    let mut calls = 0;
    let resumed = loop {
        calls += 1;
        let entry = Entry { position: at(1, resuming.reached + 1), body: body.clone().into() };
        if let Some(resumed) = resuming.take(Answer { top: at(1, 300), entries: vec![entry] }, large) {
            break resumed;
        }
    };
    assert_eq!(resumed, Resumed::Incomplete { top: at(1, 300) });
    assert_eq!(calls, COLLECTED_BYTES_MAX / (1024 * 1024));
}

proptest! {
    /// Against the rule in words: complete if everything from `since` to the top is there and fits, however it is cut.
    #[test]
    fn complete_means_that_nothing_is_missing(
        top in 0_u64..30, since in 0_u64..35, limit in 0_usize..30, first in 1_u64..20, cut in 1_usize..8,
    ) {
        let kept: Vec<u64> = (first..=top).collect();
        let mut resuming = Resuming::new(at(1, since), limit);
        let resumed = loop {
            let Question { since, limit, .. } = resuming.question();
            let after = since.map_or(0, |since| since.offset);
            let some = kept.iter().copied().filter(|offset| *offset > after).take(limit.min(cut));
            if let Some(resumed) = resuming.take(answer(at(1, top), some), read) {
                break resumed;
            }
        };
        let behind = since < top && first > since + 1;
        let expected = since <= top && top - since <= limit as u64 && !behind;
        let all: Vec<u64> = (since + 1..=top).collect();
        prop_assert_eq!(complete(Some(resumed)), expected.then_some(all));
    }
}
