//! The server on a backplane that loses messages without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_server::config::Config;
use manifold_server::{Node, Server};
use manifold_strategies::faulty::{self, Fault};
use manifold_strategies::{Start, memory};
use serde_json::{Value, json};

use crate::support::{Client, config, http};

/// A server on the memory strategy with a fault in between. Without presence, whose messages would be counted, too.
async fn serve(fault: Fault, config: Config) -> Server {
    let config = Config { presence: false, ..config };
    let listener = Server::bind(&config.listen).await.expect("a free port");
    let namespace = format!("faults-{}", config.node);
    let node = Node::new(config).expect("settings that hold");
    let start = Start {
        node: "n1".to_owned(),
        namespace,
        kafka: None,
        redis: None,
        settings: toml::Table::new(),
        connect_retry: None,
        entrance: node.entrance(),
    };
    let backplane = faulty::connect(&memory::STRATEGY, start, fault).await.expect("memory needs no broker");
    node.set_backplane(Arc::new(backplane));
    Server::start(node, listener).expect("a bound listener")
}

async fn publish(client: &mut Client, number: u64) {
    let reply = client.call(json!({"publish": {"channel": "a", "data": number}})).await;
    assert_eq!(reply["publish"], json!({}), "{reply}");
}

fn publication(push: &Value) -> (Option<u64>, Option<u64>) {
    let publication = &push["push"]["pub"];
    (publication["data"].as_u64(), publication["offset"].as_u64())
}

/// With the default settings: a last message that is lost is noticed within seconds, by a room in which nothing happens any more.
#[tokio::test]
async fn the_last_message_of_a_quiet_room_is_missed_within_seconds() {
    let server =
        serve(Fault::Drop, Config { position_check_ms: Config::default().position_check_ms, ..config() })
            .await;
    let mut publisher = Client::connect(server.address()).await;
    let mut member = Client::connect(server.address()).await;
    let subscribed = member.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    let epoch = subscribed["subscribe"]["epoch"].clone();
    for number in 1..=Fault::EVERY {
        publish(&mut publisher, number).await;
    }
    for number in 1..Fault::EVERY {
        assert_eq!(publication(&member.next().await), (Some(number), Some(number)));
    }
    let silent_since = Instant::now();
    let push = member.next().await;
    assert_eq!(push["push"]["unsubscribe"]["code"], 2500, "{push}");
    assert!(silent_since.elapsed() < Duration::from_secs(20), "{:?}", silent_since.elapsed());
    let recover = json!({"channel": "a", "recover": true, "epoch": epoch, "offset": Fault::EVERY - 1});
    let reply = member.call(json!({"subscribe": recover})).await;
    let result = &reply["subscribe"];
    assert_eq!(
        (&result["recovered"], &result["publications"][0]["data"]),
        (&json!(true), &json!(7)),
        "{reply}"
    );
    publish(&mut publisher, 8).await;
    assert_eq!(publication(&member.next().await), (Some(8), Some(8)));
    let (_, info) = http(server.address(), "GET /info HTTP/1.1", "").await;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let losses = &info["losses"];
    assert_eq!((&losses["positions_behind"], &losses["members_told"]), (&json!(1), &json!(1)), "{losses}");
    for known in ["gaps_seen", "gaps_repaired", "gap_messages_repaired", "gaps", "gap_messages"] {
        assert!(losses[known].is_u64(), "{known} is not in {losses}");
    }
    let metrics = http(server.address(), "GET /metrics HTTP/1.1", "").await.1;
    for name in ["gaps", "gaps_repaired", "gap_messages", "gap_messages_repaired"] {
        assert!(
            metrics.contains(&format!("manifold_backplane_{name}_total ")),
            "{name} is not in\n{metrics}"
        );
    }
}

/// Under losses without end a member that recovers has everything, in order, and once.
#[tokio::test]
async fn who_recovers_misses_nothing_of_what_is_lost_all_the_time() {
    let server = serve(Fault::Drop, Config { position_check_ms: 50, ..config() }).await;
    let mut publisher = Client::connect(server.address()).await;
    let mut member = Client::connect(server.address()).await;
    let subscribed = member.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    let epoch = subscribed["subscribe"]["epoch"].clone();
    let last = 20 * Fault::EVERY;
    let publishing = tokio::spawn(async move {
        for number in 1..=last {
            publish(&mut publisher, number).await;
        }
        publisher
    });
    let mut seen = 0;
    while seen < last {
        let mut push = member.next().await;
        if push["push"]["unsubscribe"]["code"] == 2500 {
            let recover = json!({"channel": "a", "recover": true, "epoch": epoch, "offset": seen});
            // No push comes before the reply.
            member.send(json!({"subscribe": recover})).await;
            push = member.next().await;
            assert_eq!(push["subscribe"]["recovered"], true, "{push}");
            for missed in push["subscribe"]["publications"].as_array().into_iter().flatten() {
                assert_eq!(
                    (missed["data"].as_u64(), missed["offset"].as_u64()),
                    (Some(seen + 1), Some(seen + 1))
                );
                seen += 1;
            }
            continue;
        }
        assert_eq!(publication(&push), (Some(seen + 1), Some(seen + 1)), "{push}");
        seen += 1;
    }
    drop(publishing.await.expect("all were published"));
}
