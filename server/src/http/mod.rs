//! Everything that is HTTP: the accept loop, and warp's filters for what is not a WebSocket.
//!
//! The accept loop is our own, because `warp::serve` leaves Nagle's algorithm on (a second message would wait for the
//! first one's acknowledgement, 40 ms) and does not give the raw socket back after an upgrade.

mod api;
mod api_key;
mod descriptors;
mod info;
mod origin;
mod page;
mod presence;
mod upgrade;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::node::Node;
use descriptors::Descriptors;

/// Time for the header of a request, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP connections, up to their upgrade, that are open at once; further ones wait in the kernel's queue.
pub(crate) const REQUESTS_MAX: u32 = 4096;
/// Pause after the system refused a connection for a reason that is not the connection's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a client was refused because there are no file descriptors: they may be free again, and a storm of clients is not to
/// take a core.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

/// Accepts connections until `stop` turns true. Each holds one of the [`REQUESTS_MAX`] permits of `requests` until it is
/// answered or upgraded.
pub(crate) async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    requests: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let request_timeout = Duration::from_millis(node.config().request_timeout_ms);
    let routes = routes(Arc::clone(&node));
    let mut descriptors = Descriptors::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &requests) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                node.metrics().count_error("accept");
                if descriptors::are_exhausted(&error) {
                    descriptors.refuse_next(&listener, node.connection_count()).await;
                    tokio::time::sleep(REFUSAL_PAUSE).await;
                } else if !is_of_one_connection(&error) {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        descriptors.note_accepted();
        let request = serve_connection(stream, routes.clone(), request_timeout, stop.clone());
        tokio::spawn(async move {
            request.await;
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    requests: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(requests).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Serves one connection until it is upgraded or over. It is kept for further requests up to `request_timeout`; the one that is
/// under way by then has as long again, however slowly its client sends or reads.
async fn serve_connection(
    stream: TcpStream,
    routes: BoxedFilter<(Response,)>,
    request_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = TowerToHyperService::new(warp::service(routes));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    // Clients that break off or speak no HTTP are not errors of ours.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
        () = tokio::time::sleep(request_timeout) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(request_timeout, connection).await;
}

/// Whether the failure concerns a connection that broke while it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn routes(node: Arc<Node>) -> BoxedFilter<(Response,)> {
    let socket = upgrade::route(Arc::clone(&node));
    let api = api::routes(Arc::clone(&node));
    let info = info::routes(Arc::clone(&node));
    let page = page::routes(node.config().page);
    let found = socket.or(api).unify().or(info).unify().or(page).unify();
    let other = warp::any().map(|| StatusCode::NOT_FOUND.into_response());
    found.or(other).unify().boxed()
}

/// A response with a body and its type.
fn respond(status: StatusCode, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Response {
    let reply = warp::reply::with_header(body.into().to_vec(), "content-type", content_type);
    warp::reply::with_status(reply, status).into_response()
}
