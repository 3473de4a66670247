//! `/health`, `/metrics` and `/info`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use manifold_strategies::Guarantees;
use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::{descriptors, respond};
use crate::metrics;
use crate::node::Node;

pub(super) const JSON: &str = "application/json";

/// What this node is: read by people, by the page, and by the load generator.
#[derive(Debug, Serialize)]
struct Info<'a> {
    node: &'a str,
    version: &'static str,
    commit: &'static str,
    strategy: &'a str,
    summary: &'a str,
    counter_example: bool,
    guarantees: Guarantees,
    settings: &'a toml::Table,
    namespace: &'a str,
    started_at_ms: u64,
    losses: Losses,
    /// Recoveries by how they ended.
    recoveries: BTreeMap<&'static str, u64>,
}

/// What was lost on the way to this node since it started, as far as that can be known, and who was told.
#[derive(Debug, Serialize)]
struct Losses {
    /// Gaps that the backplane saw: those that it repaired, and those that it declared.
    gaps_seen: u64,
    /// Gaps made good before members noticed.
    gaps_repaired: u64,
    /// Messages delivered late by that.
    gap_messages_repaired: u64,
    /// Gaps that the backplane declared.
    gaps: u64,
    /// Messages known to be lost in them.
    gap_messages: u64,
    /// Links to brokers that are broken or silent right now: what they lose is known once they are back.
    links_down: u64,
    /// Quiet rooms whose last messages had not arrived.
    positions_behind: u64,
    /// Subscriptions ended with "insufficient state".
    members_told: u64,
}

pub(super) fn routes(node: Arc<Node>) -> BoxedFilter<(Response,)> {
    let with_node = warp::any().map(move || Arc::clone(&node));
    let health = warp::path!("health").and(with_node.clone()).map(|node: Arc<Node>| health(&node));
    let metrics = warp::path!("metrics").and(with_node.clone()).map(|node: Arc<Node>| metrics(&node));
    let info = warp::path!("info").and(with_node).map(|node: Arc<Node>| info(&node));
    let routes = health.or(metrics).unify().or(info).unify();
    warp::get().or(warp::head()).unify().and(routes).boxed()
}

/// A node that cannot take clients says so and why, that balancers stop sending them: it goes down, its backplane has failed for
/// good, or there is no file descriptor for one more. A node whose broker is away is degraded, and still serves: elsewhere its clients
/// would fare no better, and links come back by themselves.
fn health(node: &Node) -> Response {
    let unavailable = if node.is_draining() {
        "draining".to_owned()
    } else if let Some(error) = node.backplane().failed() {
        format!("the backplane failed for good: {error}")
    } else if !descriptors::is_one_left() {
        "out of file descriptors".to_owned()
    } else {
        let body = match links_down(node) {
            0 => serde_json::json!({}),
            links_down => {
                serde_json::json!({ "degraded": "a broker is not there", "links_down": links_down })
            }
        };
        return respond(StatusCode::OK, JSON, body.to_string());
    };
    let body = serde_json::json!({ "unavailable": unavailable }).to_string();
    respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
}

/// Links to brokers that are broken or silent right now.
fn links_down(node: &Node) -> u64 {
    u64::try_from(node.backplane().stats().links_down.get()).unwrap_or(0)
}

fn metrics(node: &Node) -> Response {
    match metrics::render(node.metrics(), node.gauges(), node.backplane()) {
        Ok(text) => respond(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the metrics cannot be rendered\n")
        }
    }
}

fn info(node: &Node) -> Response {
    let config = node.config();
    let Ok(strategy) = config.strategy() else {
        return respond(StatusCode::INTERNAL_SERVER_ERROR, JSON, "{}");
    };
    let (stats, recoveries) = (node.backplane().stats(), node.metrics().recoveries());
    let info = Info {
        node: &config.node,
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("CHAT_SERVER_COMMIT"),
        strategy: strategy.name,
        summary: strategy.summary,
        counter_example: strategy.counter_example,
        guarantees: node.backplane().guarantees(),
        settings: node.effective(),
        namespace: &config.namespace,
        started_at_ms: node.started_at_us() / 1000,
        losses: Losses {
            gaps_seen: stats.gaps.get() + stats.gaps_repaired.get(),
            gaps_repaired: stats.gaps_repaired.get(),
            gap_messages_repaired: stats.gap_messages_repaired.get(),
            gaps: stats.gaps.get(),
            gap_messages: stats.gap_messages.get(),
            links_down: links_down(node),
            positions_behind: recoveries.positions_behind.load(Relaxed),
            members_told: node.metrics().insufficient_state(),
        },
        recoveries: recoveries.outcomes().collect(),
    };
    let body = serde_json::to_vec(&info).expect("tables and literals are valid JSON");
    let response = respond(StatusCode::OK, JSON, body);
    // Pages served by other nodes ask as well; there is nothing secret in it.
    warp::Reply::into_response(warp::reply::with_header(response, "access-control-allow-origin", "*"))
}
