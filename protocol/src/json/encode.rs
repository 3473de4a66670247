//! From commands, replies and pushes to text.

use super::object::{Object, append_string, object};
use crate::{
    ClientInfo, Command, ConnectRequest, ConnectResult, Error, HistoryRequest, HistoryResult, Publication,
    Push, PushBody, RefreshResult, Reply, ReplyBody, Request, SubscribeRequest, SubscribeResult,
};

/// Appends a command, as a client sends it.
pub fn append_command(out: &mut Vec<u8>, command: &Command<'_>) {
    object(out, |o| {
        o.uint("id", u64::from(command.id));
        match &command.request {
            Request::Pong => {}
            Request::Connect(request) => o.object("connect", |o| connect_request(o, request)),
            Request::Subscribe(request) => o.object("subscribe", |o| subscribe_request(o, request)),
            Request::Unsubscribe { channel } => o.object("unsubscribe", |o| o.text("channel", channel)),
            Request::Publish(request) => o.object("publish", |o| {
                o.text("channel", &request.channel);
                o.raw("data", request.data);
                o.text("idempotency_key", &request.idempotency_key);
            }),
            Request::Presence { channel } => o.object("presence", |o| o.text("channel", channel)),
            Request::PresenceStats { channel } => o.object("presence_stats", |o| o.text("channel", channel)),
            Request::History(request) => o.object("history", |o| history_request(o, request)),
            Request::Ping => o.object("ping", |_| {}),
            Request::Send { data } => o.object("send", |o| o.raw("data", *data)),
            Request::Rpc(request) => o.object("rpc", |o| {
                o.raw("data", request.data);
                o.text("method", &request.method);
            }),
            Request::Refresh { token } => o.object("refresh", |o| o.text("token", token)),
            Request::SubRefresh(request) => o.object("sub_refresh", |o| {
                o.text("channel", &request.channel);
                o.text("token", &request.token);
            }),
        }
    });
}

/// Appends a reply, as a server sends it.
pub fn append_reply(out: &mut Vec<u8>, reply: &Reply<'_>) {
    object(out, |o| {
        o.uint("id", u64::from(reply.id));
        match &reply.body {
            ReplyBody::Ping => {}
            ReplyBody::Error(failure) => o.object("error", |o| error(o, failure)),
            ReplyBody::Push(body) => o.object("push", |o| push(o, body)),
            ReplyBody::Connect(result) => o.object("connect", |o| connect_result(o, result)),
            ReplyBody::Subscribe(result) => o.object("subscribe", |o| subscribe_result(o, result)),
            ReplyBody::Unsubscribe => o.object("unsubscribe", |_| {}),
            ReplyBody::Publish => o.object("publish", |_| {}),
            ReplyBody::Presence(result) => o.object("presence", |o| {
                o.map("presence", &result.presence, append_client_info);
            }),
            ReplyBody::PresenceStats(result) => o.object("presence_stats", |o| {
                o.uint_always("num_clients", u64::from(result.num_clients));
                o.uint_always("num_users", u64::from(result.num_users));
            }),
            ReplyBody::History(result) => o.object("history", |o| history_result(o, result)),
            ReplyBody::PingResult => o.object("ping", |_| {}),
            ReplyBody::Rpc { data } => o.object("rpc", |o| o.raw("data", *data)),
            ReplyBody::Refresh(result) => o.object("refresh", |o| refresh(o, result)),
            ReplyBody::SubRefresh { expires: ends, ttl } => {
                o.object("sub_refresh", |o| expires(o, *ends, *ttl))
            }
        }
    });
}

/// Appends a push inside its reply: `{"push":{…}}`.
pub fn append_push(out: &mut Vec<u8>, body: &Push<'_>) {
    object(out, |o| o.object("push", |o| push(o, body)));
}

/// Appends a client's info, for instance to keep it encoded beside a session.
pub fn append_client_info(out: &mut Vec<u8>, info: &ClientInfo<'_>) {
    object(out, |o| client_info(o, info));
}

/// Appends a history result by itself, as a server's HTTP API answers.
pub fn append_history_result(out: &mut Vec<u8>, result: &HistoryResult<'_>) {
    object(out, |o| history_result(o, result));
}

fn connect_request(o: &mut Object<'_>, request: &ConnectRequest<'_>) {
    o.text("token", &request.token);
    o.raw("data", request.data);
    if !request.subs.is_empty() {
        o.map("subs", &request.subs, |out, sub| object(out, |o| subscribe_request(o, sub)));
    }
    o.text("name", &request.name);
    o.text("version", &request.version);
    if !request.headers.is_empty() {
        o.map("headers", &request.headers, |out, value| append_string(out, value));
    }
}

fn subscribe_request(o: &mut Object<'_>, request: &SubscribeRequest<'_>) {
    o.text("channel", &request.channel);
    o.text("token", &request.token);
    o.flag("recover", request.recover);
    o.text("epoch", &request.epoch);
    o.uint("offset", request.offset);
    o.raw("data", request.data);
    o.flag("positioned", request.positioned);
    o.flag("recoverable", request.recoverable);
    o.flag("join_leave", request.join_leave);
    o.text("delta", &request.delta);
    o.raw("tf", request.tf);
    o.int("flag", request.flag.0);
}

