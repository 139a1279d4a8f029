//! `usr-policy-generator`: the boot program of usr-policy. Units and hooks call it; people call `usr-policy`.
//!
//! ```text
//! NORMAL [EARLY LATE]                        as a systemd generator(7), three absolute directories or one for all
//! apply --root DIR --stage early|late|host   make DIR/usr read-only
//! sync                                       close whatever the policy wants closed; without systemd, mount the rest
//! follow                                     sync at every merge and unmerge, and when a time is over, as long as it is installed
//! anything else, as the first process        mount /usr read-only and become the real init: init=/usr-policy-init
//! ```
//!
//! It asks nobody, and lets the boot go on whatever it finds. Only as the first process it starts other programs: fsck,
//! and the real init. The follower becomes the program that replaces it.

#![no_main]

mod apply;
mod entry;
mod follow;
mod generator;
mod init;
mod installed;
mod problems;
mod sync;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use usr_policy_plan::plan::Stage;
use usr_policy_plan::pre_init::PRE_INIT;
use usr_policy_system::failure::Failure;
use usr_policy_system::kmsg;
use usr_policy_system::state;
use usr_policy_system::unit_dir::UnitDirs;

/// The name in every record of the log, for `journalctl -t`.
const IDENTIFIER: &str = "usr-policy-generator";

/// What the command line asks for.
enum Role {
    Generator(UnitDirs),
    Apply { root: PathBuf, stage: Stage },
    Sync,
    Follow,
}

/// Runs the role that the words ask for, a name and arguments; returns the exit status.
fn run(words: &[OsString]) -> u8 {
    if std::process::id() == 1 && is_for_init(words) {
        return init::run(words);
    }
    // Not for the first process: what the kernel gave it is the real init's.
    state::set_umask();
    kmsg::init(IDENTIFIER);
    let result = match role(words.get(1..).unwrap_or_default()) {
        Some(Role::Generator(directories)) => generator::run(&directories),
        Some(Role::Apply { root, stage }) => apply::run(root, stage),
        Some(Role::Sync) => sync::run(),
        // It ends by itself only where the package was removed.
        Some(Role::Follow) => return follow::run().map_or(1, |()| installed::NOT_INSTALLED),
        None => {
            log::error!(
                "wrong arguments; use one or three absolute directories, apply --root DIR --stage early|late|host, sync, or follow; to mount /usr without an initramfs, init=/usr-policy-init on the kernel command line"
            );
            return 2;
        }
    };
    match result {
        Ok(()) => 0,
        // Whatever failed was logged where it happened.
        Err(Failed) => 1,
    }
}

/// Something that was promised could not be done; the log says what.
struct Failed;

impl Failed {
    /// Logs what.
    fn because(what: &dyn fmt::Display) -> Self {
        log::error!("{what}");
        Failed
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Failed::because(&failure)
    }
}

/// Whether the first process of a machine may have these arguments: the kernel gives an init the words that it does not know
/// itself. A container has a first process too, and that may have another role.
fn is_for_init(words: &[OsString]) -> bool {
    let [name, arguments @ ..] = words else {
        return true;
    };
    match role(arguments) {
        // The kernel calls an init by its path.
        _ if name == PRE_INIT => true,
        // One path alone may be what a boot loader calls the kernel by.
        Some(Role::Generator(_)) => arguments.len() == 1,
        role => role.is_none(),
    }
}

fn role(arguments: &[OsString]) -> Option<Role> {
    let words: Vec<&[u8]> = arguments
        .iter()
        .map(|argument| argument.as_bytes())
        .collect();
    match words.as_slice() {
        [b"sync"] => Some(Role::Sync),
        [b"follow"] => Some(Role::Follow),
        [b"apply", b"--root", _, b"--stage", stage] => {
            let root = PathBuf::from(&arguments[2]);
            let stage = match *stage {
                b"early" => Stage::Early,
                b"late" => Stage::Late,
                b"host" => Stage::Host,
                _ => return None,
            };
            root.is_absolute().then_some(Role::Apply { root, stage })
        }
        _ => {
            let directories: Vec<PathBuf> = arguments.iter().map(PathBuf::from).collect();
            if !directories.iter().all(|directory| directory.is_absolute()) {
                return None;
            }
            match directories.as_slice() {
                [all] => Some(Role::Generator(UnitDirs {
                    normal: all.clone(),
                    early: all.clone(),
                    late: all.clone(),
                })),
                [normal, early, late] => Some(Role::Generator(UnitDirs {
                    normal: normal.clone(),
                    early: early.clone(),
                    late: late.clone(),
                })),
                _ => None,
            }
        }
    }
}
