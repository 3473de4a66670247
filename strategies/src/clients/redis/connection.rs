//! One connection to one Redis server, for pipelined commands, subscriptions, or both.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Login;
use super::resp::{self, Value};
use crate::error::{Error, ErrorKind, Result};

/// Room made in the inbox before each read: what one turn takes from the socket at most.
const READ_BYTES: usize = 64 * 1024;

/// A connection that speaks RESP3. Nothing here waits without the caller's deadline or a `timeout` of its own.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    id: i64,
    inbox: BytesMut,
    outbox: BytesMut,
}

/// How to open a connection.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The user and password.
    pub login: Login,
    /// The database to select.
    pub database: u32,
    /// The name that `CLIENT LIST` shows.
    pub name: String,
    /// Bound for connecting and for each reply of the opening.
    pub timeout: Duration,
}

impl Connection {
    /// Connects to `host` (`host:port`), without Nagle's delay, switches to RESP3, logs in and selects the database.
    pub async fn open(host: &str, opening: &Opening) -> Result<Self> {
        let stream = within(opening.timeout, host, async {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .await?;
        let mut connection = Self { stream, id: 0, inbox: BytesMut::new(), outbox: BytesMut::new() };
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &opening.login.password {
            let user = opening.login.user.as_deref().unwrap_or("default");
            hello.extend([&b"AUTH"[..], user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([&b"SETNAME"[..], opening.name.as_bytes()]);
        let greeting = connection.call(&hello, opening.timeout).await;
        connection.id = id(&greeting.map_err(|error| not_welcome(host, error))?)?;
        if opening.database != 0 {
            connection.call(&[b"SELECT", opening.database.to_string().as_bytes()], opening.timeout).await?;
        }
        Ok(connection)
    }

    /// The number that the server's process gave to this connection, and to no other.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Sends one command and waits for its reply. Only while nothing else is outstanding; pushes are dropped.
    pub async fn call(&mut self, command: &[&[u8]], limit: Duration) -> Result<Value> {
        resp::put_command(&mut self.outbox, command);
        let reply = async {
            loop {
                match self.received()? {
                    Some(Value::Push(_)) => {}
                    Some(Value::Error(message)) => return Err(refused(&message)),
                    Some(value) => return Ok(value),
                    None => self.turn().await?,
                }
            }
        };
        timeout(limit, reply).await.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    /// Where commands are written to; [`turn`](Self::turn) sends them.
    pub fn outbox(&mut self) -> &mut BytesMut {
        &mut self.outbox
    }

    /// The next value that has arrived completely.
    pub fn received(&mut self) -> Result<Option<Value>> {
        if self.inbox.is_empty() { Ok(None) } else { resp::take(&mut self.inbox) }
    }

    /// Sends what is in the outbox, as far as the socket takes it, until something was received. May be dropped and
    /// called again at any time.
    pub async fn turn(&mut self) -> Result<()> {
        self.inbox.reserve(READ_BYTES);
        let (mut reader, mut writer) = self.stream.split();
        let failed = |error: io::Error| lost(error.to_string());
        loop {
            tokio::select! {
                biased;
                sent = writer.write(&self.outbox), if !self.outbox.is_empty() => {
                    self.outbox.advance(sent.map_err(failed)?);
                }
                // Unlike `try_read_buf`, this knows that a short read has emptied the socket, and saves the next call.
                received = reader.read_buf(&mut self.inbox) => return match received.map_err(failed)? {
                    0 => Err(lost("the server closed it".to_owned())),
                    _ => Ok(()),
                },
            }
        }
    }
}

/// A refused greeting: wrong password, or a server that does not know RESP3. One that is still loading just takes time.
fn not_welcome(host: &str, error: Error) -> Error {
    if error.is_temporary() {
        return error;
    }
    let problem =
        format!("Redis at {host} refuses this node: check user and password; it must be 6.2 or newer");
    Error::new(ErrorKind::Config, "connect", problem).with_source(error)
}

/// The number of a connection, as the greeting tells it.
fn id(greeting: &Value) -> Result<i64> {
    let fields = if let Value::Array(fields) = greeting { &fields[..] } else { &[] };
    let id = fields.chunks_exact(2).find_map(|field| match field {
        [Value::Text(name), Value::Integer(id)] if &name[..] == b"id" => Some(*id),
        _ => None,
    });
    id.ok_or_else(|| Error::new(ErrorKind::Corrupt, "connect", "Redis did not say which connection this is"))
}

/// Runs a step of connecting to `host`, bounded.
async fn within<T>(limit: Duration, host: &str, step: impl Future<Output = io::Result<T>>) -> Result<T> {
    let failed =
        |kind, why: String| Error::new(kind, "connect", format!("no Redis at {host}: {why}; is it running?"));
    match timeout(limit, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(ErrorKind::Unreachable, error.to_string())),
        // Nobody refuses either: packets vanish on the way, or a host hangs.
        Err(_) => Err(failed(ErrorKind::Timeout, format!("no connection within {limit:?}"))),
    }
}

/// The error for an error reply. Its first word is Redis' own code.
pub fn refused(message: &[u8]) -> Error {
    let mut message = String::from_utf8_lossy(message).into_owned();
    let code = message.split(' ').next().unwrap_or_default();
    let temporary = !matches!(code, "ERR" | "NOPERM" | "NOAUTH" | "WRONGPASS" | "WRONGTYPE" | "NOPROTO");
    if code == "OOM" {
        message.push_str("; raise maxmemory of this Redis, or let it keep less: history_messages, history_minutes, dedup_seconds");
    }
    Error::new(ErrorKind::Broker, "redis", message).with_temporary(temporary)
}

/// The error for a server that keeps silent.
pub fn no_answer(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "redis", format!("Redis did not answer within {limit:?}"))
}

fn lost(why: String) -> Error {
    Error::new(ErrorKind::Unreachable, "redis", format!("the connection to Redis was lost: {why}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_the_socket_does_not_take_keeps_nothing_from_being_received() {
        const SENT_BYTES: usize = 16 * 1024 * 1024;
        const LIMIT: Duration = Duration::from_secs(20);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let outbox: BytesMut = (0..SENT_BYTES).map(|at| (at % 251) as u8).collect();
        let expected = outbox.clone();
        let mut connection = Connection { stream, id: 0, inbox: BytesMut::new(), outbox };
        server.write_all(b"+one\r\n").await.unwrap();
        timeout(LIMIT, connection.turn()).await.unwrap().unwrap();
        assert!(matches!(connection.received(), Ok(Some(Value::Text(text))) if &text[..] == b"one"));
        // Nobody reads what it sends.
        let stuck = timeout(Duration::from_millis(50), connection.turn()).await;
        assert!(stuck.is_err() && !connection.outbox.is_empty());
        let reading = tokio::spawn(async move {
            let mut got = vec![0; SENT_BYTES];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(b"+two\r\n").await.unwrap();
            got
        });
        timeout(LIMIT, connection.turn()).await.unwrap().unwrap();
        assert!(matches!(connection.received(), Ok(Some(Value::Text(text))) if &text[..] == b"two"));
        assert!(connection.outbox.is_empty() && reading.await.unwrap() == expected);
        let end = timeout(LIMIT, connection.turn()).await.unwrap().unwrap_err();
        assert_eq!(end.kind(), ErrorKind::Unreachable, "the server has gone");
    }
}
