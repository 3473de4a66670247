//! Who takes part, with which program, and where results go: the same way for every command.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use manifold_compose::{STRATEGIES, chat_server_binary};

use crate::campaign::Entrant;

/// Every strategy; where a command has no use for counter-examples, every one but those.
const ALL: &str = "all";

/// Strategies as people name them, with options; none or `all` stands for every one, counter-examples only where asked for.
pub(super) fn entrants(given: &[String], counter_examples: bool) -> Result<Vec<Entrant>> {
    let all = given.iter().any(|one| one == ALL);
    ensure!(!all || given.len() == 1, "`{ALL}` are all of them: name no other --strategy beside it");
    if given.is_empty() || all {
        let all =
            STRATEGIES.iter().map(|known| Entrant { strategy: known.name.to_owned(), options: Vec::new() });
        return Ok(all.filter(|one| counter_examples || !one.is_counter_example()).collect());
    }
    given.iter().map(|text| entrant(text)).collect()
}

fn entrant(text: &str) -> Result<Entrant> {
    let mut words = text.split_whitespace().map(str::to_owned);
    let strategy = words.next().context("an empty --strategy")?;
    let entrant = Entrant { strategy, options: words.collect() };
    let known = STRATEGIES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
    ensure!(entrant.brokers().is_some(), "no strategy `{}`; there are {known} and {ALL}", entrant.strategy);
    for option in &entrant.options {
        ensure!(option.contains('='), "`{option}` is no option: write 'STRATEGY key=value'");
    }
    Ok(entrant)
}

/// The chat-server program, by its whole path: nodes are started in folders of their own.
pub(super) fn server(given: Option<&Path>) -> Result<PathBuf> {
    let binary = chat_server_binary(given)?;
    fs::canonicalize(&binary).with_context(|| format!("cannot find {}", binary.display()))
}

/// A new folder for the results of something that begins at a time.
pub(super) fn new_folder(name: &str, started_at: &str) -> PathBuf {
    let time: String = started_at.chars().filter(char::is_ascii_alphanumeric).collect();
    Path::new("results").join(format!("{name}-{time}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_all_that_people_would_choose() {
        let names = |given: &[&str], counter_examples| -> Vec<String> {
            let given: Vec<String> = given.iter().map(|one| (*one).to_owned()).collect();
            entrants(&given, counter_examples).unwrap().into_iter().map(|one| one.label()).collect()
        };
        assert_eq!((names(&[], false).len(), names(&[], true).len()), (5, 6));
        assert_eq!(names(&["all"], false), names(&[], false));
        assert_eq!(names(&["kafka-keyed consume=demand"], false), ["kafka-keyed consume=demand"]);
        for wrong in ["nothing", "", "hybrid demand"] {
            assert!(entrants(&[wrong.to_owned()], true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_by_relative_path_is_found_from_anywhere() {
        let path = server(Some(Path::new("Cargo.toml"))).unwrap();
        assert!(path.is_absolute() && path.ends_with("Cargo.toml"), "{}", path.display());
        assert!(server(Some(Path::new("no/such/file"))).is_err());
    }

    #[test]
    fn folders_are_named_after_their_time() {
        let folder = new_folder("soak", "2026-11-21T14:09:13Z");
        assert_eq!(folder, Path::new("results/soak-20261121T140913Z"));
    }
}
