//! Campaigns.

/// What reports call a strategy with options: `kafka-keyed consume=demand`.
pub fn label(strategy: &str, options: &[impl AsRef<str>]) -> String {
    let mut label = strategy.to_owned();
    for option in options {
        label.push(' ');
        label.push_str(option.as_ref());
    }
    label
}
