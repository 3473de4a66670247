//! Result folders: `<scenario>/<run>/run.json`, written whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{Role, RunRecord, SCHEMA_VERSION};

/// File name of a record.
const RECORD: &str = "run.json";
/// File name of a run that could not be made.
const FAILURE: &str = "failed.json";
/// Deepest folder level that is searched for records.
const DEPTH_MAX: usize = 4;

/// A result that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Writing failed; nothing half-written is left.
    #[error("cannot write {path}: {source}{}", hint(.source))]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A record of another version, or none at all.
    #[error("{path} is no record of schema version {SCHEMA_VERSION}: {problem}")]
    Record {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// No records where some were expected.
    #[error("no run.json under {0}")]
    Empty(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " — the disk is full: free some space and start again with the same command, what is done is kept"
        }
        io::ErrorKind::PermissionDenied => " — choose another folder with -o",
        _ => "",
    }
}

/// A run that could not be made: the servers didn't start, died, or refused. Listed in reports like an invalid run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Content address of the cell.
    pub cell: String,
    /// Which campaign it belongs to.
    pub campaign: String,
    /// What the run was for.
    pub role: Role,
    /// Whether its strategy is ranked: no floor, no counter-example.
    pub ranked: bool,
    /// Scenario name.
    pub scenario: String,
    /// The use that the scenario stands for.
    pub stands_for: String,
    /// Strategy with options.
    pub label: String,
    /// Block.
    pub block: u32,
    /// What went wrong.
    pub error: String,
}

impl Failure {
    /// Whether the run was to be ranked.
    pub fn is_ranked(&self) -> bool {
        self.ranked && self.role == Role::Comparison
    }
}

/// What a result folder holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The records, by path.
    pub records: Vec<RunRecord>,
    /// Their files, relative to the folder.
    pub paths: Vec<String>,
    /// Runs that could not be made and have no record.
    pub failures: Vec<Failure>,
}

impl Loaded {
    /// Keeps what belongs to one campaign: its own runs, and those in `cells` that it took over from an earlier one.
    #[must_use]
    pub fn of_campaign(self, campaign: &str, cells: &BTreeSet<String>) -> Self {
        let ours = |of: &str, cell: &String| of == campaign || cells.contains(cell);
        let kept = self.records.into_iter().zip(self.paths);
        let (records, paths) = kept.filter(|(record, _)| ours(&record.campaign, &record.cell)).unzip();
        let failures = self.failures.into_iter().filter(|failure| ours(&failure.campaign, &failure.cell));
        Self { records, paths, failures: failures.collect() }
    }
}

/// A result folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// A folder, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record of a cell, if it is there and whole.
    pub fn find(&self, folder: &Path, cell: &str) -> Option<RunRecord> {
        let text = fs::read_to_string(self.root.join(folder).join(RECORD)).ok()?;
        serde_json::from_str::<RunRecord>(&text).ok().filter(|record| record.cell == cell)
    }

    /// Writes a record, and beside it the delivery histogram in the HdrHistogram project's log format.
    ///
    /// # Errors
    /// [`StoreError::Write`]: nothing half-written is left behind.
    pub fn save(&self, folder: &Path, record: &RunRecord) -> Result<(), StoreError> {
        let folder = self.root.join(folder);
        let mut text = serde_json::to_vec_pretty(record)
            .map_err(|error| write_error(&folder, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        text.push(b'\n');
        write_whole(&folder.join(RECORD), &text)?;
        // The run succeeded: what an earlier attempt complained of is history.
        let _ = fs::remove_file(folder.join(FAILURE));
        if let Some(log) = super::hlog::hlog(record) {
            write_whole(&folder.join("delivery.hlog"), log.as_bytes())?;
        }
        Ok(())
    }

    /// Notes a run that could not be made.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn save_failure(&self, folder: &Path, failure: &Failure) -> Result<(), StoreError> {
        let path = self.root.join(folder).join(FAILURE);
        let text = serde_json::to_vec_pretty(failure)
            .map_err(|error| write_error(&path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        write_whole(&path, &text)
    }

    /// Reads every record below the folder, in the order of their paths.
    ///
    /// # Errors
    /// An unreadable folder, or a `run.json` that is none: a report must not pass over what it can't read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut files = Vec::new();
        collect(&self.root, 0, &mut files)?;
        files.sort();
        let mut loaded = Loaded::default();
        for file in files {
            let text = fs::read_to_string(&file).map_err(|source| read_error(&file, source))?;
            if file.ends_with(FAILURE) {
                loaded.failures.push(parse(&file, &text)?);
                continue;
            }
            loaded.records.push(parse(&file, &text)?);
            let relative = file.strip_prefix(&self.root).unwrap_or(&file);
            loaded.paths.push(relative.to_string_lossy().into_owned());
        }
        Ok(loaded)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(file: &Path, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Record { path: file.display().to_string(), problem: error.to_string() })
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|source| read_error(folder, source))? {
        let path = entry.map_err(|source| read_error(folder, source))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            collect(&path, depth + 1, files)?;
        } else if path.ends_with(RECORD) || path.ends_with(FAILURE) {
            files.push(path);
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: into a temporary one beside it, to the disk, then renamed.
///
/// # Errors
/// [`StoreError::Write`]; the temporary file is gone and an earlier version of the file is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_whole_with(path, bytes, |temporary| File::create(temporary))
}

fn write_whole_with<W: Durable>(
    path: &Path,
    bytes: &[u8],
    create: impl FnOnce(&Path) -> io::Result<W>,
) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| write_error(path, source))?;
    let name = path.file_name().map_or_else(|| "result".into(), |name| name.to_string_lossy());
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let outcome = create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.settle()))
        .and_then(|()| fs::rename(&temporary, path));
    outcome.map_err(|source| {
        // It may never have been created.
        let _ = fs::remove_file(&temporary);
        write_error(path, source)
    })
}

