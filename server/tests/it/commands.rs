//! The command set: what is answered with a result, an error, or a close.

use serde_json::{Value, json};

use crate::support::{Client, Received, config, serve};

fn error(code: u32, message: &str) -> Value {
    json!({"code": code, "message": message})
}

#[tokio::test]
async fn connect_tells_what_the_client_must_know() {
    let server = serve(config()).await;
    let mut client = Client::open(server.address()).await;
    let reply = client.call(json!({"connect": {"name": "js", "data": {"any": 1}, "subs": {"x": {}}}})).await;
    let connect = &reply["connect"];
    assert_eq!(connect["ping"], 25);
    assert_eq!(connect["pong"], true);
    assert_eq!(connect["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(connect["data"]["strategy"], "memory");
    assert!(connect.get("subs").is_none() && connect.get("expires").is_none(), "{reply}");
    let id = connect["client"].as_str().unwrap();
    let groups: Vec<_> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12]);
    assert_eq!(&id[14..15], "4", "a version 4 UUID");
    let mut other = Client::open(server.address()).await;
    assert_ne!(other.call(json!({"connect": {}})).await["connect"]["client"], connect["client"]);
}

#[tokio::test]
async fn an_sdk_puts_connect_and_subscribes_into_one_frame() {
    let server = serve(config()).await;
    let mut client = Client::open(server.address()).await;
    client
        .send_text(
            "{\"connect\":{\"name\":\"js\"},\"id\":1}\n{\"subscribe\":{\"channel\":\"a\",\"flag\":1},\"id\":2}\n\
             {\"subscribe\":{\"channel\":\"b\",\"flag\":1},\"id\":3}\n{\"publish\":{\"channel\":\"b\",\"data\":5},\"id\":4}\n",
        )
        .await;
    assert_eq!(client.next().await["id"], 1);
    assert_eq!(client.next().await, json!({"id": 2, "subscribe": {}}));
    assert_eq!(client.next().await, json!({"id": 3, "subscribe": {}}));
    let (first, second) = (client.next().await, client.next().await);
    let push = if first["id"] == 4 { &second } else { &first };
    assert_eq!(push["push"]["pub"]["data"], 5);
}

#[tokio::test]
async fn subscriptions_begin_and_end() {
    let server = serve(config()).await;
    let mut client = Client::in_room(server.address(), "a").await;
    let again = client.call(json!({"subscribe": {"channel": "a"}})).await;
    assert_eq!(again["error"], error(105, "already subscribed"));
    assert_eq!(client.call(json!({"unsubscribe": {"channel": "a"}})).await["unsubscribe"], json!({}));
    assert_eq!(client.call(json!({"unsubscribe": {"channel": "a"}})).await["unsubscribe"], json!({}));
    assert_eq!(client.call(json!({"publish": {"channel": "a", "data": 1}})).await["publish"], json!({}));
    assert_eq!(client.call(json!({"subscribe": {"channel": "a"}})).await["subscribe"], json!({}));
    client.call(json!({"publish": {"channel": "a", "data": 2}})).await;
    assert_eq!(client.publication().await, 2, "what was published while away does not come");
}

#[tokio::test]
async fn errors_leave_the_connection_open() {
    let server = serve(config()).await;
    let mut client = Client::connect(server.address()).await;
    let long = "x".repeat(256);
    let cases = [
        (json!({"subscribe": {"channel": long}}), 107),
        (json!({"subscribe": {"channel": "ü"}}), 107),
        (json!({"subscribe": {"channel": "a", "tf": {"key": "k"}}}), 107),
        (json!({"subscribe": {"channel": "a", "token": "ey.J.x"}}), 103),
        (json!({"subscribe": {"channel": "$private", "token": "t"}}), 103),
        (json!({"publish": {"channel": "a"}}), 107),
        (json!({"publish": {"channel": long, "data": 1}}), 107),
        (json!({"publish": {"channel": "$private", "data": 1}}), 103),
        (json!({"presence": {"channel": long}}), 107),
        (json!({"presence_stats": {"channel": "$private"}}), 103),
        (json!({"history": {"channel": long, "limit": 1}}), 107),
        (json!({"history": {"channel": "$private", "limit": 1}}), 103),
        (json!({"rpc": {"method": "m", "data": 1}}), 108),
        (json!({"refresh": {"token": "t"}}), 108),
        (json!({"sub_refresh": {"channel": "a", "token": "t"}}), 108),
    ];
    for (command, code) in cases {
        let reply = client.call(command.clone()).await;
        assert_eq!(reply["error"]["code"], code, "{command} {reply}");
        assert!(reply["error"].get("temporary").is_none());
    }
    assert_eq!(client.call(json!({"publish": {"channel": "a", "data": null}})).await["publish"], json!({}));
    let fossil = client.call(json!({"subscribe": {"channel": "a", "delta": "fossil"}})).await;
    assert_eq!(fossil["subscribe"], json!({}), "plain payloads where deltas are off");
}

