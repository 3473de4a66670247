//! The checked-in schema is that of the types, and records keep to it.

use std::path::PathBuf;

use super::*;
use crate::report::sample::{Sample, campaign};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/schema/run.schema.json")
}

fn generated() -> String {
    let schema = schemars::schema_for!(RunRecord);
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

#[test]
fn the_checked_in_schema_is_that_of_the_types() {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::create_dir_all(path().parent().unwrap()).unwrap();
        std::fs::write(path(), generated()).unwrap();
    }
    let checked_in = std::fs::read_to_string(path()).unwrap();
    assert!(
        checked_in == generated(),
        "results/schema/run.schema.json is stale: run the tests with UPDATE_SCHEMA=1"
    );
}

fn validator() -> jsonschema::Validator {
    let schema: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn records_keep_to_the_schema_and_survive_a_round_trip() {
    let validator = validator();
    for record in campaign(1) {
        let value = serde_json::to_value(&record).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let back: RunRecord = serde_json::from_value(value).unwrap();
        assert_eq!(back, record);
    }
}

#[test]
fn the_schema_refuses_what_is_no_record() {
    let validator = validator();
    let mut value = serde_json::to_value(Sample::new("hybrid", "small-rooms", 1, 0.3).record()).unwrap();
    value["unheard_of"] = 1.into();
    assert!(!validator.is_valid(&value));
    value.as_object_mut().unwrap().remove("unheard_of");
    assert!(validator.is_valid(&value));
    value["measured"]["audit"]["expected"] = "many".into();
    assert!(!validator.is_valid(&value));
}

/// Every record that lies in the repository, whoever made it.
#[test]
fn committed_results_keep_to_the_schema() {
    let validator = validator();
    let results = path().parent().unwrap().parent().unwrap().to_owned();
    let mut folders = vec![results];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.ends_with("run.json") {
                let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
                assert!(validator.is_valid(&value), "{} does not keep to the schema", path.display());
            }
        }
    }
}
