//! The least HTTP that reads an info page: one request, one answer, one connection.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An info page that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not `http://host:port/path`.
    #[error("{0} is not an http:// address")]
    Address(String),
    /// The server can't be reached or broke off.
    #[error("{url}: {source}")]
    Io {
        /// The address.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server answered something else than 200.
    #[error("{url}: answered {status}")]
    Status {
        /// The address.
        url: String,
        /// Its status line.
        status: String,
    },
}

/// Reads `http://host:port/path`, waiting at most `patience` for each step.
///
/// # Errors
/// See [`HttpError`].
pub fn get(url: &str, patience: Duration) -> Result<String, HttpError> {
    let bad = || HttpError::Address(url.to_owned());
    let io = |source| HttpError::Io { url: url.to_owned(), source };
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address = with_port.to_socket_addrs().map_err(io)?.next().ok_or_else(bad)?;
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(io)?;
    stream.set_read_timeout(Some(patience)).map_err(io)?;
    stream.set_write_timeout(Some(patience)).map_err(io)?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n").map_err(io)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(io)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or("");
    if status.split(' ').nth(1) != Some("200") {
        return Err(HttpError::Status { url: url.to_owned(), status: status.to_owned() });
    }
    Ok(body.to_owned())
}
