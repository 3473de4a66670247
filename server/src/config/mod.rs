//! Settings: read once at start from flags, environment, file and defaults (in this order of precedence), checked, and
//! from then on constant.

mod bounds;
mod load;
mod options;

pub use load::{ConfigError, Invocation, from_command_line};
pub use options::{Config, LogFormat};

use manifold_strategies::Strategy;

/// What stands in place of a secret.
const MASK: &str = "***";

impl Config {
    /// The strategy that these settings name.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn strategy(&self) -> Result<&'static Strategy, ConfigError> {
        manifold_strategies::find(&self.strategy)
            .ok_or_else(|| ConfigError::UnknownStrategy { name: self.strategy.clone() })
    }

    /// These settings as TOML, the strategy's with their defaults, secrets masked.
    ///
    /// # Errors
    /// Where the strategy refuses its settings.
    pub fn effective(&self) -> Result<toml::Table, ConfigError> {
        let mut shown = self.masked();
        shown.strategy_option = (self.strategy()?.settings)(&self.strategy_option)?;
        toml::Table::try_from(&shown).map_err(ConfigError::Show)
    }

    fn masked(&self) -> Self {
        let mut shown = self.clone();
        shown.api_key = self.api_key.as_ref().map(|_| MASK.to_owned());
        shown.redis = self.redis.as_deref().map(mask_password);
        shown
    }
}

/// Hides what stands between `://` and the last `@` of an address.
fn mask_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}{MASK}{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

/// A node's name for those who do not care.
fn random_node_name() -> String {
    let mut bytes = [0; 4];
    // Without randomness the process id is as good as it gets.
    let random =
        getrandom::fill(&mut bytes).map_or_else(|_| std::process::id(), |()| u32::from_be_bytes(bytes));
    format!("node-{random:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(mask_password("redis://:secret@h:1/0"), "redis://***@h:1/0");
        assert_eq!(mask_password("redis://user:se@cret@h:1"), "redis://***@h:1");
        assert_eq!(mask_password("redis://h:1"), "redis://h:1");
    }

    #[test]
    fn a_look_at_the_settings_shows_no_secret() {
        let config = Config {
            api_key: Some("hunter2".to_owned()),
            redis: Some("redis://:hunter2@h:1".to_owned()),
            ..Config::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("redis://***@h:1"), "{shown}");
    }

    #[test]
    fn defaults_are_within_their_bounds() {
        Config::default().check().expect("the defaults hold");
    }
}
