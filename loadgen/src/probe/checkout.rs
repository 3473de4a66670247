//! Which code measured: version, commit, whether the checkout was clean.

use std::path::Path;
use std::process::Command;

use crate::record::Tool;

/// Describes this program and the checkout that it was built from, if that is still there.
pub fn tool() -> Tool {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // Results are written while measuring; only changes to what is built make a checkout dirty.
    let changes = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)results",
        ":(top,exclude,glob)**/*.md",
    ]);
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit,
        build: String::new(),
        dirty: changes.is_some_and(|changes| !changes.is_empty()),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !checkout.is_dir() {
        return None;
    }
    let output = Command::new("git").arg("-C").arg(checkout).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
