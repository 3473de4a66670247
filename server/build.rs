//! Names the commit that the binary is built from, for `/info`.

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CHAT_SERVER_COMMIT={commit}");
    println!("cargo::rerun-if-changed=build.rs");
    // HEAD changes when another branch is checked out; its log also with every commit. Builds for development do not
    // start over for each of those, at the price of a name that may be a few commits old.
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let files: &[&str] = if release { &["HEAD", "logs/HEAD"] } else { &["HEAD"] };
    for file in files {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git prints, where there is git and a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
