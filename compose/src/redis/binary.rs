//! Which server program is run: one on the search path, else the pinned one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Pinned, pinned};
use crate::error::{Error, IoContext, Result};
use crate::tools;

const POM: &str = include_str!("../../redis/pom.xml");
const LIST: &str = include_str!("../../redis/binaries.sha256");

/// The version inside the pinned artefact.
const PINNED_VERSION: &str = "7.0.15";

/// Sharded pub/sub, which the cluster shape is for, came with this version.
const MAJOR_MIN: u32 = 7;

/// A server program that is fit for use.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    /// For people and records, e.g. `redis-server 7.0.15 (/usr/bin/redis-server)`.
    pub(crate) description: String,
}

/// `redis-server` or `valkey-server` on the search path where it is recent enough, else the pinned program.
///
/// Those of the system come first because they are built with a faster allocator.
pub(crate) fn find() -> Result<Binary> {
    for name in ["redis-server", "valkey-server"] {
        let Some(path) = tools::on_path(name) else { continue };
        let mut command = Command::new(&path);
        command.arg("--version");
        let Ok(answer) = tools::run(command, name) else { continue };
        match version(&answer) {
            Some((major, text)) if major >= MAJOR_MIN => {
                return Ok(Binary { description: format!("{name} {text} ({})", path.display()), path });
            }
            _ => tracing::info!(
                "{} is older than {MAJOR_MIN}.0: using the pinned redis-server",
                path.display()
            ),
        }
    }
    fetch_pinned()
}

fn fetch_pinned() -> Result<Binary> {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    let name = format!("redis-server-{PINNED_VERSION}-{os}-{arch}");
    let entry = pinned(LIST).find(|entry| entry.name == name).ok_or_else(|| Error::MissingTool {
        need: format!(
            "Redis needs redis-server or valkey-server {MAJOR_MIN}.0 or newer; none is pinned for {os}-{arch}"
        ),
        install: "apt install redis-server (Debian, Ubuntu) or brew install redis (macOS)".to_owned(),
    })?;
    let folder_name = format!("redis-{PINNED_VERSION}-{}", cache::key(&[LIST, &name]));
    let folder = cache::install(&folder_name, |folder| fetch(folder, entry))?;
    entry.check(&folder)?;
    let path = folder.join(&name);
    Ok(Binary { description: format!("redis-server {PINNED_VERSION} (pinned, {os}-{arch})"), path })
}

fn fetch(folder: &Path, entry: Pinned<'_>) -> Result<()> {
    tracing::info!("fetching redis-server {PINNED_VERSION} through Maven");
    let pom = folder.join("pom.xml");
    fs::write(&pom, POM).at("cannot write", &pom)?;
    let options = [
        format!("-DoutputDirectory={}", folder.display()),
        format!("-Dmdep.unpack.includes={}", entry.name),
        format!("-DmarkersDirectory={}", folder.join("markers").display()),
    ];
    tools::maven_dependency(&pom, "unpack-dependencies", &options)?;
    entry.check(folder)?;
    let path = folder.join(entry.name);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("cannot make executable", &path)
}

/// The version in the answer to `--version`: `… v=7.0.15 sha=…`.
fn version(answer: &str) -> Option<(u32, &str)> {
    let text = answer.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    let major = text.split('.').next()?.parse().ok()?;
    Some((major, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_redis_and_valkey_are_read() {
        let redis =
            "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=a3fdef44459b3ad6";
        assert_eq!(version(redis), Some((6, "6.0.16")));
        let valkey = "Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0";
        assert_eq!(version(valkey), Some((8, "8.1.0")));
        assert_eq!(version("bash: not found"), None);
    }

    #[test]
    fn the_list_holds_the_platforms_that_matter() {
        for platform in ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"] {
            let name = format!("redis-server-{PINNED_VERSION}-{platform}");
            assert!(pinned(LIST).any(|entry| entry.name == name), "{name}");
        }
    }
}
