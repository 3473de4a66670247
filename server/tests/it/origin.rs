//! Who may open a WebSocket, and what is answered to the others.

use manifold_server::config::Config;

use crate::support::{config, http, serve};

const UPGRADE: &str = "GET /connection/websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn origins_are_checked() {
    let server =
        serve(Config { allowed_origins: vec!["https://*.example.org".to_owned()], ..config() }).await;
    let address = server.address();
    let refused =
        [format!("{UPGRADE}\r\nOrigin: https://evil.example"), format!("{UPGRADE}\r\nOrigin: null")];
    for head in refused {
        assert_eq!(http(address, &head, "").await.0, 403, "{head}");
    }
    for origin in ["https://a.example.org".to_owned(), format!("http://{address}")] {
        let request = tokio_tungstenite::tungstenite::ClientRequestBuilder::new(
            format!("ws://{address}/connection/websocket").parse().unwrap(),
        )
        .with_header("Origin", origin);
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await.expect("an allowed origin");
    }
}

#[tokio::test]
async fn requests_that_are_no_upgrade_are_refused() {
    let server = serve(config()).await;
    let address = server.address();
    let version = UPGRADE.replace("13", "12");
    let key = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    let post = UPGRADE.replace("GET", "POST");
    let old = UPGRADE.replace("HTTP/1.1", "HTTP/1.0");
    let protobuf = format!("{UPGRADE}\r\nSec-WebSocket-Protocol: centrifuge-protobuf");
    let query = UPGRADE.replace("websocket HTTP", "websocket?cf_protocol=protobuf HTTP");
    let cases = [
        ("GET /connection/websocket HTTP/1.1", 426),
        (version.as_str(), 426),
        (key.as_str(), 400),
        (post.as_str(), 405),
        (old.as_str(), 426),
        (protobuf.as_str(), 400),
        (query.as_str(), 400),
        ("GET /nowhere HTTP/1.1", 404),
    ];
    for (head, status) in cases {
        assert_eq!(http(address, head, "").await.0, status, "{head}");
    }
}

#[tokio::test]
async fn the_json_subprotocol_is_echoed() {
    let server = serve(config()).await;
    let address = server.address();
    let request = tokio_tungstenite::tungstenite::ClientRequestBuilder::new(
        format!("ws://{address}/connection/websocket").parse().unwrap(),
    )
    .with_sub_protocol("centrifuge-protobuf")
    .with_sub_protocol("centrifuge-json");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (_, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "centrifuge-json");
}
