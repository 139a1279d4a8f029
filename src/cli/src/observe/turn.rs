//! Whether one of our own programs is at work.

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use usr_policy_system::root::Root;

/// Whoever has this file locked may change mounts and state; the tests hold it.
const TURN: &str = "/run/usr-policy/turn";

/// Whether somebody has the turn. Who wants it asks again and again, so nobody minds that this has it for a moment.
pub(super) fn is_taken(root: &Root) -> bool {
    // Without that file nobody ever had it; what cannot be opened tells nothing.
    root.open_at(TURN, OFlags::RDONLY)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::AGAIN))
}
