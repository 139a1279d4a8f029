//! What a run of a program costs in a throw-away system: instructions, which are the same in every run, unlike time.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::system::System;

/// Where [`empty_program`] leaves its program.
pub const EMPTY: &str = "/run/empty";

/// The directories that a generator is given.
pub const OUTPUT: [&str; 3] = [
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/generator.late",
];

/// A static program that does nothing, with the profile and the flags of the boot program.
///
/// # Panics
/// Where rustc cannot make it.
pub fn empty_program(system: &System) {
    let source = system.path("/run/empty.rs");
    fs::write(&source, "fn main() {}\n").unwrap();
    // Beside the cargo that runs this.
    let cargo = std::env::var_os("CARGO").unwrap_or_default();
    let rustc = Path::new(&cargo).with_file_name("rustc");
    let ran = Command::new(rustc)
        .args([
            "--edition=2024",
            "-Copt-level=s",
            "-Clto=fat",
            "-Ccodegen-units=1",
        ])
        .args([
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
            "-Crelocation-model=static",
        ])
        .arg("-o")
        .args([&system.path(EMPTY), &source])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Makes the directories of a generator empty.
///
/// # Panics
/// Where that cannot be done.
pub fn empty_output(system: &System) {
    for path in OUTPUT {
        let directory = system.path(path);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
    }
}

/// What PID 1 tells a generator of the real root, and that it shall not log.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("SYSTEMD_IN_INITRD", "0"),
    ("SYSTEMD_SCOPE", "system"),
    ("SYSTEMD_LOG_TARGET", "null"),
];

/// How many instructions a program takes in the system, by callgrind.
///
/// # Panics
/// Where it cannot be counted.
#[must_use]
pub fn instructions(system: &System, words: &[&str]) -> u64 {
    let profile = system.path("/run/callgrind");
    let ran = system
        .command(&[
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/run/callgrind",
        ])
        .args(words)
        .envs(ENVIRONMENT)
        .output()
        .unwrap();
    // A program that cannot open its files costs nothing.
    let is_blind = String::from_utf8_lossy(&ran.stderr).contains("unhandled amd64-linux syscall");
    assert!(
        !is_blind,
        "{words:?}: valgrind lacks a system call: {ran:?}"
    );
    let text = fs::read_to_string(&profile)
        .unwrap_or_else(|error| panic!("{words:?}: {error}; valgrind is needed: {ran:?}"));
    fs::remove_file(profile).unwrap();
    let totals = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .unwrap();
    totals.trim().parse().unwrap()
}

/// How many instructions a generator takes, with empty directories to write to.
///
/// # Panics
/// Where it cannot be counted.
#[must_use]
pub fn instructions_of_generator(system: &System, program: &str) -> u64 {
    empty_output(system);
    instructions(system, &[&[program], &OUTPUT[..]].concat())
}
