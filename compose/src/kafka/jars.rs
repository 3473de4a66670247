//! The pinned jars: resolved by Maven once, checked against their list at every start.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Pinned, pinned};
use crate::error::{Error, IoContext, Result};
use crate::tools;

/// The version that `pom.xml` pins.
pub(crate) const VERSION: &str = "4.3.0";

const POM: &str = include_str!("../../kafka/pom.xml");
const LIST: &str = include_str!("../../kafka/jars.sha256");

/// How many jars are hashed at a time.
const HASHERS: usize = 4;

/// The folder of the jars, all of them checked.
pub(crate) fn prepare() -> Result<PathBuf> {
    let folder = cache::install(&format!("kafka-{VERSION}-{}", cache::key(&[LIST])), fetch)?;
    check(&folder)?;
    Ok(folder)
}

/// The class path: every pinned jar, in the order of the list.
pub(crate) fn classpath(folder: &Path) -> String {
    let path = |jar: Pinned<'_>| folder.join(jar.name).to_string_lossy().into_owned();
    pinned(LIST).map(path).collect::<Vec<_>>().join(":")
}

fn fetch(folder: &Path) -> Result<()> {
    tracing::info!("fetching Apache Kafka {VERSION} through Maven");
    let pom = folder.join("pom.xml");
    fs::write(&pom, POM).at("cannot write", &pom)?;
    let options = [format!("-DoutputDirectory={}", folder.display())];
    tools::maven_dependency(&pom, "copy-dependencies", &options)?;
    check(folder)
}

/// Checks that the folder holds exactly the pinned jars.
fn check(folder: &Path) -> Result<()> {
    let jars: Vec<Pinned<'_>> = pinned(LIST).collect();
    let entries = fs::read_dir(folder).at("cannot read", folder)?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".jar") && !jars.iter().any(|jar| jar.name == name) {
            let problem = "it is not on the list of pinned jars".to_owned();
            return Err(Error::Corrupt { problem, remove: folder.to_owned(), path });
        }
    }
    // Dealt out in turn, so that the few large jars spread over the threads.
    let share = |first: usize| jars.iter().skip(first).step_by(HASHERS).try_for_each(|jar| jar.check(folder));
    std::thread::scope(|scope| {
        let hashers: Vec<_> = (0..HASHERS).map(|first| scope.spawn(move || share(first))).collect();
        hashers
            .into_iter()
            .try_for_each(|hasher| hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_pom_pin_the_same_version() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
        assert!(pinned(LIST).any(|jar| jar.name == format!("kafka_2.13-{VERSION}.jar")));
        assert!(pinned(LIST).all(|jar| jar.sha256.len() == 64));
        assert_eq!(pinned(LIST).count(), LIST.lines().count());
    }

    #[test]
    fn a_stray_jar_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("evil.jar"), b"x").unwrap();
        let text = check(folder.path()).unwrap_err().to_string();
        assert!(text.contains("evil.jar"), "{text}");
    }
}
