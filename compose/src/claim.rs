//! Names claimed by living programs: a locked file per name. The lock goes with its owner, however that dies.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Holds a name until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    // Closing it gives up the lock.
    _file: File,
}

impl Claim {
    /// Claims the name that the path stands for; `None` where a living program holds it.
    pub(crate) fn try_new(path: &Path) -> io::Result<Option<Claim>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // A holder removes the file before unlocking it: then this lock is on a file that nobody else can find any more.
        let current = fs::metadata(path).is_ok_and(|found| {
            file.metadata().is_ok_and(|ours| ours.ino() == found.ino() && ours.dev() == found.dev())
        });
        Ok(current.then(|| Claim { path: path.to_owned(), _file: file }))
    }
}

/// Whether a living program holds the name that the path stands for. Looking does not keep anybody from claiming it for
/// longer than this call, and any number may look at once.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Where it cannot be removed it stays as an empty, unlocked file, which the next claimant takes over.
        fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_at_a_time_and_is_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("19092");
        let first = Claim::try_new(&path).unwrap().expect("free");
        assert!(Claim::try_new(&path).unwrap().is_none());
        assert!(is_held(&path).unwrap());
        drop(first);
        assert!(!path.exists() && !is_held(&path).unwrap());
        assert!(Claim::try_new(&path).unwrap().is_some());
    }
}
