//! The opening handshake, as pure functions over header fields and bytes.

/// The header fields of a request for an upgrade, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`, well-formed.
    pub key: &'a [u8],
    /// `Origin`; browsers always send it.
    pub origin: Option<&'a [u8]>,
    /// `Sec-WebSocket-Protocol`, as it came (its first occurrence).
    pub protocols: Option<&'a [u8]>,
}

/// Why an upgrade is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not a GET request.
    #[error("the method of an upgrade is GET")]
    Method,
    /// `Upgrade: websocket` or `Connection: upgrade` is missing.
    #[error("not an upgrade to WebSocket")]
    NotAnUpgrade,
    /// A version other than 13.
    #[error("WebSocket version 13 is spoken here")]
    Version,
    /// `Sec-WebSocket-Key` is missing or is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key is missing or malformed")]
    Key,
    /// The server's answer is not an HTTP/1.1 response, or over 16 KiB.
    #[error("the answer is no HTTP response")]
    Malformed,
    /// The server answered with another status than 101.
    #[error("the server answered {0} instead of switching protocols")]
    Status(u16),
    /// `Sec-WebSocket-Accept` does not belong to the key.
    #[error("Sec-WebSocket-Accept does not answer the key")]
    Accept,
    /// The server chose an extension that was not offered.
    #[error("the server chose an extension that was not offered")]
    Extension,
}

impl HandshakeError {
    /// The HTTP status to refuse with. With 426 goes `Sec-WebSocket-Version: 13`.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotAnUpgrade | Self::Version => 426,
            _ => 400,
        }
    }
}

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `Sec-WebSocket-Accept` for a key.
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key);
    sha1.update(GUID);
    base64(&sha1.digest().bytes())
}

/// `Sec-WebSocket-Key` from 16 random bytes.
pub fn client_key(random: [u8; 16]) -> [u8; 24] {
    base64(&random)
}

/// Base64 with padding. `OUT` is four characters for each three bytes begun.
fn base64<const OUT: usize>(bytes: &[u8]) -> [u8; OUT] {
    let mut out = [b'='; OUT];
    for (chunk, quad) in bytes.chunks(3).zip(out.chunks_exact_mut(4)) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (index, character) in quad.iter_mut().take(chunk.len() + 1).enumerate() {
            *character = BASE64[(bits >> (18 - 6 * index)) as usize & 63];
        }
    }
    out
}

/// Checks a request for an upgrade. `headers` are all of its fields, names in any case, in order.
///
/// # Errors
/// See [`HandshakeError`]; answer with its [`status`](HandshakeError::status).
pub fn check_request<'a, 'n>(
    method: &str,
    headers: impl IntoIterator<Item = (&'n str, &'a [u8])>,
) -> Result<Upgrade<'a>, HandshakeError> {
    if method != "GET" {
        return Err(HandshakeError::Method);
    }
    let (mut upgrade, mut connection, mut version) = (false, false, false);
    let (mut key, mut origin, mut protocols) = (None, None, None);
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("upgrade") {
            upgrade |= list_has(value, b"websocket");
        } else if name.eq_ignore_ascii_case("connection") {
            connection |= list_has(value, b"upgrade");
        } else if name.eq_ignore_ascii_case("sec-websocket-version") {
            version = value.trim_ascii() == b"13";
        } else if name.eq_ignore_ascii_case("sec-websocket-key") {
            key = key.or(Some(value.trim_ascii()));
        } else if name.eq_ignore_ascii_case("origin") {
            origin = origin.or(Some(value));
        } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            protocols = protocols.or(Some(value));
        }
    }
    if !upgrade || !connection {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if !version {
        return Err(HandshakeError::Version);
    }
    let key = key.filter(|key| is_key(key)).ok_or(HandshakeError::Key)?;
    Ok(Upgrade { key, origin, protocols })
}

impl Upgrade<'_> {
    /// Whether the client offers a subprotocol.
    pub fn offers(&self, protocol: &str) -> bool {
        self.protocols.is_some_and(|offered| {
            offered.split(|byte| *byte == b',').any(|one| one.trim_ascii() == protocol.as_bytes())
        })
    }
}

/// Whether a comma-separated field has `token`, in any case.
fn list_has(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether `key` is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    matches!(key.split_last_chunk::<2>(), Some((characters, b"==")) if characters.len() == 22
        && characters.iter().all(|byte| BASE64.contains(byte)))
}

/// Appends the response that switches protocols.
pub fn append_response(out: &mut Vec<u8>, key: &[u8], protocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(key));
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a client's request. `host` is `name:port`, `target` the path with its query; `headers` are further fields.
/// None of them may hold line breaks.
pub fn append_request(out: &mut Vec<u8>, host: &str, target: &str, key: &[u8; 24], headers: &[(&str, &str)]) {
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[b"GET ", target.as_bytes(), b" HTTP/1.1\r\nHost: ", host.as_bytes()]);
    put(&[
        b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        key,
    ]);
    for (name, value) in headers {
        put(&[b"\r\n", name.as_bytes(), b": ", value.as_bytes()]);
    }
    put(&[b"\r\n\r\n"]);
}

/// Checks the server's answer to a request with `key`: `None` while it is incomplete, else its length; what follows
/// are frames.
///
/// # Errors
/// See [`HandshakeError`].
pub fn check_response(bytes: &[u8], key: &[u8; 24]) -> Result<Option<usize>, HandshakeError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        let overlong = bytes.len() > RESPONSE_BYTES_MAX;
        return if overlong { Err(HandshakeError::Malformed) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| HandshakeError::Malformed)?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or(HandshakeError::Malformed)?;
    let status = status.get(..3).and_then(|code| code.parse().ok()).ok_or(HandshakeError::Malformed)?;
    if status != 101 {
        return Err(HandshakeError::Status(status));
    }
    let (mut upgrade, mut connection, mut accept) = (false, false, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HandshakeError::Malformed)?;
        let value = value.trim_ascii().as_bytes();
        if name.eq_ignore_ascii_case("upgrade") {
            upgrade |= value.eq_ignore_ascii_case(b"websocket");
        } else if name.eq_ignore_ascii_case("connection") {
            connection |= list_has(value, b"upgrade");
        } else if name.eq_ignore_ascii_case("sec-websocket-accept") {
            accept = value == accept_key(key);
        } else if name.eq_ignore_ascii_case("sec-websocket-extensions") && !value.is_empty() {
            return Err(HandshakeError::Extension);
        }
    }
    match (upgrade && connection, accept) {
        (false, _) => Err(HandshakeError::NotAnUpgrade),
        (true, false) => Err(HandshakeError::Accept),
        (true, true) => Ok(Some(end + 4)),
    }
}
