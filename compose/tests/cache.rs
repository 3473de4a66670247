//! The cache: filled from nothing by callers at the same time, and never trusted blindly.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn compose(cache: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compose"));
    command.args(words).env("MANIFOLD_CACHE", cache).env("XDG_RUNTIME_DIR", cache);
    command.env_remove("KAFKA_BOOTSTRAP").env_remove("REDIS_URL").output().unwrap()
}

fn folder_with_prefix(cache: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries
        .filter(|path| path.is_dir() && path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    let folder = found.next().unwrap();
    assert_eq!(found.next(), None, "one {prefix} folder only");
    folder
}

#[test]
fn it_is_filled_once_and_a_corrupt_jar_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    std::thread::scope(|scope| {
        let warming: Vec<_> = (0..2).map(|_| scope.spawn(|| compose(cache, &["warm"]))).collect();
        for warm in warming {
            let output = warm.join().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(text.contains("Kafka: 4.3.0"), "{text}");
        }
    });
    assert!(folder_with_prefix(cache, "kafka-start-").join("classes.jsa").is_file());

    // One bit of one jar.
    let jar = folder_with_prefix(cache, "kafka-4.3.0-").join("log4j-api-2.25.4.jar");
    let mut bytes = fs::read(&jar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&jar, bytes).unwrap();
    let output = compose(cache, &["up", "kafka-keyed"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.contains("log4j-api-2.25.4.jar is not the pinned artefact") && text.contains("remove "),
        "{text}"
    );
}
