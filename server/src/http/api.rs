//! The server API: `POST /api/<method>`, or `POST /api` with `{"method": …, "params": …}`.
//!
//! Replies are 200 with `{"result": …}` or `{"error": {"code": …, "message": …}}`; a body that is no JSON of the right shape
//! is 400, a missing or wrong key 401. `info` and `channels` speak of this node alone. The body is read only when all that comes
//! before it is in order: nobody without a key makes this node wait for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use manifold_protocol::json::append_history_result;
use manifold_protocol::{ErrorCode, HistoryRequest};
use manifold_strategies::RoomId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::ALLOW;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::info::JSON;
use super::{api_key, origin, presence, respond};
use crate::clock::unix_us;
use crate::history;
use crate::node::Node;
use crate::publish::{ApiPublish, publish};

/// Rooms of one broadcast at most.
const BROADCAST_ROOMS_MAX: usize = 1000;

/// A request that cannot be read, or names no method.
enum Refusal {
    Status(StatusCode, String),
    Error(ErrorCode),
}

/// `publish` and `broadcast`: a message, and where it goes.
#[derive(Deserialize)]
struct PublishRequest<'a> {
    /// Of `publish`.
    #[serde(default)]
    channel: String,
    /// Of `broadcast`.
    #[serde(default)]
    channels: Vec<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    b64data: String,
    #[serde(default)]
    idempotency_key: String,
}

#[derive(Deserialize)]
struct RoomRequest {
    #[serde(default)]
    channel: String,
}

#[derive(Deserialize)]
struct ChannelsRequest {
    #[serde(default)]
    pattern: String,
}

#[derive(Deserialize)]
struct MethodCall<'a> {
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

pub(super) fn routes(node: Arc<Node>) -> BoxedFilter<(Response,)> {
    let body_bytes_max = node.config().api_body_bytes_max;
    let with_node = warp::any().map(move || Arc::clone(&node));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let method = warp::path!("api" / String).or(warp::path!("api").map(String::new)).unify();
    let refused_body = warp::any().map(|| None);
    let body = warp::body::content_length_limit(body_bytes_max).and(warp::body::stream()).map(Some);
    method
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(body.or(refused_body).unify())
        .and(with_node)
        .then(|api_method: String, method, headers, query, body, node| async move {
            answer(&node, &api_method, &method, &headers, query, body).await
        })
        .boxed()
}

async fn answer(
    node: &Arc<Node>,
    api_method: &str,
    method: &Method,
    headers: &HeaderMap,
    query: String,
    body: Option<impl Stream<Item = Result<impl Buf, warp::Error>>>,
) -> Response {
    if !api_key::is_authorized(node.config().api_key.as_deref(), headers, &query) {
        return respond(StatusCode::UNAUTHORIZED, JSON, "{\"error\":\"unauthorized\"}");
    }
    if method != Method::POST {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, JSON, "{\"error\":\"the API is POST\"}");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Some(body) = body else {
        let message = "the body is too large, or its length is unknown";
        return refuse(Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE, message.to_owned()));
    };
    let body = match read(body).await {
        Ok(body) => body,
        Err(error) => return refuse(Refusal::Status(StatusCode::BAD_REQUEST, error.to_string())),
    };
    let result = if api_method.is_empty() {
        call_in_body(node, &body).await
    } else {
        call(node, api_method, &body).await
    };
    match result {
        Ok(result) => respond(StatusCode::OK, JSON, format!("{{\"result\":{result}}}")),
        Err(refusal) => refuse(refusal),
    }
}

/// The whole body; its declared length is within the limit.
async fn read(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Vec<u8>, warp::Error> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk?;
        while chunk.has_remaining() {
            let part = chunk.chunk();
            bytes.extend_from_slice(part);
            let length = part.len();
            chunk.advance(length);
        }
    }
    Ok(bytes)
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Status(status, message) => respond(status, JSON, json!({ "error": message }).to_string()),
        Refusal::Error(code) => {
            respond(StatusCode::OK, JSON, json!({ "error": error_value(code) }).to_string())
        }
    }
}

fn error_value(code: ErrorCode) -> Value {
    // The server API calls 104 "not found".
    let message = if code == ErrorCode::METHOD_NOT_FOUND { "not found" } else { code.message() };
    json!({ "code": code.0, "message": message })
}

async fn call_in_body(node: &Arc<Node>, body: &[u8]) -> Result<String, Refusal> {
    let MethodCall { method, params } = parse(body)?;
    call(node, &method, params.map_or(b"{}".as_slice(), |params| params.get().as_bytes())).await
}