/// A file whose content can be made to reach the disk.
trait Durable: Write {
    fn settle(&mut self) -> io::Result<()>;
}

impl Durable for File {
    fn settle(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

fn write_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Write { path: path.display().to_string(), source }
}

fn read_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Read { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::Sample;

    /// A disk with room for a few bytes.
    struct Full {
        file: File,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let fits = bytes.len().min(self.room);
            self.room -= fits;
            self.file.write(&bytes[..fits])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    impl Durable for Full {
        fn settle(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_and_leaves_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        write_whole(&path, b"earlier").unwrap();
        let create = |temporary: &Path| Ok(Full { file: File::create(temporary)?, room: 3 });
        let error = write_whole_with(&path, b"longer than three bytes", create).unwrap_err().to_string();
        assert!(error.contains("disk is full"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"earlier");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_device_that_is_really_full() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let create = |_: &Path| File::options().write(true).open(full);
        assert!(write_whole_with(&path, b"x", create).unwrap_err().to_string().contains("disk is full"));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_saved_is_found_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let record = Sample::new("hybrid", "small-rooms", 1, 0.3).record();
        let place = Path::new("small-rooms/hybrid-b1");
        store.save(place, &record).unwrap();
        assert_eq!(store.find(place, &record.cell).as_ref(), Some(&record));
        assert_eq!(store.find(place, "another cell"), None);
        let failure = Failure {
            cell: "c".into(),
            campaign: "d".into(),
            role: Role::Comparison,
            ranked: true,
            scenario: "s".into(),
            stands_for: "f".into(),
            label: "l".into(),
            block: 2,
            error: "e".into(),
        };
        store.save_failure(Path::new("s/l-b2"), &failure).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.records, [record]);
        assert_eq!(loaded.paths, ["small-rooms/hybrid-b1/run.json"]);
        assert_eq!(loaded.failures, [failure]);
        assert!(folder.path().join(place).join("delivery.hlog").exists());
    }

    #[test]
    fn a_campaign_sees_its_own_runs_and_those_it_took_over() {
        let record = |campaign: &str, block| {
            let mut record = Sample::new("hybrid", "small-rooms", block, 0.3).record();
            record.campaign = campaign.into();
            record
        };
        let records = vec![record("ours", 1), record("another", 2), record("another", 3)];
        let taken_over = BTreeSet::from([records[2].cell.clone()]);
        let paths = ["a", "b", "c"].map(str::to_owned).to_vec();
        let kept = Loaded { records, paths, failures: Vec::new() }.of_campaign("ours", &taken_over);
        assert_eq!(kept.paths, ["a", "c"]);
        assert_eq!(kept.records.iter().map(|record| record.block).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_broken_record_is_an_error_not_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        write_whole(&folder.path().join("a/run.json"), b"{\"schema_version\": 999}").unwrap();
        assert!(matches!(Store::new(folder.path()).load(), Err(StoreError::Record { .. })));
    }
}
