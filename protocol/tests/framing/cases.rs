//! Texts as they stand on the wire, and what must become of them.

use manifold_protocol::json::{
    self, DecodeError, Json, append_client_info, append_command, append_push, append_reply, commands, replies,
};
use manifold_protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, DisconnectCode, Error, ErrorCode, HistoryResult,
    PresenceResult, PresenceStatsResult, Publication, PublicationPrefix, PublishRequest, Push, PushBody,
    RefreshResult, Reply, ReplyBody, Request, SubscribeFlags, SubscribeRequest, SubscribeResult,
    UnsubscribeCode,
};

fn command(text: &str) -> Command<'_> {
    let mut commands = commands(text);
    let command = commands.next().unwrap().unwrap();
    assert!(commands.next().is_none());
    command
}

fn refused(text: &str) -> bool {
    commands(text).any(|command| command.is_err())
}

fn encoded(reply: &Reply<'_>) -> String {
    let mut out = Vec::new();
    append_reply(&mut out, reply);
    String::from_utf8(out).unwrap()
}

/// The reply encodes to the text, and the text decodes to the reply.
fn same(reply: &Reply<'_>, text: &str) {
    assert_eq!(encoded(reply), text);
    let mut replies = replies(text);
    assert_eq!(&replies.next().unwrap().unwrap(), reply);
    assert!(replies.next().is_none());
}

