//! Running the system's own tools.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{At, Error, Result};

/// Lines of a log that an error repeats.
const TAIL: usize = 15;

/// Runs a tool to its end, with nothing on its standard input and all that it says in `log`.
///
/// # Errors
/// The program cannot be started, or ends with anything but 0: the error has the last lines of the log.
pub fn run(command: &mut Command, log: &Path) -> Result<()> {
    run_on(Path::new("/dev/null"), command, log)
}

/// Runs a tool as [`run`] does, with a file on its standard input.
///
/// # Errors
/// Those of [`run`], and the file cannot be read.
pub fn run_on(input: &Path, command: &mut Command, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .at(log)?;
    let err = out.try_clone().at(log)?;
    let status = command
        .stdin(File::open(input).at(input)?)
        .stdout(out)
        .stderr(err)
        // Messages of tools are read by the code that calls them, and by people who compare logs.
        .env("LC_ALL", "C.UTF-8")
        // A directory of this machine; many a tool runs in a tree that has no such one.
        .env_remove("TMPDIR")
        .status()
        .map_err(|error| missing(&program, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{program}: {status}; {} ends with\n{}",
        log.display(),
        tail(log, TAIL)
    )))
}

/// Runs a tool and returns its standard output.
///
/// # Errors
/// The program cannot be started, or ends with anything but 0.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .map_err(|error| missing(&program, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(format!(
        "{program}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    )))
}

fn missing(program: &str, error: &io::Error) -> Error {
    Error::new(format!(
        "{program}: {error}; tests/requirements boot installs what is needed"
    ))
}

/// The last lines of a file that may hold any bytes; empty if there is none.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    let Ok(bytes) = std::fs::read(file) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
