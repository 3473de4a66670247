//! What instructions were counted with: a count that moved may have moved with these.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::counts::instrument;

/// Where something could not be found out.
const UNKNOWN: &str = "unknown";
/// What a compiler leaves in a program.
const COMPILER: &[u8] = b"rustc version ";
/// Features of the processor by which libraries choose their code, as far as valgrind lets programs see them.
const FEATURES: [&str; 9] = ["ssse3", "sse4_2", "avx", "avx2", "bmi1", "bmi2", "fma", "abm", "rdrand"];

/// What instructions were counted with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Instrument and version.
    pub valgrind: String,
    /// The compiler that the server was built with.
    pub rustc: String,
    /// The C library.
    pub libc: String,
    /// The processor's architecture and features.
    pub processor: String,
}

impl Conditions {
    /// Those of now, for this server program.
    pub fn now(server: &Path) -> Self {
        let valgrind = instrument().and_then(|valgrind| said(Command::new(valgrind).arg("--version")));
        let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
        Self {
            valgrind: known(valgrind),
            rustc: known(fs::read(server).ok().and_then(|program| compiler(&program))),
            libc: known(said(Command::new("getconf").arg("GNU_LIBC_VERSION"))),
            processor: processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, rustc {}, {}, {}", self.valgrind, self.rustc, self.libc, self.processor)
    }
}

/// The first line that a program says; `None` where it fails.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The version in a program: `1.95.0 (59807616e 2026-04-14)`.
fn compiler(program: &[u8]) -> Option<String> {
    memchr::memmem::find_iter(program, COMPILER).find_map(|at| {
        let version = program.get(at + COMPILER.len()..)?;
        let end = memchr::memchr(b')', &version[..version.len().min(60)])?;
        version[0].is_ascii_digit().then(|| String::from_utf8_lossy(&version[..=end]).into_owned())
    })
}

fn processor(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags: Vec<&str> = flags.into_iter().flat_map(str::split_ascii_whitespace).collect();
    let mut words = vec![std::env::consts::ARCH];
    words.extend(FEATURES.iter().filter(|feature| flags.contains(feature)));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_compiler() {
        let program =
            b"\0rustc version unknown)\0GCC 12\0rustc version 1.95.0 (59807616e 2026-04-14)\0.symtab";
        assert_eq!(compiler(program).as_deref(), Some("1.95.0 (59807616e 2026-04-14)"));
        assert_eq!(compiler(b"rustc version "), None);
        let own = Conditions::now(&std::env::current_exe().unwrap());
        assert!(own.rustc.starts_with("1."), "{own}");
    }

    #[test]
    fn features_that_choose_code_are_kept() {
        let text = "model name\t: any\nflags\t\t: fpu avx avx2 avx512f bmi1\n";
        assert_eq!(processor(text), format!("{} avx avx2 bmi1", std::env::consts::ARCH));
        assert_eq!(processor(""), std::env::consts::ARCH);
    }
}
