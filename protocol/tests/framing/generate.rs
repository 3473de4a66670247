//! Arbitrary commands and replies.

use std::borrow::Cow;

use manifold_protocol::json::Json;
use manifold_protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, DisconnectCode, DisconnectPush, Error, ErrorCode,
    HistoryRequest, HistoryResult, Pairs, PresenceResult, PresenceStatsResult, Publication, PublishRequest,
    Push, PushBody, RefreshResult, Reply, ReplyBody, Request, RpcRequest, StreamPosition, SubRefreshRequest,
    SubscribeFlags, SubscribePush, SubscribeRequest, SubscribeResult, UnsubscribeCode, UnsubscribePush,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Text = Cow<'static, str>;

pub(crate) fn text() -> impl Strategy<Value = Text> {
    prop_oneof![Just(String::new()), "[a-z:]{1,8}", any::<String>()].prop_map(Cow::Owned)
}

/// JSON texts without raw newlines, which are the only bytes that do not pass verbatim.
pub(crate) fn data() -> impl Strategy<Value = Option<Json<'static>>> {
    const TEXTS: [&str; 10] = [
        "null",
        "0",
        "-1.5e300",
        "true",
        "\"\"",
        "\"\\ud800 \\n é\"",
        "[]",
        "{\"a\" : [1, {\"b\":null}]}",
        "[[[[1]]]]",
        "{\"\":\"\\\\\"}",
    ];
    option::of(prop::sample::select(&TEXTS[..]).prop_map(Json::trusted))
}

fn pairs<V: std::fmt::Debug>(value: impl Strategy<Value = V>) -> impl Strategy<Value = Pairs<'static, V>> {
    vec((text(), value), 0..3)
}

prop_compose! {
    fn info()(user in text(), client in text(), conn_info in data(), chan_info in data()) -> ClientInfo<'static> {
        ClientInfo { user, client, conn_info, chan_info }
    }
}

prop_compose! {
    fn publication()(
        data in data(), info in option::of(info()), offset: u64, tags in pairs(text()), delta: bool, time: i64,
        channel in text(), epoch in text(),
    ) -> Publication<'static> {
        Publication { data, info, offset, tags, delta, time, channel, epoch }
    }
}

prop_compose! {
    fn subscribe_request()(
        (channel, token, epoch, delta) in (text(), text(), text(), text()), offset: u64, flag: i64,
        (recover, positioned, recoverable, join_leave) in any::<(bool, bool, bool, bool)>(), data in data(), tf in data(),
    ) -> SubscribeRequest<'static> {
        SubscribeRequest {
            channel, token, recover, epoch, offset, data, positioned, recoverable, join_leave, delta, tf,
            flag: SubscribeFlags(flag),
        }
    }
}

prop_compose! {
    fn subscribe_result()(
        (expires, recoverable, recovered, positioned) in any::<(bool, bool, bool, bool)>(),
        (was_recovering, delta, ttl, offset, id) in any::<(bool, bool, u32, u64, i64)>(),
        epoch in text(), publications in vec(publication(), 0..3), data in data(),
    ) -> SubscribeResult<'static> {
        SubscribeResult {
            expires, ttl, recoverable, epoch, publications, recovered, offset, positioned, data, was_recovering, delta, id,
        }
    }
}

prop_compose! {
    fn connect_result()(
        (client, version, session, node) in (text(), text(), text(), text()),
        (expires, ttl, ping, pong, time) in any::<(bool, u32, u32, bool, i64)>(),
        data in data(), subs in pairs(subscribe_result()),
    ) -> ConnectResult<'static> {
        ConnectResult { client, version, expires, ttl, data, subs, ping, pong, session, node, time }
    }
}

prop_compose! {
    fn connect_request()(
        (token, name, version) in (text(), text(), text()), data in data(), subs in pairs(subscribe_request()),
        headers in pairs(text()),
    ) -> ConnectRequest<'static> {
        ConnectRequest { token, data, subs, name, version, headers }
    }
}

prop_compose! {
    fn refresh()(client in text(), version in text(), expires: bool, ttl: u32) -> RefreshResult<'static> {
        RefreshResult { client, version, expires, ttl }
    }
}