fn history_request(o: &mut Object<'_>, request: &HistoryRequest<'_>) {
    o.text("channel", &request.channel);
    o.int("limit", i64::from(request.limit));
    if let Some(since) = &request.since {
        o.object("since", |o| {
            o.uint("offset", since.offset);
            o.text("epoch", &since.epoch);
        });
    }
    o.flag("reverse", request.reverse);
}

fn error(o: &mut Object<'_>, error: &Error<'_>) {
    o.uint("code", u64::from(error.code.0));
    o.text("message", &error.message);
    o.flag("temporary", error.temporary);
}

fn push(o: &mut Object<'_>, push: &Push<'_>) {
    o.int("id", push.id);
    o.text("channel", &push.channel);
    match &push.body {
        PushBody::Publication(body) => o.object("pub", |o| publication(o, body)),
        PushBody::Join(info) => o.object("join", |o| o.object("info", |o| client_info(o, info))),
        PushBody::Leave(info) => o.object("leave", |o| o.object("info", |o| client_info(o, info))),
        PushBody::Unsubscribe(body) => o.object("unsubscribe", |o| {
            o.uint_always("code", u64::from(body.code.0));
            o.text_always("reason", &body.reason);
        }),
        PushBody::Message { data } => o.object("message", |o| o.raw("data", *data)),
        PushBody::Subscribe(body) => o.object("subscribe", |o| {
            o.flag("recoverable", body.recoverable);
            o.text("epoch", &body.epoch);
            o.uint("offset", body.offset);
            o.flag("positioned", body.positioned);
            o.raw("data", body.data);
        }),
        PushBody::Connect(body) => o.object("connect", |o| connect_result(o, body)),
        PushBody::Disconnect(body) => o.object("disconnect", |o| {
            o.uint_always("code", u64::from(body.code.0));
            o.text_always("reason", &body.reason);
        }),
        PushBody::Refresh(body) => o.object("refresh", |o| refresh(o, body)),
        PushBody::Unknown => {}
    }
}

fn append_publication(out: &mut Vec<u8>, body: &Publication<'_>) {
    object(out, |o| publication(o, body));
}

fn publication(o: &mut Object<'_>, publication: &Publication<'_>) {
    o.raw("data", publication.data);
    if let Some(info) = &publication.info {
        o.object("info", |o| client_info(o, info));
    }
    o.uint("offset", publication.offset);
    if !publication.tags.is_empty() {
        o.map("tags", &publication.tags, |out, tag| append_string(out, tag));
    }
    o.flag("delta", publication.delta);
    o.int("time", publication.time);
    o.text("channel", &publication.channel);
    o.text("epoch", &publication.epoch);
}

fn client_info(o: &mut Object<'_>, info: &ClientInfo<'_>) {
    o.text_always("user", &info.user);
    o.text_always("client", &info.client);
    o.raw("conn_info", info.conn_info);
    o.raw("chan_info", info.chan_info);
}

/// SDKs read `ttl` without asking whenever `expires` is true, so it is then written even where it is zero.
fn expires(o: &mut Object<'_>, expires: bool, ttl: u32) {
    o.flag("expires", expires);
    if expires || ttl != 0 {
        o.uint_always("ttl", u64::from(ttl));
    }
}

fn connect_result(o: &mut Object<'_>, result: &ConnectResult<'_>) {
    o.text("client", &result.client);
    o.text("version", &result.version);
    expires(o, result.expires, result.ttl);
    o.raw("data", result.data);
    if !result.subs.is_empty() {
        o.map("subs", &result.subs, |out, sub| object(out, |o| subscribe_result(o, sub)));
    }
    o.uint("ping", u64::from(result.ping));
    o.flag("pong", result.pong);
    o.text("session", &result.session);
    o.text("node", &result.node);
    o.int("time", result.time);
}

fn subscribe_result(o: &mut Object<'_>, result: &SubscribeResult<'_>) {
    expires(o, result.expires, result.ttl);
    o.flag("recoverable", result.recoverable);
    o.text("epoch", &result.epoch);
    if !result.publications.is_empty() {
        o.list("publications", &result.publications, append_publication);
    }
    o.flag("recovered", result.recovered);
    o.uint("offset", result.offset);
    o.flag("positioned", result.positioned);
    o.raw("data", result.data);
    o.flag("was_recovering", result.was_recovering);
    o.flag("delta", result.delta);
    o.int("id", result.id);
}

fn history_result(o: &mut Object<'_>, result: &HistoryResult<'_>) {
    o.list("publications", &result.publications, append_publication);
    o.text_always("epoch", &result.epoch);
    o.uint_always("offset", result.offset);
}

fn refresh(o: &mut Object<'_>, result: &RefreshResult<'_>) {
    o.text("client", &result.client);
    o.text("version", &result.version);
    expires(o, result.expires, result.ttl);
}