/// The result as JSON.
async fn call(node: &Arc<Node>, method: &str, body: &[u8]) -> Result<String, Refusal> {
    let result = match method {
        "publish" => {
            let request: PublishRequest<'_> = parse(body)?;
            publish(node, &request.channel, &request.message()?).await.map_err(Refusal::Error)?
        }
        "broadcast" => broadcast(node, parse(body)?).await?,
        "history" => return room_history(node, parse(body)?).await.map_err(Refusal::Error),
        "history_remove" => history_remove(node, &parse::<RoomRequest>(body)?.channel).await?,
        "presence" => {
            let channel = parse::<RoomRequest>(body)?.channel;
            return presence::clients(node, &channel).await.map_err(Refusal::Error);
        }
        "presence_stats" => {
            presence::stats(node, &parse::<RoomRequest>(body)?.channel).map_err(Refusal::Error)?
        }
        "info" => node_info(node),
        "channels" => channels(node, &parse_or_empty::<ChannelsRequest>(body)?.pattern),
        _ => return Err(Refusal::Error(ErrorCode::METHOD_NOT_FOUND)),
    };
    Ok(result.to_string())
}

/// A page of a room's history. Messages go out as they came in, and are never parsed.
async fn room_history(node: &Arc<Node>, request: HistoryRequest<'_>) -> Result<String, ErrorCode> {
    node.rooms().check_form(&request.channel)?;
    let room = RoomId::new(&*request.channel);
    let page = history::read(Arc::clone(node), room, (&request).into()).await?;
    let result = history::result(&page).ok_or(ErrorCode::NOT_AVAILABLE)?;
    let mut out = Vec::new();
    append_history_result(&mut out, &result);
    String::from_utf8(out).map_err(|_| ErrorCode::INTERNAL)
}

async fn history_remove(node: &Node, channel: &str) -> Result<Value, Refusal> {
    node.rooms().check_form(channel).map_err(Refusal::Error)?;
    history::remove(node, &RoomId::new(channel)).await.map_err(Refusal::Error)?;
    Ok(json!({}))
}

impl PublishRequest<'_> {
    fn message(&self) -> Result<ApiPublish<'_>, Refusal> {
        // Bytes that are no JSON have no place in the JSON framing, the only one spoken here.
        let data = self.data.filter(|_| self.b64data.is_empty());
        let data = data.ok_or(Refusal::Error(ErrorCode::BAD_REQUEST))?;
        Ok(ApiPublish { data: data.get(), idempotency_key: &self.idempotency_key })
    }
}

/// Publishes into every room, in order, before it waits for the first acknowledgement.
async fn broadcast(node: &Arc<Node>, request: PublishRequest<'_>) -> Result<Value, Refusal> {
    if request.channels.is_empty() || request.channels.len() > BROADCAST_ROOMS_MAX {
        return Err(Refusal::Error(ErrorCode::BAD_REQUEST));
    }
    let message = request.message()?;
    let publishes: Vec<_> = request.channels.iter().map(|channel| publish(node, channel, &message)).collect();
    let outcomes = futures_util::future::join_all(publishes).await;
    let responses = outcomes.into_iter().map(|outcome| match outcome {
        Ok(result) => json!({ "result": result }),
        Err(code) => json!({ "error": error_value(code) }),
    });
    Ok(json!({ "responses": responses.collect::<Vec<_>>() }))
}

fn node_info(node: &Node) -> Value {
    let rooms = node.hub().rooms();
    let clients = node.connection_count();
    json!({ "nodes": [{
        "uid": node.config().node,
        "name": node.config().node,
        "version": env!("CARGO_PKG_VERSION"),
        "num_clients": clients,
        // All clients are anonymous, which counts as one user.
        "num_users": usize::from(clients > 0),
        "num_channels": rooms.len(),
        "num_subs": rooms.iter().map(|(_, members)| members).sum::<usize>(),
        "uptime": unix_us().saturating_sub(node.started_at_us()) / 1_000_000,
    }] })
}

fn channels(node: &Node, pattern: &str) -> Value {
    let rooms = node.hub().rooms().into_iter();
    let wanted = rooms.filter(|(room, _)| {
        pattern.is_empty() || origin::matches(pattern.as_bytes(), room.as_str().as_bytes())
    });
    let channels: BTreeMap<_, _> =
        wanted.map(|(room, members)| (room.to_string(), json!({ "num_clients": members }))).collect();
    json!({ "channels": channels })
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Status(StatusCode::BAD_REQUEST, error.to_string()))
}

/// An empty body stands for an empty object.
fn parse_or_empty<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    parse(if body.trim_ascii().is_empty() { b"{}" } else { body })
}
