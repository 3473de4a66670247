//! Where settings come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser};

use super::Config;
use super::options::Layer;

/// Prefix of this program's environment variables.
const PREFIX: &str = "MANIFOLD_";
/// Strategy settings from the environment: `key=value;key=value`.
const STRATEGY_OPTION: &str = "MANIFOLD_STRATEGY_OPTION";

/// Variables with the prefix that belong to this program's siblings, whose processes start it.
const SIBLINGS: [&str; 1] = ["MANIFOLD_CACHE"];

/// The chat server of Manifold.
///
/// Every option can also be given in the environment (as shown) or in a TOML file (--config), there in snake_case and
/// strategy options as a table named strategy_option. Flags win over the environment, the environment wins over the file.
#[derive(Parser)]
#[command(name = "chat-server", version, about)]
struct CommandLine {
    /// A TOML file with settings.
    #[arg(long, env = "MANIFOLD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in effect as TOML, secrets masked, and leave.
    #[arg(long)]
    print_config: bool,
    /// A setting of the strategy; may be given several times. (Environment: MANIFOLD_STRATEGY_OPTION=key=value;key=value)
    #[arg(long, value_name = "KEY=VALUE")]
    strategy_option: Vec<String>,
    #[command(flatten)]
    layer: Layer,
}

/// What the program was called for.
#[derive(Debug)]
pub struct Invocation {
    /// Checked settings.
    pub config: Config,
    /// Print them and leave.
    pub print_config: bool,
}

/// Why the settings do not do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, as clap explains it. Also `--help` and `--version`.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A variable with our prefix that means nothing.
    #[error(
        "unknown environment variable {name}: variables that begin with {PREFIX} are settings of this program"
    )]
    UnknownVariable {
        /// Its name.
        name: String,
    },
    /// A variable that is no text.
    #[error("environment variable {name} is not UTF-8")]
    NotText {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML, or has unknown keys.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// A strategy option without `=`.
    #[error("strategy option {text:?} is not KEY=VALUE")]
    StrategyOption {
        /// As it was given.
        text: String,
    },
    /// A value out of its bounds.
    #[error("{option}: {message}")]
    OutOfBounds {
        /// The setting.
        option: &'static str,
        /// What is wrong.
        message: String,
    },
    /// No strategy has this name.
    #[error("unknown strategy {name:?}: there are {}", strategy_names())]
    UnknownStrategy {
        /// As it was given.
        name: String,
    },
    /// The strategy refuses its settings, or lacks an address.
    #[error(transparent)]
    Strategy(#[from] manifold_strategies::Error),
    /// The settings cannot be printed.
    #[error("the settings cannot be written as TOML: {0}")]
    Show(toml::ser::Error),
}

impl ConfigError {
    pub(super) fn out_of_bounds(option: &'static str, message: String) -> Self {
        Self::OutOfBounds { option, message }
    }
}

/// Reads the settings that `arguments` (the program's name first), the environment and the file give, and checks them.
///
/// # Errors
/// See [`ConfigError`].
pub fn from_command_line(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Invocation, ConfigError> {
    check_variables(std::env::vars_os().map(|(name, _)| name))?;
    let matches = CommandLine::command().try_get_matches_from(arguments)?;
    let CommandLine { config: file, print_config, strategy_option, mut layer } =
        CommandLine::from_arg_matches(&matches)?;
    layer.kafka = layer.kafka.or_else(|| std::env::var("KAFKA_BOOTSTRAP").ok());
    layer.redis = layer.redis.or_else(|| std::env::var("REDIS_URL").ok());
    if let Some(variable) = text_variable(STRATEGY_OPTION)? {
        for option in variable.split(';').filter(|option| !option.trim().is_empty()) {
            add_strategy_option(&mut layer.strategy_option, option)?;
        }
    }
    for option in &strategy_option {
        add_strategy_option(&mut layer.strategy_option, option)?;
    }
    if let Some(path) = file {
        layer = layer.over(read_file(&path)?);
    }
    let config = layer.resolve();
    config.check()?;
    (config.strategy()?.settings)(&config.strategy_option)?;
    Ok(Invocation { config, print_config })
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source: Box::new(source) })
}

/// Refuses variables with our prefix that no option has.
fn check_variables(names: impl Iterator<Item = OsString>) -> Result<(), ConfigError> {
    let command = CommandLine::command();
    for name in names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(PREFIX)) {
        let known = name == STRATEGY_OPTION
            || SIBLINGS.contains(&name.as_str())
            || command.get_arguments().any(|argument| argument.get_env().is_some_and(|env| *env == *name));
        if !known {
            return Err(ConfigError::UnknownVariable { name });
        }
    }
    Ok(())
}

fn text_variable(name: &'static str) -> Result<Option<String>, ConfigError> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ConfigError::NotText { name: name.to_owned() }),
    }
}

/// Adds `key=value`. A value that is no TOML is a string; a later value of the same key wins.
fn add_strategy_option(table: &mut toml::Table, text: &str) -> Result<(), ConfigError> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| ConfigError::StrategyOption { text: text.to_owned() })?;
    let (key, value) = (key.trim(), value.trim());
    if let Ok(parsed) = toml::from_str::<toml::Table>(&format!("{key} = {value}")) {
        merge(table, parsed);
        return Ok(());
    }
    table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    Ok(())
}

/// Puts `above` over `table`, table by table: dotted keys of several options end up side by side.
fn merge(table: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => merge(below, value),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

fn strategy_names() -> String {
    manifold_strategies::REGISTRY.iter().map(|strategy| strategy.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategy_options_are_toml_or_strings() {
        let mut table = toml::Table::new();
        for option in
            ["consume=demand", "linger_ms = 5", "flag=true", "map.a=1", "map.b=[1, 2]", "linger_ms=7"]
        {
            add_strategy_option(&mut table, option).unwrap();
        }
        let expected = "consume = \"demand\"\nlinger_ms = 7\nflag = true\nmap = { a = 1, b = [1, 2] }";
        assert_eq!(table, toml::from_str(expected).unwrap());
        assert!(add_strategy_option(&mut table, "no-value").is_err());
    }

    #[test]
    fn foreign_variables_with_our_prefix_are_refused() {
        let names = |names: &[&str]| names.iter().map(OsString::from).collect::<Vec<_>>().into_iter();
        assert!(check_variables(names(&["PATH", "MANIFOLD_LISTEN", "MANIFOLD_STRATEGY_OPTION"])).is_ok());
        let error = check_variables(names(&["MANIFOLD_LISTNE"])).unwrap_err();
        assert!(error.to_string().contains("MANIFOLD_LISTNE"));
    }

    #[test]
    fn the_upper_layer_wins_option_by_option() {
        let upper: Layer = toml::from_str("listen = 'a:1'\n[strategy_option]\nx = 1").unwrap();
        let lower: Layer =
            toml::from_str("listen = 'b:2'\nnamespace = 'n'\n[strategy_option]\nx = 2\ny = 3").unwrap();
        let config = upper.over(lower).resolve();
        assert_eq!((config.listen.as_str(), config.namespace.as_str()), ("a:1", "n"));
        assert_eq!(config.strategy_option, toml::from_str("x = 1\ny = 3").unwrap());
        assert!(toml::from_str::<Layer>("listne = 'a:1'").is_err());
    }
}
