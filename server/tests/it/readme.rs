//! What the README says of settings and metrics, against what there is.

use manifold_server::config::Config;

use crate::support::{config, http, serve};

const README: &str = include_str!("../../README.md");

#[test]
fn every_setting_is_in_it_with_its_default() {
    let given = Config { kafka: None, ..Config::default() };
    let table = toml::Table::try_from(&given).expect("settings are TOML");
    for (name, value) in &table {
        if name == "strategy_option" {
            continue;
        }
        let row = README.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README"));
        let default = row.split('|').nth(2).map(str::trim).unwrap_or_default();
        let expected = match value {
            _ if name == "node" => "random".to_owned(),
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(list) if list.is_empty() => "(none)".to_owned(),
            other => other.to_string(),
        };
        assert_eq!(default, expected, "{name}");
    }
}

#[tokio::test]
async fn every_metric_is_in_it() {
    let server = serve(config()).await;
    let metrics = http(server.address(), "GET /metrics HTTP/1.1", "").await.1;
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut count = 0;
    for (name, kind) in names {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let mentioned = [format!("`{name}`"), format!("`{name}{{")];
        assert!(mentioned.iter().any(|text| README.contains(text)), "{name} is not in the README");
        count += 1;
    }
    assert!(count > 20, "{metrics}");
}
