//! What is told to those who ask who is there. Giant rooms are read in pages, and no lock is held while a page is written.

use std::sync::Arc;

use manifold_protocol::json;

use super::Presence;
use super::who::Who;

/// Entries that are read at once, under the lock: some tens of microseconds.
const PAGE_ENTRIES: usize = 512;

/// The answer would be longer than its reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The reply to a client's `presence`, as JSON. Yields between pages.
///
/// # Errors
/// It is longer than `bytes_max`.
pub(crate) async fn reply(
    presence: &Presence,
    id: u32,
    room: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, TooLong> {
    let mut out = b"{\"id\":".to_vec();
    json::append_u64(&mut out, id.into());
    out.extend_from_slice(b",\"presence\":");
    append_result(&mut out, presence, room, bytes_max).await;
    out.push(b'}');
    if out.len() <= bytes_max { Ok(out) } else { Err(TooLong) }
}

/// The API's result, as JSON. Yields between pages.
pub(crate) async fn result(presence: &Presence, room: &str) -> String {
    let mut out = Vec::new();
    append_result(&mut out, presence, room, usize::MAX).await;
    String::from_utf8(out).expect("made of strings")
}

/// Appends who is there, by client id. Stops soon after `bytes_max`.
async fn append_result(out: &mut Vec<u8>, presence: &Presence, room: &str, bytes_max: usize) {
    out.extend_from_slice(b"{\"presence\":{");
    let start = out.len();
    each_page(presence, room, |page| {
        for who in page {
            if out.len() > start {
                out.push(b',');
            }
            let id = who.client_id();
            json::append_string(out, &id);
            out.push(b':');
            json::append_client_info(out, &who.info(&id));
        }
        out.len() <= bytes_max
    })
    .await;
    out.extend_from_slice(b"}}");
}

/// Hands the room's entries to `take`, a page at a time, until it has enough. Who is there all the while is in one page;
/// who comes or goes meanwhile may be.
async fn each_page(presence: &Presence, room: &str, mut take: impl FnMut(&[Arc<Who>]) -> bool) {
    let mut after = None;
    loop {
        let page = presence.page(room, after, PAGE_ENTRIES);
        let full = page.len() == PAGE_ENTRIES;
        after = page.last().map(|(place, _)| *place);
        let entries: Vec<_> = page.into_iter().map(|(_, who)| who).collect();
        if !take(&entries) || !full {
            return;
        }
        crate::hub::yield_worker().await;
    }
}

#[cfg(test)]
mod tests {
    use manifold_protocol::{PresenceResult, Reply, ReplyBody};
    use manifold_strategies::RoomId;
    use serde_json::Value;

    use super::*;
    use crate::presence::Timing;

    fn presence(clients: u128) -> Arc<Presence> {
        let timing = Timing { batch_ms: 50, heartbeat_ms: 1_000, silence_ms: 5_000 };
        let presence = Presence::new(timing, Arc::default()).expect("randomness");
        for client in 0..clients {
            let who = Who { client, user: "ann".into(), conn_info: "{\"a\": 1}".into(), ..Who::default() };
            presence.join(&RoomId::new("a"), who);
        }
        presence
    }

    #[tokio::test]
    async fn a_reply_is_what_the_codec_writes() {
        for clients in [0, 1, 3] {
            let presence = presence(clients);
            let page = presence.page("a", None, 10);
            let ids: Vec<_> = page.iter().map(|(_, who)| who.client_id()).collect();
            let pairs = page.iter().zip(&ids).map(|((_, who), id)| (id.as_str().into(), who.info(id)));
            let result = PresenceResult { presence: pairs.collect() };
            let mut expected = Vec::new();
            json::append_reply(&mut expected, &Reply { id: 7, body: ReplyBody::Presence(result) });
            assert_eq!(reply(&presence, 7, "a", 10_000).await, Ok(expected));
        }
    }

    #[tokio::test]
    async fn all_of_a_giant_room_come_once_within_the_bound() {
        let presence = presence(10_000);
        let text = reply(&presence, 1, "a", 2 * 1024 * 1024).await.unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        let clients = value["presence"]["presence"].as_object().unwrap();
        assert_eq!(clients.len(), 10_000);
        assert!(clients.iter().all(|(id, info)| info["client"] == **id && info["conn_info"]["a"] == 1));
        assert_eq!(reply(&presence, 1, "a", text.len()).await.map(|text| text.len()), Ok(text.len()));
        assert_eq!(reply(&presence, 1, "a", text.len() - 1).await, Err(TooLong));
        let result: Value = serde_json::from_str(&super::result(&presence, "a").await).unwrap();
        assert_eq!(result, value["presence"]);
        assert_eq!(presence.stats("a").num_users, 1);
    }
}
