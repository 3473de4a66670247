//! The container files, as far as they can be checked without a container engine.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

use manifold_compose::STRATEGIES;

#[test]
fn every_strategy_has_a_container_file_with_its_brokers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("containers");
    for strategy in STRATEGIES {
        let file = folder.join(format!("{}.yaml", strategy.name));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains(&format!("MANIFOLD_STRATEGY: {}\n", strategy.name)), "{}", file.display());
        assert_eq!(text.contains("KAFKA_BOOTSTRAP:"), strategy.kafka, "{}", file.display());
        assert_eq!(text.contains("REDIS_URL:"), strategy.redis, "{}", file.display());
    }
}

#[test]
fn container_files_pin_the_versions_that_run_natively() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pom = fs::read_to_string(folder.join("kafka/pom.xml")).unwrap();
    for entry in fs::read_dir(folder.join("containers")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for image in text.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            match image.split_once(':').unwrap() {
                ("apache/kafka", version) => assert!(pom.contains(&format!("<version>{version}</version>"))),
                ("redis", version) => assert_eq!(version, "7.0.15-alpine"),
                other => panic!("{other:?}"),
            }
        }
    }
}