fn body(id: u32, body: ReplyBody<'_>) -> Reply<'_> {
    Reply { id, body }
}

#[test]
fn the_first_frame_of_an_sdk() {
    let frame = "{\"connect\":{\"name\":\"js\"},\"id\":1}\n{\"subscribe\":{\"channel\":\"chat:a\",\"flag\":1},\"id\":2}\n";
    let decoded: Vec<_> = commands(frame).map(Result::unwrap).collect();
    let connect = Request::Connect(ConnectRequest { name: "js".into(), ..Default::default() });
    let subscribe = Request::Subscribe(SubscribeRequest {
        channel: "chat:a".into(),
        flag: SubscribeFlags(1),
        ..Default::default()
    });
    assert_eq!(decoded, [Command { id: 1, request: connect }, Command { id: 2, request: subscribe }]);
    assert!(SubscribeFlags(1).numeric_ids() && !SubscribeFlags(1).error_when_unrecoverable());
}

#[test]
fn commands_keep_their_data_verbatim_and_borrow() {
    let frame = r#"{"publish":{"channel":"chat:a","data": {"a" :1e400} ,"x":[{}]},"id":3,"y":null}"#;
    let Request::Publish(publish) = command(frame).request else { panic!("a publish") };
    assert_eq!(publish.data.unwrap().as_str(), r#"{"a" :1e400}"#);
    let inside = frame.as_bytes().as_ptr_range();
    assert!(
        inside.contains(&publish.channel.as_ptr())
            && inside.contains(&publish.data.unwrap().as_str().as_ptr())
    );

    let Request::Publish(publish) =
        command(r#"{"id":3,"publish":{"channel":"\u00e9\"","data":null}}"#).request
    else {
        panic!("a publish")
    };
    let expected =
        PublishRequest { channel: "é\"".into(), data: Some(Json::NULL), ..PublishRequest::default() };
    assert_eq!(publish, expected);
    let Request::Publish(publish) = command(r#"{"id":3,"publish":{}}"#).request else { panic!("a publish") };
    assert_eq!(publish.data, None);
}

#[test]
fn pong_and_send_have_no_id() {
    assert_eq!(command("{}"), Command { id: 0, request: Request::Pong });
    let send = command(r#"{"send":{"data":[1]}}"#);
    assert_eq!(send, Command { id: 0, request: Request::Send { data: Some(Json::trusted("[1]")) } });
}

#[test]
fn null_is_the_zero_value() {
    let text = r#"{"id":1,"subscribe":{"channel":"a","token":null,"recover":null,"offset":null,"flag":null},"publish":null}"#;
    let expected = SubscribeRequest { channel: "a".into(), ..Default::default() };
    assert_eq!(command(text), Command { id: 1, request: Request::Subscribe(expected) });
    let text = r#"{"id":1,"connect":{"token":null,"subs":null,"headers":{"a":null}}}"#;
    let expected = ConnectRequest { headers: vec![("a".into(), "".into())], ..Default::default() };
    assert_eq!(command(text), Command { id: 1, request: Request::Connect(expected) });
}

#[test]
fn frames_without_a_command_and_broken_ones_are_refused() {
    for empty in ["", "\n", " \n\r\n\t"] {
        let mut commands = commands(empty);
        assert!(matches!(commands.next(), Some(Err(DecodeError::Empty))));
        assert!(commands.next().is_none());
    }
    for broken in [
        "[]",
        "null",
        "1",
        "{",
        "{}{}",
        "{\"id\":1}",
        "{\"id\":-1,\"ping\":{}}",
        "{\"id\":4294967296,\"ping\":{}}",
        "{\"id\":1,\"fly\":{}}",
        "{\"fly\":{}}",
        "{\"id\":1,\"ping\":{},\"publish\":{}}",
        "{\"id\":1,\"publish\":[]}",
        "{\"id\":1,\"publish\":{\"channel\":1}}",
        "{\"id\":1,\"publish\":{\"data\":{a}}}",
        "{\"id\":\"1\",\"ping\":{}}",
        "{}\nx",
        "{\"id\":1,\"publish\":{\"channel\":\"\u{1}\"}}",
    ] {
        assert!(refused(broken), "{broken}");
    }
    // The first error is the end, whatever follows.
    assert_eq!(commands("{}\nx\n{}").map(|command| command.is_ok()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn deep_nesting_is_refused_or_passed_over_but_never_followed() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = format!("{{\"id\":1,\"publish\":{{\"channel\":\"a\",\"data\":{deep}}}}}");
    let decoded = commands(&text).next().unwrap();
    if let Ok(Command { request: Request::Publish(publish), .. }) = decoded {
        assert_eq!(publish.data.unwrap().as_str(), deep);
    }
    let _ = commands(&format!("{{\"x\":{deep}}}")).next();
}

#[test]
fn captured_replies() {
    let connect = ConnectResult {
        client: "ca06".into(),
        version: "6.9.1 OSS".into(),
        ping: 25,
        pong: true,
        ..Default::default()
    };
    same(
        &body(1, ReplyBody::Connect(connect)),
        r#"{"id":1,"connect":{"client":"ca06","version":"6.9.1 OSS","ping":25,"pong":true}}"#,
    );
    let fresh =
        SubscribeResult { recoverable: true, epoch: "wwGy".into(), positioned: true, ..Default::default() };
    same(
        &body(2, ReplyBody::Subscribe(fresh.clone())),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"wwGy","positioned":true}}"#,
    );
    let publication =
        |data, offset| Publication { data: Some(Json::trusted(data)), offset, ..Default::default() };
    let recovered = SubscribeResult {
        publications: vec![publication("2", 2), publication("3", 3)],
        recovered: true,
        offset: 1,
        was_recovering: true,
        ..fresh
    };
    same(
        &body(2, ReplyBody::Subscribe(recovered)),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"wwGy","publications":[{"data":2,"offset":2},{"data":3,"offset":3}],"recovered":true,"offset":1,"positioned":true,"was_recovering":true}}"#,
    );
    same(&body(3, ReplyBody::Publish), r#"{"id":3,"publish":{}}"#);
    same(&body(0, ReplyBody::Ping), "{}");
    same(
        &body(1, ReplyBody::Error(ErrorCode::TOKEN_EXPIRED.into())),
        r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#,
    );
    same(
        &body(1, ReplyBody::Error(Error::from(ErrorCode::TOO_MANY_REQUESTS))),
        r#"{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}"#,
    );
}

#[test]
fn captured_pushes() {
    let push = |channel: &'static str, inside| {
        body(0, ReplyBody::Push(Push { id: 0, channel: channel.into(), body: inside }))
    };
    let info = ClientInfo { client: "ca06".into(), ..Default::default() };
    same(
        &push("chat:a", PushBody::Join(info.clone())),
        r#"{"push":{"channel":"chat:a","join":{"info":{"user":"","client":"ca06"}}}}"#,
    );
    let publication = Publication {
        data: Some(Json::trusted("{\"a\":1}")),
        info: Some(info.clone()),
        offset: 1,
        epoch: "wwGy".into(),
        ..Default::default()
    };
    let text = r#"{"push":{"channel":"chat:a","pub":{"data":{"a":1},"info":{"user":"","client":"ca06"},"offset":1,"epoch":"wwGy"}}}"#;
    same(&push("chat:a", PushBody::Publication(publication)), text);
    let (mut quick, mut encoded_info) = (Vec::new(), Vec::new());
    append_client_info(&mut encoded_info, &info);
    let prefix = PublicationPrefix::new("chat:a");
    prefix.append(&mut quick, b"{\"a\":1}", &encoded_info, 1, "wwGy");
    assert_eq!(quick, text.as_bytes());
    assert!(quick.len() <= prefix.len_max(7, encoded_info.len()));
    same(
        &push("n:d", PushBody::Unsubscribe(UnsubscribeCode::SERVER.into())),
        r#"{"push":{"channel":"n:d","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#,
    );
    same(
        &push("", PushBody::Disconnect(DisconnectCode::NO_PONG.into())),
        r#"{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}"#,
    );
    let unknown = replies(r#"{"push":{"channel":"a","novelty":{}}}"#).next().unwrap().unwrap();
    assert_eq!(unknown, push("a", PushBody::Unknown));
}

#[test]
fn fields_that_are_always_written() {
    same(&body(1, ReplyBody::Presence(PresenceResult::default())), r#"{"id":1,"presence":{"presence":{}}}"#);
    same(
        &body(1, ReplyBody::PresenceStats(PresenceStatsResult::default())),
        r#"{"id":1,"presence_stats":{"num_clients":0,"num_users":0}}"#,
    );
    same(
        &body(1, ReplyBody::History(HistoryResult::default())),
        r#"{"id":1,"history":{"publications":[],"epoch":"","offset":0}}"#,
    );
    same(&body(1, ReplyBody::Rpc { data: None }), r#"{"id":1,"rpc":{}}"#);
    let expiring = RefreshResult { expires: true, ..Default::default() };
    same(&body(1, ReplyBody::Refresh(expiring)), r#"{"id":1,"refresh":{"expires":true,"ttl":0}}"#);
}

#[test]
fn newlines_never_leave_the_data() {
    let data = Json::parse(" {\n\"a\":\r\n \"b\\n\"\n}\n").unwrap();
    let command = Command {
        id: 1,
        request: Request::Publish(PublishRequest {
            channel: "a\nb".into(),
            data: Some(data),
            ..PublishRequest::default()
        }),
    };
    let mut out = Vec::new();
    append_command(&mut out, &command);
    assert_eq!(out, b"{\"id\":1,\"publish\":{\"channel\":\"a\\nb\",\"data\":{\"a\":\r \"b\\n\"}}}");
    let mut push = Vec::new();
    PublicationPrefix::new("a").append(&mut push, data.as_str().as_bytes(), b"{\n}", 0, "");
    assert_eq!(push, b"{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":{\"a\":\r \"b\\n\"},\"info\":{}}}}");
    assert!(Json::parse("{} {}").is_err());
    assert_eq!(Json::parse("[1, 2]").unwrap().decode::<Vec<u8>>().unwrap(), [1, 2]);
}

#[test]
fn several_messages_share_a_frame() {
    let mut out = Vec::new();
    append_reply(&mut out, &body(7, ReplyBody::Publish));
    out.push(b'\n');
    append_push(
        &mut out,
        &Push { id: 0, channel: "".into(), body: PushBody::Message { data: Some(Json::NULL) } },
    );
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "{\"id\":7,\"publish\":{}}\n{\"push\":{\"message\":{\"data\":null}}}");
    assert_eq!(json::replies(&text).filter(Result::is_ok).count(), 2);
}

#[test]
fn codes_say_what_a_client_does() {
    for (code, comes_back) in [
        (1006, true),
        (3001, true),
        (3008, true),
        (3499, true),
        (3500, false),
        (3999, false),
        (4000, true),
        (4499, true),
        (4500, false),
        (4999, false),
    ] {
        assert_eq!(DisconnectCode(code).reconnect(), comes_back, "{code}");
    }
    assert!(!UnsubscribeCode::SERVER.resubscribe() && UnsubscribeCode::INSUFFICIENT_STATE.resubscribe());
    assert_eq!(DisconnectCode::SLOW.to_string(), "3008 (slow)");
    assert_eq!(format!("{:?}", ErrorCode(400)), "400");
    let temporary: Vec<u32> = (0..2000).filter(|code| ErrorCode(*code).temporary()).collect();
    assert_eq!(temporary, [100, 111, 113]);
}
