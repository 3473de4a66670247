//! Private folders for the data and logs of processes, removed with their owner.
//!
//! A folder's name is claimed by a lock file beside it. An owner that is killed with -9 cannot remove its folder, so
//! every start first sweeps away the folders whose claim nobody holds any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::claim::Claim;
use crate::error::{IoContext, Result};

/// Folders of this program that exist now.
static OURS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

const LOCK_SUFFIX: &str = ".lock";

/// A private folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _claim: Claim,
}

impl RunDir {
    /// Sweeps away what dead owners left, then makes a fresh folder.
    pub(crate) fn new() -> Result<RunDir> {
        let root = root()?;
        sweep(&root);
        loop {
            let path = root.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
            let lock = lock_of(&path);
            let Some(claim) = Claim::try_new(&lock).at("cannot lock", &lock)? else { continue };
            fs::create_dir(&path).at("cannot create", &path)?;
            OURS.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
            return Ok(RunDir { path, _claim: claim });
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove(&self.path);
        OURS.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.path);
    }
}

/// Removes the folders of this program.
pub(crate) fn remove_all() {
    for path in OURS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        remove(&path);
        fs::remove_file(lock_of(&path)).ok();
    }
}

/// The folder that holds all private folders and port claims of this user.
pub(crate) fn root() -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    let uid = rustix::process::getuid().as_raw();
    let root = std::env::temp_dir().join(format!("manifold-{uid}"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).at("cannot create", &root)?;
    let owner = fs::symlink_metadata(&root).at("cannot examine", &root)?.uid();
    if owner != uid {
        // Somebody else's folder under our name: what lies in it cannot be trusted.
        return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied)).at("not ours:", &root);
    }
    Ok(root)
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    PathBuf::from(name)
}

fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for lock in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = lock.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(folder) = name.strip_suffix(LOCK_SUFFIX) else { continue };
        // Dropping the claim removes the lock file, after the folder.
        if let Ok(Some(_claim)) = Claim::try_new(&lock) {
            remove(&root.join(folder));
        }
    }
}

/// Removes a folder. A dying process may still be adding files, hence the second try; what then remains is swept later.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        fs::remove_dir_all(path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lives_as_long_as_its_value() {
        let dir = RunDir::new().unwrap();
        let (path, lock) = (dir.path().to_owned(), lock_of(dir.path()));
        fs::write(path.join("data"), b"x").unwrap();
        assert!(path.exists() && lock.exists());
        drop(dir);
        assert!(!path.exists() && !lock.exists());
    }

    #[test]
    fn a_sweep_removes_what_nobody_claims_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (dead, alive) = (root.path().join("1-dead"), root.path().join("1-alive"));
        for path in [&dead, &alive] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("data"), b"x").unwrap();
        }
        fs::write(lock_of(&dead), b"").unwrap();
        let claim = Claim::try_new(&lock_of(&alive)).unwrap();
        sweep(root.path());
        assert!(!dead.exists() && !lock_of(&dead).exists());
        assert!(alive.join("data").exists());
        drop(claim);
    }
}
