//! Boots of half an installation: the machine starts, and nobody is left with a read-only /usr and an open database.

use usr_policy_tests::machine::{Result, Suite};

use crate::case::{Case, half_dracut, installed, plain};
use crate::cases::OFF_WITHOUT_THE_PRODUCT;
use crate::checks;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN};
use crate::verdict::{CLEAN, LATE, NO_FOLLOWER, broken, warned};
use crate::words::{SAID_SO, said_in_the_log};

/// What only the initramfs can keep: the first processes still see it writable.
const ONLY_FROM_THE_INITRAMFS: [&str; 1] = ["usr-is-never-writable-in-the-watch"];

/// What the late stage of an older image says where it finds the boot program missing.
const LEFT_WRITABLE: &str = "/sysroot/usr: left writable: the root has no /usr/lib/usr-policy/usr-policy-generator, and nobody would lock the package database; install usr-policy there, or rebuild the initramfs without it";

/// The generator of systemd is a link to the boot program, and leads nowhere.
const NO_GENERATOR: &str = "stands in place of usr-policy's generator, and is no program";

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    let without_initramfs = half_dracut(
        "trixie-dracut-without-initramfs-part",
        Suite::Trixie,
        &installed(&[]),
        &plain(),
    )?;
    let only_initramfs = half_dracut(
        "trixie-dracut-only-initramfs-part",
        Suite::Trixie,
        &plain(),
        &installed(&[]),
    )?;
    let no_boot_program = half_dracut(
        "trixie-dracut-without-boot-program",
        Suite::Trixie,
        &installed(&["/usr/lib/usr-policy"]),
        &installed(&[]),
    )?;
    Ok(vec![
        Case {
            name: "trixie-dracut-without-the-initramfs-part-it-holds-late-and-verify-says-so",
            image: without_initramfs,
            words: "usrpolicy=strict",
            steps: steps.clone(),
            twin: Some(OFF_WITHOUT_THE_PRODUCT),
            verdict: warned(&[LATE]),
            judge: holds_late,
        },
        Case {
            name: "trixie-dracut-an-image-that-outlives-the-package-leaves-usr-writable-and-says-why",
            image: only_initramfs,
            words: "usrpolicy=strict",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| {
                let mut complaints = checks::off(seen).broken_but_for(&SAID_SO[..1]);
                complaints.extend(said_in_the_log(seen, &[LEFT_WRITABLE]));
                complaints
            },
        },
        Case {
            name: "trixie-dracut-without-the-boot-program-usr-stays-writable-and-verify-says-so",
            image: no_boot_program,
            words: "usrpolicy=strict",
            steps,
            twin: None,
            verdict: broken(&[NO_FOLLOWER, NO_GENERATOR]),
            judge: |seen, _| {
                let mut complaints = checks::off(seen).broken_but_for(&SAID_SO);
                complaints.extend(said_in_the_log(seen, &[LEFT_WRITABLE]));
                complaints
            },
        },
    ])
}

/// Where the real root alone keeps the promises.
pub fn holds_late(seen: &Observed, twin: Option<&Observed>) -> Vec<String> {
    let Some(twin) = twin else {
        return vec!["this needs its twin".to_owned()];
    };
    checks::strict_from_the_host(seen, twin).broken_but_for(&ONLY_FROM_THE_INITRAMFS)
}
