//! fsck(8) of a file system that is about to be mounted: the one program that the boot program starts and waits for.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use rustix::process::{Pid, WaitOptions, waitpid};
use usr_policy_plan::pre_init::{Check, Checked};

/// Checks a file system by the helper of its type; `None` where the root file system has none. What it says goes to the
/// console.
///
/// # Errors
/// The kernel's, where the helper cannot be started; often because its libraries are in `/usr`.
pub fn fsck(fs_type: &[u8], device: &Path, check: Check) -> io::Result<Option<Checked>> {
    let helper = [b"/sbin/fsck.", fs_type].concat();
    // Without /usr a helper that is there is one of the root's own. A type is no path.
    if check == Check::Never
        || fs_type.contains(&b'/')
        || !Path::new(OsStr::from_bytes(&helper)).exists()
    {
        return Ok(None);
    }
    let mut words = vec![CString::new(helper)?, c"-a".into()];
    if check == Check::Always {
        words.push(c"-f".into());
    }
    words.push(CString::new(device.as_os_str().as_bytes())?);
    run(&words).map(|status| Some(Checked::new(status)))
}

/// For helpers that are scripts, such as fsck.xfs; of `/usr` nothing is there.
const ENVIRONMENT: [&CStr; 1] = [c"PATH=/sbin:/bin"];

/// Runs a program; returns its exit status, and `None` where a signal ended it.
// Not std's Command: with all that it can do it is as large as the rest of this role.
fn run(words: &[CString]) -> io::Result<Option<i32>> {
    let pid = posix_spawn(
        words[0].as_c_str(),
        &PosixSpawnFileActions::init()?,
        &PosixSpawnAttr::init()?,
        words,
        &ENVIRONMENT,
    )?;
    let status = waitpid(Pid::from_raw(pid.as_raw()), WaitOptions::empty())?;
    Ok(status.and_then(|(_, status)| status.exit_status()))
}
