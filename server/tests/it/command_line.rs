//! The binary: settings from all their sources, errors that help, signals.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// The binary with an environment of its own.
pub(crate) fn chat_server() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-server"));
    command.env_clear();
    command
}

fn effective(command: &mut Command) -> toml::Table {
    let output = command.arg("--print-config").output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    toml::from_str(std::str::from_utf8(&output.stdout).unwrap()).expect("TOML")
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server process that is killed when the test ends.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self::start_logging_to(command, Stdio::null())
    }

    pub(crate) fn start_logging_to(command: &mut Command, log: Stdio) -> Self {
        let command = command.env("MANIFOLD_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect("the address").to_owned();
        Self { child, address }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "listen = '1.1.1.1:1'\nnamespace = 'file'\nnode = 'file'\nping_interval_ms = 20000")
        .unwrap();
    writeln!(file, "kafka = 'file:1'\nallowed_origins = ['https://a']").unwrap();
    let mut command = chat_server();
    command.arg("--config").arg(file.path()).args(["--listen", "3.3.3.3:3"]);
    command.env("MANIFOLD_LISTEN", "2.2.2.2:2").env("MANIFOLD_NAMESPACE", "environment");
    command.env("KAFKA_BOOTSTRAP", "environment:1");
    let table = effective(&mut command);
    assert_eq!(table["listen"].as_str(), Some("3.3.3.3:3"));
    assert_eq!(table["namespace"].as_str(), Some("environment"));
    assert_eq!(table["node"].as_str(), Some("file"));
    assert_eq!(table["ping_interval_ms"].as_integer(), Some(20_000));
    assert_eq!(table["kafka"].as_str(), Some("environment:1"));
    assert_eq!(table["pong_timeout_ms"].as_integer(), Some(8_000));
    assert_eq!(table["allowed_origins"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_printed_can_be_read_back_and_hides_secrets() {
    let mut command = chat_server();
    command.args(["--api-key", "hunter2", "--redis", "redis://:hunter2@h:1", "--node", "n1", "--page=false"]);
    let table = effective(&mut command);
    let text = toml::to_string(&table).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    assert_eq!(effective(chat_server().arg("--config").arg(file.path())), table);
}

#[test]
fn mistakes_are_explained() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "listne = 'a'").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    /// Arguments, a variable, and what the error says.
    type Case<'a> = (&'a [&'a str], Option<(&'a str, &'a str)>, &'a str);
    let cases: [Case<'_>; 9] = [
        (&["--strategy", "pigeon"], None, "unknown strategy \"pigeon\": there are memory"),
        (&["--config", &path], None, "listne"),
        (&["--config", "/nowhere.toml"], None, "/nowhere.toml"),
        (&[], Some(("MANIFOLD_LISTNE", "x")), "MANIFOLD_LISTNE"),
        (&["--strategy-option", "nonsense=1"], None, "nonsense"),
        (&["--strategy-option", "nonsense"], None, "KEY=VALUE"),
        (&["--outbox-bytes-max", "10"], None, "outbox_bytes_max"),
        (&["--listne", "x"], None, "--listne"),
        (&["--listen", "nowhere.invalid:1"], None, "nowhere.invalid:1"),
    ];
    for (arguments, variable, expected) in cases {
        let output = chat_server().args(arguments).envs(variable).output().unwrap();
        let error = error(&output);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let running = Running::start(&mut chat_server());
    let output = chat_server().args(["--listen", &running.address]).output().unwrap();
    let error = error(&output);
    assert!(error.contains(&running.address) && error.contains("in use"), "{error}");
}

#[test]
fn sigterm_drains_and_ends_well() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut running = Running::start(&mut chat_server());
        running.signal(signal);
        assert_eq!(running.exit_code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut running = Running::start(chat_server().args(["--close-timeout-ms", "180000"]));
    // A client that will never answer the goodbye.
    let socket = std::net::TcpStream::connect(&running.address).unwrap();
    let request = "GET /connection/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    (&socket).write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(&socket);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    running.signal(rustix::process::Signal::TERM);
    // The goodbye has come: the first signal was taken.
    let mut frame = [0; 4];
    std::io::Read::read_exact(&mut reader, &mut frame).unwrap();
    assert_eq!((frame[0], u16::from_be_bytes([frame[2], frame[3]])), (0x88, 3001));
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.exit_code(), Some(1));
}

#[test]
fn a_broker_that_stays_absent_is_named() {
    let output = chat_server()
        .args(["--strategy", "redis-pubsub", "--redis", "redis://:hunter2@127.0.0.1:1"])
        .args(["--listen", "127.0.0.1:0", "--connect-retry-ms", "300"])
        .output()
        .unwrap();
    let error = error(&output);
    assert!(error.contains("redis-pubsub") && error.contains("127.0.0.1:1"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(output.stdout.is_empty(), "it never served");
}

#[test]
fn a_node_that_waits_for_its_broker_can_be_ended() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = chat_server()
        .args(["--strategy", "redis-pubsub", "--redis", "redis://127.0.0.1:1", "--listen", "127.0.0.1:0"])
        .args(["--connect-retry-ms", "3600000"])
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .expect("the binary runs");
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(log.path()).unwrap().contains("127.0.0.1:1") {
        assert!(
            child.try_wait().unwrap().is_none() && Instant::now() < deadline,
            "it says what it waits for"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut waiting = Running { child, address: String::new() };
    waiting.signal(rustix::process::Signal::TERM);
    assert_eq!(waiting.exit_code(), Some(0));
}
