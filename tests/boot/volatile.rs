//! A root that keeps nothing, or not all: systemd.volatile= and an overlay of dracut.

use usr_policy_tests::machine::{Extra, Image, Initramfs, Result, Suite};

use crate::case::{Case, Judge, dracut, installed, with};
use crate::checks;
use crate::guest;
use crate::layouts::{HEALTHY, case};
use crate::observed::Observed;
use crate::steps::MERGE_BY_HAND;
use crate::verdict::{LATE, warned};

/// What systemd.volatile= puts in memory is no tmpfs with a size of its own.
const IN_MEMORY_ALREADY: &str = "in memory, on the tmpfs at";

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let image = dracut("trixie-dracut", Suite::Trixie, &installed(&[]))?;
    let [state_off, overlay_off, yes_off, dracut_off] = [
        "trixie-dracut-volatile-state-boots-without-the-word",
        "trixie-dracut-volatile-overlay-boots-without-the-word",
        "trixie-dracut-volatile-yes-boots-without-the-word",
        "trixie-dracut-an-overlay-of-dracut-boots-without-the-word",
    ];
    let mut cases = pair(
        [
            state_off,
            "trixie-dracut-volatile-state-holds-without-a-database",
        ],
        &image,
        [
            "systemd.volatile=state",
            "systemd.volatile=state usrpolicy=strict",
        ],
        |seen, twin| about_usr(seen, twin, &[]),
    );
    cases.extend([
        case(
            overlay_off,
            &image,
            "systemd.volatile=overlay",
            None,
            HEALTHY,
        ),
        case(
            "trixie-dracut-volatile-overlay-holds",
            &image,
            "systemd.volatile=overlay usrpolicy=strict",
            Some(overlay_off),
            crate::layouts::HOLDS,
        ),
    ]);
    let only_usr = Image {
        root_extras: guest::root_in_usr()?,
        ..dracut(
            "trixie-dracut-only-usr",
            Suite::Trixie,
            &with(
                installed(&[]),
                // What a distribution for machines without an /etc would have.
                [Extra::link(
                    "/usr/lib/systemd/system/systemd-firstboot.service",
                    "/dev/null",
                )],
            ),
        )?
    };
    cases.extend(pair(
        [yes_off, "trixie-dracut-volatile-yes-holds-without-a-database"],
        &only_usr,
        [
            "systemd.volatile=yes systemd.machine_id=6e616d6f6e6f6d61636869746f627973",
            "systemd.volatile=yes systemd.machine_id=6e616d6f6e6f6d61636869746f627973 usrpolicy=strict",
        ],
        // The extension of the tests lies in the root, of which nothing is left.
        |seen, twin| about_usr(seen, twin, &["a-merge-shows-the-extension-once"]),
    ));
    let overlay = Image {
        initramfs: Initramfs::DracutWith {
            add: "overlayfs",
            omit: "",
            install: "",
        },
        ..dracut("trixie-dracut-overlayfs", Suite::Trixie, &installed(&[]))?
    };
    cases.extend([
        case(
            dracut_off,
            &overlay,
            "rd.live.overlay.overlayfs=1",
            None,
            HEALTHY,
        ),
        case(
            "trixie-dracut-an-overlay-of-dracut-holds-late-and-the-log-says-why",
            &overlay,
            "rd.live.overlay.overlayfs=1 usrpolicy=strict",
            Some(dracut_off),
            |seen, twin| match twin {
                Some(twin) => checks::strict_from_the_host(seen, twin)
                    .broken_but_for(&["usr-is-never-writable-in-the-watch"]),
                None => vec!["this needs its twin".to_owned()],
            },
        )
        // dracut leaves the overlay mounted where its lower layer was, too.
        .says(warned(&[
            LATE,
            "the same files can be written at /run/rootfsbase/usr",
            "the same files can be written at /run/rootfsbase/var/lib/pacman",
        ])),
    ]);
    Ok(cases)
}

/// Off and strict of a machine that may have no package manager.
fn pair(
    [off, strict]: [&'static str; 2],
    image: &Image,
    [off_words, words]: [&'static str; 2],
    judge: Judge,
) -> Vec<Case> {
    let with = |name, words, twin, judge| Case {
        steps: MERGE_BY_HAND.to_vec(),
        ..case(name, image, words, twin, judge)
    };
    vec![
        with(off, off_words, None, HEALTHY),
        with(strict, words, Some(off), judge).says(warned(&[IN_MEMORY_ALREADY])),
    ]
}

fn about_usr(seen: &Observed, twin: Option<&Observed>, exceptions: &[&str]) -> Vec<String> {
    match twin {
        Some(twin) => checks::strict_about_usr(seen, twin).broken_but_for(exceptions),
        None => vec!["this needs its twin".to_owned()],
    }
}
