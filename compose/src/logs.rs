//! Log files that stay bounded while a process appends to them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Size at which a log is cut. What is written between two looks comes on top.
const MAX_BYTES: u64 = 4 << 20;

/// How much of the cut log is kept, in a file beside it.
const KEPT_BYTES: u64 = 1 << 20;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 20;

/// Cuts a log that has grown too long: its end moves to `<log>.old`. Its writer must append, as all of ours do.
pub(crate) fn trim(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.len() <= MAX_BYTES {
        return Ok(());
    }
    let end = read_end(path, KEPT_BYTES)?;
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    fs::write(PathBuf::from(old), end)?;
    File::options().write(true).open(path)?.set_len(0)
}

/// The last lines of a log; empty where there is none.
pub(crate) fn tail(path: &Path) -> String {
    let Ok(end) = read_end(path, 16 << 10) else { return String::new() };
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_end(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_cut_and_its_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kafka-1.log");
        let mut writer = File::options().create(true).append(true).open(&path).unwrap();
        writer.write_all(&vec![b'.'; MAX_BYTES as usize]).unwrap();
        trim(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_BYTES, "not too long yet");
        writer.write_all(b"\nlast\n").unwrap();
        trim(&path).unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(tail(&path), "after");
        assert!(tail(&folder.path().join("kafka-1.log.old")).ends_with("last"));
    }

    #[test]
    fn a_tail_has_at_most_twenty_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, (0..100).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        assert!(tail(&path).starts_with("line 80\n") && tail(&path).ends_with("line 99"));
        assert_eq!(tail(&folder.path().join("none")), "");
    }
}
