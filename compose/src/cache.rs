//! The folder where artefacts are kept between runs, shared by every program of the user.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};

/// `$MANIFOLD_CACHE`, else `$XDG_CACHE_HOME/manifold`, else `~/.cache/manifold`.
pub(crate) fn root() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = variable("MANIFOLD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("manifold")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/manifold")))
        .ok_or_else(|| Error::State("no cache folder: set MANIFOLD_CACHE or HOME".to_owned()))?;
    fs::create_dir_all(&root).at("cannot create", &root)?;
    root.canonicalize().at("cannot resolve", &root)
}

/// The folder of that name in the cache. The first caller makes it; callers at the same time wait for it.
///
/// It appears in one step, whole or not at all: `make` fills a folder beside it that is renamed at the end.
pub(crate) fn install(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    let path = root.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let lock_path = root.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).at("cannot create", &lock_path)?;
    lock.lock().at("cannot lock", &lock_path)?;
    if path.is_dir() {
        return Ok(path);
    }
    // Under the lock, whatever is there was left by somebody who died.
    let partial = root.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).at("cannot remove", &partial)?;
    }
    fs::create_dir(&partial).at("cannot create", &partial)?;
    if let Err(error) = make(&partial) {
        fs::remove_dir_all(&partial).at("cannot remove", &partial)?;
        return Err(error);
    }
    fs::rename(&partial, &path).at("cannot rename to", &path)?;
    Ok(path)
}

/// The SHA-256 of a file, in lower-case hexadecimal.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).at("cannot open", path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).at("cannot read", path)?;
        if read == 0 {
            return Ok(format!("{:x}", hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// The first 16 hexadecimal digits of the SHA-256 over the parts: a name for what they determine.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    let mut text = format!("{:x}", hasher.finalize());
    text.truncate(16);
    text
}

/// A line of a `sha256sum` list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned<'a> {
    pub(crate) sha256: &'a str,
    pub(crate) name: &'a str,
}

/// The lines of a `sha256sum` list.
pub(crate) fn pinned(list: &str) -> impl Iterator<Item = Pinned<'_>> {
    list.lines().filter_map(|line| line.split_once("  ")).map(|(sha256, name)| Pinned { sha256, name })
}

impl Pinned<'_> {
    /// Checks the file of that name in a folder of the cache.
    pub(crate) fn check(&self, folder: &Path) -> Result<()> {
        let path = folder.join(self.name);
        let corrupt = |problem: String| {
            let remove = folder.to_owned();
            Err(Error::Corrupt { path: path.clone(), problem, remove })
        };
        if !path.is_file() {
            return corrupt("it is missing".to_owned());
        }
        let found = sha256_of_file(&path)?;
        if found == self.sha256 {
            Ok(())
        } else {
            corrupt(format!("its SHA-256 is {found}, not {}", self.sha256))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let list = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n";
        let entry = pinned(list).next().unwrap();
        assert!(entry.check(folder.path()).unwrap_err().to_string().contains("missing"));
        fs::write(folder.path().join("abc"), "abc").unwrap();
        entry.check(folder.path()).unwrap();
        fs::write(folder.path().join("abc"), "abd").unwrap();
        let text = entry.check(folder.path()).unwrap_err().to_string();
        assert!(text.contains("/abc ") && text.contains("SHA-256"), "{text}");
    }

    #[test]
    fn keys_depend_on_where_the_parts_end() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab"]).len(), 16);
    }
}
