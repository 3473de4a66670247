//! The checked-in schema is that of the types, and committed benches keep to it.

use std::path::PathBuf;

use super::record::Bench;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/schema/bench.schema.json")
}

#[test]
fn the_checked_in_schema_is_that_of_the_types() {
    let generated = serde_json::to_string_pretty(&schemars::schema_for!(Bench)).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::create_dir_all(path().parent().unwrap()).unwrap();
        std::fs::write(path(), &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(
        checked_in == generated,
        "results/schema/bench.schema.json is stale: run the tests with UPDATE_SCHEMA=1"
    );
}

#[test]
fn committed_benches_are_read_and_written_alike() {
    let results = path().parent().unwrap().parent().unwrap().to_owned();
    for entry in std::fs::read_dir(results).unwrap() {
        let file = entry.unwrap().path().join("bench.json");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bench: Bench = serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(serde_json::to_value(&bench).unwrap(), value, "{}", file.display());
    }
}
