//! The parsers against input that nobody thought of, and against the system's own tools.

#[path = "parsers/devices.rs"]
mod devices;
#[path = "parsers/mount_index.rs"]
mod mount_index;
#[path = "parsers/mount_tables.rs"]
mod mount_tables;
#[path = "parsers/properties.rs"]
mod properties;
#[path = "parsers/tools.rs"]
mod tools;
#[path = "parsers/verdicts.rs"]
mod verdicts;

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use usr_policy_plan::mount_point::MountPoint;

fn point(path: impl AsRef<[u8]>) -> MountPoint {
    MountPoint::new(path.as_ref()).unwrap()
}

/// The same `count` values on every run: a difference to another program is worth a name that stays.
fn samples<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// Says why a comparison is left out, past the harness that hides what a passing test prints.
fn skip(why: &str) {
    let line = format!("skipped: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs one of the system's tools; `None`, and the reason is printed, where it is not installed.
fn run(
    program: &str,
    arguments: &[impl AsRef<OsStr>],
    variables: &[(&str, &OsStr)],
) -> Option<Output> {
    let result = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .envs(variables.iter().copied())
        .output();
    match result {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!(
                "{program} is not installed; run make requirements"
            ));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}
