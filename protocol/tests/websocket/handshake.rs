//! The opening handshake, with RFC 6455's own example and tungstenite as the other end.

use manifold_protocol::websocket::handshake::{
    HandshakeError, accept_key, append_request, append_response, check_request, check_response, client_key,
};
use tungstenite::handshake::derive_accept_key;
use tungstenite::http::Request;

const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: [(&str, &[u8]); 4] = [
    ("Upgrade", b"WebSocket"),
    ("connection", b"keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", b"13"),
    ("sec-websocket-key", KEY),
];

#[test]
fn keys() {
    assert_eq!(&client_key(*b"the sample nonce"), KEY);
    assert_eq!(&accept_key(KEY), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for seed in 0..200_u8 {
        let key = client_key(std::array::from_fn(|index| {
            seed.wrapping_mul(37).wrapping_add((index as u8).wrapping_mul(91))
        }));
        assert_eq!(derive_accept_key(&key).as_bytes(), accept_key(&key));
    }
}

#[test]
fn requests() {
    let upgrade = check_request("GET", GOOD).unwrap();
    assert_eq!((upgrade.key, upgrade.origin, upgrade.offers("x")), (&KEY[..], None, false));
    let more: [(&str, &[u8]); 2] =
        [("ORIGIN", b"https://a.example"), ("Sec-WebSocket-Protocol", b"x, centrifuge-json")];
    let upgrade = check_request("GET", GOOD.into_iter().chain(more)).unwrap();
    assert_eq!(upgrade.origin, Some(&b"https://a.example"[..]));
    assert!(upgrade.offers("centrifuge-json") && upgrade.offers("x") && !upgrade.offers("centrifuge"));

    assert_eq!(check_request("POST", GOOD), Err(HandshakeError::Method));
    let missing = [
        HandshakeError::NotAnUpgrade,
        HandshakeError::NotAnUpgrade,
        HandshakeError::Version,
        HandshakeError::Key,
    ];
    for (index, error) in missing.into_iter().enumerate() {
        let fields = GOOD.into_iter().enumerate().filter(|(at, _)| *at != index).map(|(_, field)| field);
        assert_eq!(check_request("GET", fields), Err(error));
    }
    for key in
        [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ=", b"dGhlIHNhbXBsZSBub25jZ!==", b"dGhlIHNhbXBsZSBub25jZQAA"]
    {
        let fields = GOOD[..3].iter().copied().chain([("sec-websocket-key", key)]);
        assert_eq!(check_request("GET", fields), Err(HandshakeError::Key));
    }
    assert_eq!((HandshakeError::Version.status(), HandshakeError::Key.status()), (426, 400));
}

#[test]
fn responses() {
    let mut good = Vec::new();
    append_response(&mut good, KEY, Some("centrifuge-json"));
    good.extend_from_slice(b"\x81\x00");
    for length in 0..good.len() - 2 {
        assert_eq!(check_response(&good[..length], KEY), Ok(None));
    }
    assert_eq!(check_response(&good, KEY), Ok(Some(good.len() - 2)));
    assert_eq!(check_response(&good, &client_key([0; 16])), Err(HandshakeError::Accept));
    let answer = |text: &str| check_response(format!("{text}\r\n\r\n").as_bytes(), KEY);
    assert_eq!(answer("HTTP/1.1 403 Forbidden\r\nA: b"), Err(HandshakeError::Status(403)));
    assert_eq!(answer("HTTP/1.1 101"), Err(HandshakeError::NotAnUpgrade));
    assert_eq!(answer("SSH-2.0"), Err(HandshakeError::Malformed));
    assert_eq!(answer("HTTP/1.1 101 x\r\nnonsense"), Err(HandshakeError::Malformed));
    assert_eq!(answer("HTTP/1.1 101 x\r\nSec-WebSocket-Extensions: x"), Err(HandshakeError::Extension));
    assert_eq!(check_response(&[b'x'; 20_000], KEY), Err(HandshakeError::Malformed));
}

#[test]
fn both_ends_agree_with_the_oracle() {
    let mut request = Vec::new();
    append_request(&mut request, "localhost:1", "/connection/websocket?a=b", KEY, &[("Origin", "http://a")]);
    let text = std::str::from_utf8(&request).unwrap();
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    assert_eq!(lines.next(), Some("GET /connection/websocket?a=b HTTP/1.1"));
    let fields: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(fields[0], ("Host", "localhost:1"));
    check_request("GET", fields.iter().map(|(name, value)| (*name, value.as_bytes()))).unwrap();

    let mut theirs = Request::get("/connection/websocket");
    for (name, value) in &fields {
        theirs = theirs.header(*name, *value);
    }
    let response = tungstenite::handshake::server::create_response(&theirs.body(()).unwrap()).unwrap();
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        answer.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend_from_slice(b"\r\n");
    assert_eq!(check_response(&answer, KEY), Ok(Some(answer.len())));
}
