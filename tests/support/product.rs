//! The installed product, as `make stage` leaves it: what the tests run, and the only thing of ours that they run.

use std::env;
use std::path::PathBuf;

/// The environment variable that says where the stage is; the Makefile sets it.
pub const STAGE: &str = "USR_POLICY_STAGE";

/// The boot program, below the stage.
pub const BOOT_PROGRAM: &str = "usr/lib/usr-policy/usr-policy-generator";

/// The program for people, below the stage.
pub const PROGRAM: &str = "usr/bin/usr-policy";

/// The root of the installed tree.
///
/// # Panics
/// Where there is none: a test that cannot find the product has tested nothing.
#[must_use]
pub fn stage() -> PathBuf {
    let stage = PathBuf::from(env::var_os(STAGE).expect(
        "USR_POLICY_STAGE is not set; run make check-quick, or set it to the absolute path of what make stage made",
    ));
    assert!(
        stage.is_absolute() && stage.join(BOOT_PROGRAM).is_file() && stage.join(PROGRAM).is_file(),
        "{}: not an absolute path with usr-policy installed below it; run make check-quick",
        stage.display()
    );
    stage
}

/// The boot program of the stage.
#[must_use]
pub fn boot_program() -> PathBuf {
    stage().join(BOOT_PROGRAM)
}

/// The program for people, of the stage.
#[must_use]
pub fn program() -> PathBuf {
    stage().join(PROGRAM)
}
