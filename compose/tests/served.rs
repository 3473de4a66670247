//! A program of any make that says where it listens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::Path;

use manifold_compose::{Result, Served};

use support::is_gone;

fn shell(script: &str) -> Result<Served> {
    Served::start("n1", Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()])
}

#[test]
fn it_is_found_where_it_says_and_goes_with_its_value() {
    let served = shell("echo hello; echo listening on http://127.0.0.1:7; exec sleep 600").unwrap();
    assert_eq!(served.http(), "http://127.0.0.1:7");
    assert_eq!(served.url(), "ws://127.0.0.1:7/connection/websocket");
    let (pid, folder) = (served.process().pid(), served.folder().to_owned());
    assert!(folder.is_dir() && !is_gone(pid));
    drop(served);
    assert!(is_gone(pid) && !folder.exists());
}

#[test]
fn one_that_ends_instead_is_an_error_with_its_last_words() {
    let error = shell("echo no port is free >&2; exit 3").unwrap_err().to_string();
    assert!(error.contains("no port is free"), "{error}");
}
