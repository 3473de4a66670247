//! `/api/presence` and `/api/presence_stats`: who is in a room, in the whole cluster.

use std::sync::Arc;

use manifold_protocol::ErrorCode;
use serde_json::{Value, json};

use crate::node::Node;
use crate::presence::{self, Presence};

/// Who is there, by client id, as JSON.
///
/// # Errors
/// 107 for no name of a room, 108 where presence is off.
pub(super) async fn clients(node: &Node, channel: &str) -> Result<String, ErrorCode> {
    Ok(presence::result(presence_of(node, channel)?, channel).await)
}

/// How many clients and users are there.
///
/// # Errors
/// 107 for no name of a room, 108 where presence is off.
pub(super) fn stats(node: &Node, channel: &str) -> Result<Value, ErrorCode> {
    let stats = presence_of(node, channel)?.stats(channel);
    Ok(json!({ "num_clients": stats.num_clients, "num_users": stats.num_users }))
}

fn presence_of<'n>(node: &'n Node, channel: &str) -> Result<&'n Arc<Presence>, ErrorCode> {
    node.rooms().check_form(channel)?;
    node.hub().presence().ok_or(ErrorCode::NOT_AVAILABLE)
}