pub(crate) fn command() -> impl Strategy<Value = Command<'static>> {
    let since =
        option::of((any::<u64>(), text()).prop_map(|(offset, epoch)| StreamPosition { offset, epoch }));
    let history =
        (text(), any::<i32>(), since, any::<bool>()).prop_map(|(channel, limit, since, reverse)| {
            Request::History(HistoryRequest { channel, limit, since, reverse })
        });
    let request = prop_oneof![
        connect_request().prop_map(Request::Connect),
        subscribe_request().prop_map(Request::Subscribe),
        text().prop_map(|channel| Request::Unsubscribe { channel }),
        (text(), data(), text()).prop_map(|(channel, data, idempotency_key)| {
            Request::Publish(PublishRequest { channel, data, idempotency_key })
        }),
        text().prop_map(|channel| Request::Presence { channel }),
        text().prop_map(|channel| Request::PresenceStats { channel }),
        history,
        Just(Request::Ping),
        data().prop_map(|data| Request::Send { data }),
        (data(), text()).prop_map(|(data, method)| Request::Rpc(RpcRequest { data, method })),
        text().prop_map(|token| Request::Refresh { token }),
        (text(), text())
            .prop_map(|(channel, token)| Request::SubRefresh(SubRefreshRequest { channel, token })),
    ];
    prop_oneof![
        Just(Command { id: 0, request: Request::Pong }),
        (any::<u32>(), request).prop_map(|(id, request)| Command { id, request }),
    ]
}

fn push() -> impl Strategy<Value = Push<'static>> {
    let subscribe = (any::<(bool, bool, u64)>(), text(), data()).prop_map(
        |((recoverable, positioned, offset), epoch, data)| {
            PushBody::Subscribe(SubscribePush { recoverable, epoch, offset, positioned, data })
        },
    );
    let body = prop_oneof![
        publication().prop_map(PushBody::Publication),
        info().prop_map(PushBody::Join),
        info().prop_map(PushBody::Leave),
        (any::<u32>(), text()).prop_map(|(code, reason)| {
            PushBody::Unsubscribe(UnsubscribePush { code: UnsubscribeCode(code), reason })
        }),
        data().prop_map(|data| PushBody::Message { data }),
        subscribe,
        connect_result().prop_map(PushBody::Connect),
        (any::<u32>(), text()).prop_map(|(code, reason)| PushBody::Disconnect(DisconnectPush {
            code: DisconnectCode(code),
            reason
        })),
        refresh().prop_map(PushBody::Refresh),
        Just(PushBody::Unknown),
    ];
    (any::<i64>(), text(), body).prop_map(|(id, channel, body)| Push { id, channel, body })
}

pub(crate) fn reply() -> impl Strategy<Value = Reply<'static>> {
    let history =
        (vec(publication(), 0..3), text(), any::<u64>()).prop_map(|(publications, epoch, offset)| {
            ReplyBody::History(HistoryResult { publications, epoch, offset })
        });
    let error = (any::<u32>(), text(), any::<bool>()).prop_map(|(code, message, temporary)| {
        ReplyBody::Error(Error { code: ErrorCode(code), message, temporary })
    });
    let body = prop_oneof![
        Just(ReplyBody::Ping),
        error,
        push().prop_map(ReplyBody::Push),
        connect_result().prop_map(ReplyBody::Connect),
        subscribe_result().prop_map(ReplyBody::Subscribe),
        Just(ReplyBody::Unsubscribe),
        Just(ReplyBody::Publish),
        pairs(info()).prop_map(|presence| ReplyBody::Presence(PresenceResult { presence })),
        any::<(u32, u32)>().prop_map(|(num_clients, num_users)| {
            ReplyBody::PresenceStats(PresenceStatsResult { num_clients, num_users })
        }),
        history,
        Just(ReplyBody::PingResult),
        data().prop_map(|data| ReplyBody::Rpc { data }),
        refresh().prop_map(ReplyBody::Refresh),
        any::<(bool, u32)>().prop_map(|(expires, ttl)| ReplyBody::SubRefresh { expires, ttl }),
    ];
    (any::<u32>(), body).prop_map(|(id, body)| Reply { id, body })
}
