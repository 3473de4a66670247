//! Connect, subscribe, publish, receive.

use serde_json::json;

use crate::support::{Client, config, serve};

#[tokio::test]
async fn a_message_reaches_every_member_and_its_publisher() {
    let server = serve(config()).await;
    let mut ann = Client::in_room(server.address(), "chat:a").await;
    let mut bob = Client::in_room(server.address(), "chat:a").await;
    let mut cid = Client::in_room(server.address(), "chat:b").await;
    let reply = ann.call(json!({"publish": {"channel": "chat:a", "data": {"text": "hé"}}})).await;
    assert_eq!(reply["publish"], json!({}));
    for client in [&mut ann, &mut bob] {
        let push = client.next().await;
        assert_eq!(push["push"]["channel"], "chat:a");
        assert_eq!(push["push"]["pub"]["data"], json!({"text": "hé"}));
        assert_eq!(push["push"]["pub"]["offset"], 1);
        assert_eq!(push["push"]["pub"]["info"]["user"], "");
        assert!(push["push"]["pub"]["info"]["client"].is_string());
    }
    cid.call(json!({"publish": {"channel": "chat:b", "data": 1}})).await;
    assert_eq!(cid.publication().await, 1, "another room's message comes first only if it leaked");
}
