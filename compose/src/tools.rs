//! Programs of the machine that are used but not brought along: finding them, checking them, running them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, IoContext, Result};
use crate::owner;

/// The oldest Java that runs the pinned Kafka.
const JAVA_MIN: u32 = 17;

const INSTALL_JAVA: &str =
    "apt install openjdk-17-jre-headless (Debian, Ubuntu) or brew install openjdk@17 (macOS)";
const INSTALL_MAVEN: &str = "apt install maven (Debian, Ubuntu) or brew install maven (macOS)";

/// A Java that is new enough.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub(crate) program: PathBuf,
    /// All that `java -version` says: identifies the build.
    pub(crate) version: String,
}

/// Java from `$JAVA_HOME`, else from the search path.
pub(crate) fn java() -> Result<Java> {
    let missing = |found: String| Error::MissingTool {
        need: format!("Kafka needs Java {JAVA_MIN} or newer, {found}"),
        install: INSTALL_JAVA.to_owned(),
    };
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let program = home.filter(|path| path.is_file()).or_else(|| on_path("java"));
    let program = program.ok_or_else(|| missing("and there is none on the search path".to_owned()))?;
    let mut command = Command::new(&program);
    command.arg("-version");
    // macOS has a placeholder on the path that only says that there is no Java.
    let version = run(command, "java -version")
        .map_err(|_| missing(format!("and {} does not answer -version", program.display())))?;
    match java_major(&version) {
        Some(major) if major >= JAVA_MIN => Ok(Java { program, version }),
        _ => Err(missing(format!(
            "but {} is {}",
            program.display(),
            version.lines().next().unwrap_or("silent")
        ))),
    }
}

/// Maven from the search path.
pub(crate) fn maven() -> Result<PathBuf> {
    on_path("mvn").ok_or_else(|| Error::MissingTool {
        need: "fetching the pinned artefacts needs Maven, and there is no mvn on the search path".to_owned(),
        install: INSTALL_MAVEN.to_owned(),
    })
}

/// Runs a goal of the dependency plugin on a POM. Maven itself needs a Java, so its absence is reported first.
pub(crate) fn maven_dependency(pom: &Path, goal: &str, options: &[String]) -> Result<()> {
    let maven = maven()?;
    java()?;
    let mut command = Command::new(maven);
    command
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(pom)
        .arg(format!("dependency:{goal}"))
        .args(options);
    run(command, &format!("mvn dependency:{goal}")).map(|_| ())
}

/// The program of that name on the search path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;

    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(executable)
}

/// Runs a program to its end and returns what it printed on both streams.
pub(crate) fn run(mut command: Command, what: &str) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let owned = owner::spawn(command).doing(|| format!("cannot run {what}"))?;
    let output = owned.child.wait_with_output().doing(|| format!("cannot wait for {what}"))?;
    if let Some(watchdog) = owned.watchdog {
        watchdog.dismiss();
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let output_end = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(Error::Command { what: what.to_owned(), status: output.status.to_string(), output: output_end })
}

fn java_major(version: &str) -> Option<u32> {
    let quoted = version.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '+', '_']).map(|number| number.parse().ok());
    match numbers.next()?? {
        1 => numbers.next()?, // 1.8 and older
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_of_all_ages_parse() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(8));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("openjdk version \"25-ea\""), Some(25));
        assert_eq!(java_major("No Java runtime present"), None);
    }

    #[test]
    fn a_failing_program_shows_what_it_printed() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let text = run(command, "the script").unwrap_err().to_string();
        assert!(text.contains("the script") && text.contains("out") && text.contains("err"), "{text}");
    }
}
