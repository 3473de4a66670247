//! The architecture's invariants that can be read off the tree: see ARCHITECTURE.md. The others (one entrance,
//! bounded queues, declared gaps) are tested where they live.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifold_compose::STRATEGIES;
use manifold_strategies::REGISTRY;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names of all packages that `package` is built from, tests left out.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<_> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains(package), "cargo tree does not name {package} itself: has its output changed?");
    names
}

/// Every file below `folder` that ends in `.extension`.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if !path.ends_with("target") && !path.ends_with("node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} below {folder}");
    found
}

#[test]
fn the_load_generator_is_a_black_box() {
    let names = dependencies("manifold-loadgen");
    for forbidden in ["manifold-server", "manifold-strategies"] {
        assert!(!names.contains(forbidden), "loadgen depends on {forbidden}");
    }
}

#[test]
fn the_server_names_no_broker() {
    for path in files("server/src", "rs") {
        let text = fs::read_to_string(&path).expect("readable");
        for forbidden in ["rdkafka", "redis::"] {
            assert!(!text.contains(forbidden), "{} names {forbidden}", path.display());
        }
    }
    let manifest = fs::read_to_string(root().join("server/Cargo.toml")).expect("readable");
    let direct = manifest
        .lines()
        .any(|line| line.starts_with("rdkafka") || line.starts_with("redis.") || line.starts_with("redis ="));
    assert!(!direct, "server/Cargo.toml depends on a broker's client");
}

#[test]
fn the_protocol_does_no_io() {
    let names = dependencies("manifold-protocol");
    for forbidden in ["tokio", "mio", "hyper", "async-io", "socket2", "rustix"] {
        assert!(!names.contains(forbidden), "protocol depends on {forbidden}");
    }
    for path in files("protocol/src", "rs") {
        let text = fs::read_to_string(&path).expect("readable");
        for forbidden in ["std::net", "std::fs", "std::io", "async fn"] {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn every_strategy_has_its_brokers_in_compose() {
    let registry: BTreeSet<_> = REGISTRY.iter().map(|s| (s.name, s.needs.kafka, s.needs.redis)).collect();
    let compose: BTreeSet<_> = STRATEGIES.iter().map(|s| (s.name, s.kafka, s.redis)).collect();
    assert_eq!(registry, compose, "strategies/src/lib.rs and compose disagree");
}

#[test]
fn scenarios_name_no_strategy() {
    for path in files("loadgen/scenarios", "toml") {
        let text = fs::read_to_string(&path).expect("readable");
        for strategy in REGISTRY.iter().filter(|strategy| strategy.name != "memory") {
            assert!(!text.contains(strategy.name), "{} names {}", path.display(), strategy.name);
        }
    }
}

#[test]
fn unsafe_code_has_one_place() {
    let crates = ["protocol/src", "strategies/src", "server/src", "loadgen/src", "compose/src"];
    let sources = crates.iter().flat_map(|folder| files(folder, "rs"));
    let places: Vec<_> = sources
        .filter(|path| fs::read_to_string(path).expect("readable").contains("allow(unsafe_code)"))
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    assert!(places.len() <= 1, "unsafe code is allowed in {places:?}");
}

#[test]
fn no_source_file_is_two_things() {
    for folder in ["protocol", "strategies", "server", "loadgen", "compose"] {
        for path in files(folder, "rs") {
            let lines = fs::read_to_string(&path).expect("readable").lines().count();
            assert!(lines <= 400, "{} has {lines} lines", path.display());
        }
    }
}

/// Clauses look like "… — `file`: `test`, `test`; `file`: `test`".
#[test]
fn every_promise_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).expect("readable");
    let (_, clauses) = text.split_once("## Delivery").expect("the clauses");
    let (clauses, _) = clauses.split_once("## Declared").expect("what was observed");
    let mut source = String::new();
    let mut named = 0;
    for quoted in clauses.split('`').skip(1).step_by(2) {
        if quoted.contains('/') {
            let path = root().join(quoted);
            source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{quoted}: {error}"));
        } else if quoted.contains(['_', ' ']) && !quoted.contains(':') {
            // Prose quotes words of the protocol, too; the name of a test has none of their marks.
            let forms = [format!("fn {quoted}("), format!("\"{quoted}"), format!("def {quoted}(")];
            assert!(
                forms.iter().any(|form| source.contains(form)),
                "no test is called {quoted:?} where it should be"
            );
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests are named: has the form of the clauses changed?");
}
