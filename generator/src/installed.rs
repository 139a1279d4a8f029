//! Whether this process still is what is installed: the package may be removed, or replaced, while the follower runs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use log::{debug, warn};
use usr_policy_plan::unit::BOOT_PROGRAM;

/// The exit status of a follower that nothing is left of: "program is not installed" in systemd.exec(5). Its unit does not
/// start it again then.
pub(crate) const NOT_INSTALLED: u8 = 5;

/// How often it is looked again: a package manager removes the old file before it writes the new one.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the package was removed; then it is said. What would be closed now, no program could open again.
pub(crate) fn is_removed(is_merged: bool) -> bool {
    // One that an extension hides is still there, and under it the database must be locked.
    let is_gone = || is_missing() && (is_unlinked() || !is_merged);
    if !is_gone() {
        return false;
    }
    for _ in 0..LOOKS {
        sleep(PAUSE);
        if !is_gone() {
            return false;
        }
    }
    warn!(
        "{BOOT_PROGRAM}: was removed, so merges are not followed any more; what is closed stays so until the next boot"
    );
    true
}

/// Becomes the program that was installed in place of this one. It finds in files what this one knows, and misses nothing:
/// it looks before it waits.
pub(crate) fn become_new_one() {
    if !is_unlinked() || is_missing() {
        return;
    }
    let error = Command::new(BOOT_PROGRAM).arg("follow").exec();
    // It may not be written to its end yet. The next thing that happens is a reason to try again.
    debug!("{BOOT_PROGRAM}: {error}");
}

/// Whether there is no file at the path of the boot program. Where that cannot be told, it is there.
fn is_missing() -> bool {
    fs::metadata(BOOT_PROGRAM).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether the file that this process runs has no name any more. Source: proc_pid_exe(5).
fn is_unlinked() -> bool {
    fs::read_link("/proc/self/exe")
        .is_ok_and(|program| program.as_os_str().as_bytes().ends_with(b" (deleted)"))
}
