//! From an HTTP request to a session: checks the upgrade, answers 101, takes the raw socket back.

use std::io;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use manifold_protocol::websocket::handshake::{self, HandshakeError};
use tokio::net::TcpStream;
use warp::filters::BoxedFilter;
use warp::http::header::{self, HeaderMap, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{origin, respond};
use crate::connection::Connection;
use crate::node::{Admission, Node};

const TEXT: &str = "text/plain; charset=utf-8";

/// `/connection/websocket`.
pub(super) fn route(node: Arc<Node>) -> BoxedFilter<(Response,)> {
    warp::path!("connection" / "websocket")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(move |method, headers, query: String, upgrade| answer(&node, &method, &headers, &query, upgrade))
        .boxed()
}

fn query() -> impl Filter<Extract = (String,), Error = std::convert::Infallible> + Clone {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

fn answer(
    node: &Arc<Node>,
    method: &Method,
    headers: &HeaderMap,
    query: &str,
    upgrade: Option<OnUpgrade>,
) -> Response {
    let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let request = match handshake::check_request(method.as_str(), fields) {
        Ok(request) => request,
        Err(error) => return refuse_handshake(error),
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    if !origin::is_allowed(request.origin, host, &node.config().allowed_origins) {
        node.metrics().count_error("origin");
        return respond(StatusCode::FORBIDDEN, TEXT, "this origin may not connect\n");
    }
    let Some(protocol) = choose_protocol(headers, query) else {
        return respond(
            StatusCode::BAD_REQUEST,
            TEXT,
            "only the JSON framing is spoken here, not Protobuf\n",
        );
    };
    // hyper offers no upgrade for HTTP/1.0.
    let Some(upgrade) = upgrade else { return refuse_handshake(HandshakeError::NotAnUpgrade) };
    let Some(admission) = node.admit() else {
        node.metrics().count_error("connections_max");
        let refusal =
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no more connections here, try again later\n");
        return warp::reply::with_header(refusal, header::RETRY_AFTER, "5").into_response();
    };
    let accept = handshake::accept_key(request.key);
    tokio::spawn(run(admission, upgrade));
    switching_protocols(&accept, protocol)
}

/// Waits until the 101 is written, then runs the session on the raw socket.
async fn run(admission: Admission, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is not the socket that was accepted");
        return;
    };
    // The session's task is a small one: this one, with all that the handshake needed, ends here.
    // The bytes that came with the handshake are copied: as they are, they would keep hyper's read buffer alive.
    match open(admission, parts.io.into_inner(), parts.read_buf.to_vec()) {
        Ok(connection) => drop(tokio::spawn(connection)),
        Err(error) => tracing::warn!(%error, "cannot open a session"),
    }
}

fn open(admission: Admission, stream: TcpStream, first: Vec<u8>) -> io::Result<Connection> {
    let mut client = [0; 16];
    getrandom::fill(&mut client).map_err(io::Error::other)?;
    Connection::open(admission, stream.into_std()?, u128::from_be_bytes(client), first)
}

/// The subprotocol to answer with. `None`: only Protobuf would do for this client.
fn choose_protocol(headers: &HeaderMap, query: &str) -> Option<Option<&'static str>> {
    let asks_for =
        |name: &str, value: &str| query.split('&').any(|pair| pair.split_once('=') == Some((name, value)));
    if asks_for("cf_protocol", "protobuf") || asks_for("format", "protobuf") {
        return None;
    }
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offered =
        offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut protobuf = false;
    let json = offered.any(|protocol| {
        protobuf |= protocol.trim() == "centrifuge-protobuf";
        protocol.trim() == "centrifuge-json"
    });
    match (json, protobuf) {
        (true, _) => Some(Some("centrifuge-json")),
        (false, true) => None,
        (false, false) => Some(None),
    }
}

fn switching_protocols(accept: &[u8; 28], protocol: Option<&'static str>) -> Response {
    let mut response = Response::new(String::new().into());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_bytes(accept).expect("base64 is a valid field value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

fn refuse_handshake(error: HandshakeError) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = respond(status, TEXT, format!("{error}\n"));
    let headers = response.headers_mut();
    match status {
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            drop(headers.insert(header::ALLOW, HeaderValue::from_static("GET")))
        }
        _ => {}
    }
    response
}