#[tokio::test]
async fn violations_cost_the_connection() {
    let server = serve(config()).await;
    let cases = [
        ("not json", 3501, "bad request"),
        ("", 3501, "bad request"),
        ("\n\n", 3501, "bad request"),
        ("{\"id\":9}", 3501, "bad request"),
        ("{\"id\":9,\"dance\":{}}", 3501, "bad request"),
        ("{\"publish\":{\"channel\":\"a\",\"data\":1}}", 3501, "bad request"),
        ("{\"id\":9,\"connect\":{}}", 3501, "bad request"),
        ("{\"id\":9,\"ping\":{}}", 3501, "bad request"),
        ("{\"id\":9,\"subscribe\":{}}", 3501, "bad request"),
        ("{\"id\":9,\"unsubscribe\":{}}", 3501, "bad request"),
        ("{\"id\":9,\"publish\":{\"data\":1}}", 3501, "bad request"),
        ("{\"id\":9,\"history\":{}}", 3501, "bad request"),
        ("{\"id\":9,\"subscribe\":{\"channel\":\"a\",\"delta\":\"other\"}}", 3501, "bad request"),
        ("{}", 3501, "bad request"),
        ("{\"send\":{\"data\":1}}", 3508, "not available"),
    ];
    for (text, code, reason) in cases {
        let mut client = Client::connect(server.address()).await;
        client.send_text(text).await;
        assert_eq!(client.receive().await, Received::Close(code, reason.to_owned()), "{text}");
    }
}

#[tokio::test]
async fn connect_comes_first() {
    let server = serve(config()).await;
    for text in ["{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}", "{}", "{\"connect\":{}}"] {
        let mut client = Client::open(server.address()).await;
        client.send_text(text).await;
        assert_eq!(client.close_code().await, 3501, "{text}");
    }
    let mut client = Client::open(server.address()).await;
    client.send(json!({"connect": {"token": "ey.J.x"}})).await;
    assert_eq!(client.receive().await, Received::Close(3500, "invalid token".to_owned()));
    let closed = serve(manifold_server::config::Config { allow_anonymous: false, ..config() }).await;
    let mut client = Client::open(closed.address()).await;
    client.send(json!({"connect": {}})).await;
    assert_eq!(client.close_code().await, 3501);
}

#[tokio::test]
async fn commands_before_a_violation_still_take_effect() {
    let server = serve(config()).await;
    let mut member = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    client.send_text("{\"id\":9,\"publish\":{\"channel\":\"a\",\"data\":1}}\nrubbish\n{\"id\":10,\"publish\":{\"channel\":\"a\",\"data\":2}}").await;
    assert_eq!(client.next().await["id"], 9, "replies are flushed before the close frame");
    assert_eq!(client.close_code().await, 3501);
    assert_eq!(member.publication().await, 1);
    let mut other = Client::connect(server.address()).await;
    other.call(json!({"publish": {"channel": "a", "data": 3}})).await;
    assert_eq!(member.publication().await, 3);
}

#[tokio::test]
async fn publishes_keep_their_order_and_payloads_their_bytes() {
    let server = serve(config()).await;
    let mut member = Client::in_room(server.address(), "a").await;
    let mut publisher = Client::connect(server.address()).await;
    let count = 500;
    let frame: String = (0..count)
        .map(|number| format!("{{\"id\":{},\"publish\":{{\"channel\":\"a\",\"data\":{{ \"n\" : {number}, \"s\":\"\\u00e9\\n\"}}}}}}\n", number + 9))
        .collect();
    publisher.send_text(frame).await;
    for number in 0..count {
        let push = member.next().await;
        assert_eq!(push["push"]["pub"]["data"], json!({"n": number, "s": "é\n"}));
        assert_eq!(push["push"]["pub"]["offset"], number + 1);
    }
    for number in 0..count {
        assert_eq!(publisher.next().await, json!({"id": number + 9, "publish": {}}));
    }
}
