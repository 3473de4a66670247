//! Running out of file descriptors: every client is one, and the system refuses connections when there are no more.
//!
//! A node that only waited would leave its clients hanging in the kernel's queue. So it keeps one descriptor in reserve: with that it
//! accepts who comes, says 503, and hangs up, so that clients go elsewhere and health checks see the truth. The log says at the
//! beginning what to do, and at the end how many were refused; clients that are connected notice nothing.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Held open for as long as there are others.
const RESERVE_PATH: &str = "/dev/null";
/// Time for a refused client's request to come: who hangs up before it takes its answer with it.
const REQUEST_PATIENCE: Duration = Duration::from_millis(50);
/// Time between two lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
    Content-Type: application/json\r\nContent-Length: 43\r\n\r\n{\"unavailable\":\"out of file descriptors\"}\r\n";

/// The reserve, and how bad it is.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    reserve: Option<File>,
    /// Since when there are none.
    exhausted_since: Option<Instant>,
    logged_at: Option<Instant>,
    refused: u64,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        let mut descriptors = Self::default();
        descriptors.keep_reserve();
        descriptors
    }

    fn keep_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = File::open(RESERVE_PATH).ok();
        }
    }

    /// A connection was accepted.
    pub(super) fn note_accepted(&mut self) {
        self.keep_reserve();
        if let Some(since) = self.exhausted_since.take() {
            tracing::info!(after = ?since.elapsed(), refused = self.refused, "there are file descriptors again");
            self.refused = 0;
        }
    }

    /// There is no descriptor for who comes next: refuses it.
    pub(super) async fn refuse_next(&mut self, listener: &TcpListener, clients: usize) {
        self.exhausted_since.get_or_insert_with(Instant::now);
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            tracing::error!(
                limit = getrlimit(Resource::Nofile).current,
                clients,
                "out of file descriptors: new clients are refused with status 503. Raise the limit of open files (ulimit -n, \
                 LimitNOFILE= of the systemd unit, --ulimit nofile= of the container), or lower --connections-max below it"
            );
        }
        drop(self.reserve.take());
        // Nobody may wait any more, and others may have taken the descriptor: both are well.
        if let Ok(Ok((stream, _))) = tokio::time::timeout(REQUEST_PATIENCE, listener.accept()).await {
            refuse(&stream).await;
            self.refused += 1;
        }
        self.keep_reserve();
    }
}

/// Answers whatever was asked with status 503.
async fn refuse(stream: &TcpStream) {
    let mut request = [0; 4096];
    if let Ok(Ok(())) = tokio::time::timeout(REQUEST_PATIENCE, stream.readable()).await {
        let _ = stream.try_read(&mut request);
    }
    // A new socket has space for this.
    let _ = stream.try_write(REFUSAL);
}

/// Whether there is a descriptor for one more client.
pub(super) fn is_one_left() -> bool {
    !File::open(RESERVE_PATH).is_err_and(|error| are_exhausted(&error))
}

/// Whether an operation failed because there are no more descriptors, of this process or at all.
pub(super) fn are_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    exhausted.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
