//! The boots.

use usr_policy_tests::machine::base::EXTENSION;
use usr_policy_tests::machine::{Extra, Image, Result, Suite};

use crate::case::{Case, dracut, installed, plain, with};
use crate::checks;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN, STIR, UNMERGE};
use crate::verdict::{CLEAN, WRITABLE_EXTENSION, warned};

/// Every case. A twin stands before the cases that need it, so that it is booted as a test of its own first.
///
/// # Errors
/// The witness cannot be prepared.
pub fn all() -> Result<Vec<Case>> {
    Ok([
        without_the_product()?,
        a_sick_system()?,
        dracut_with_the_product()?,
        trixie_goes_on()?,
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// The twin of every boot of trixie's dracut image.
pub const OFF_WITHOUT_THE_PRODUCT: &str =
    "trixie-dracut-without-the-product-usr-stays-writable-and-pacman-works";

/// The judge before the work: a system with nothing of ours keeps what any system keeps, and every probe for the rest
/// is seen to turn red on it.
fn without_the_product() -> Result<Vec<Case>> {
    let image = dracut("trixie-dracut-without-the-product", Suite::Trixie, &plain())?;
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    Ok(vec![
        Case {
            name: OFF_WITHOUT_THE_PRODUCT,
            image: image.clone(),
            words: "",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::off(seen).broken(),
        },
        Case {
            name: "trixie-dracut-without-the-product-every-strict-promise-is-seen-broken",
            image,
            words: "usrpolicy=strict",
            steps,
            twin: Some(OFF_WITHOUT_THE_PRODUCT),
            verdict: CLEAN,
            judge: |seen, twin| match twin {
                Some(twin) => strict_probes_are_red(seen, twin),
                None => vec!["this needs its twin".to_owned()],
            },
        },
    ])
}

/// What a system cannot promise that has nothing of ours. The rest, such as a writable /etc, holds on any.
const ONLY_WITH_THE_PRODUCT: [&str; 16] = [
    "usr-is-read-only-just-before-switch-root",
    "usr-is-read-only-for-the-first-generator",
    "usr-is-read-only-before-local-fs-pre",
    "usr-is-read-only-before-local-fs",
    "usr-is-read-only-in-the-end",
    "usr-is-never-writable-in-the-watch",
    "usr-is-one-mount-with-a-peer-group-of-its-own",
    "usr-and-usr-local-refuse-writes",
    "the-database-is-one-read-only-mount",
    "var-tmp-is-a-tmpfs-for-everybody",
    "the-package-cache-is-a-tmpfs-for-root",
    "all-of-it-is-there-before-tmpfiles",
    "pacman-refuses-every-change",
    "pacman-changes-no-byte",
    "an-unmerge-gives-the-read-only-usr-back",
    "verify-says-that-it-holds",
];

fn strict_probes_are_red(seen: &Observed, twin: &Observed) -> Vec<String> {
    checks::strict_from_the_initrd(seen, twin).broken_but_for(&ONLY_WITH_THE_PRODUCT)
}

/// The other half of the judge: what holds on any system is seen broken where a system is sick, and the watch sees a
/// /usr that was read-only for a moment.
fn a_sick_system() -> Result<Vec<Case>> {
    let units = "/etc/systemd/system";
    let contents = with(
        plain(),
        [
            Extra::file(
                &format!("{units}/sick.service"),
                include_str!("guest/sick.service"),
            ),
            Extra::link(
                &format!("{units}/local-fs.target.wants/sick.service"),
                "../sick.service",
            ),
            Extra::file(
                &format!("{units}/sick-shutdown.service"),
                include_str!("guest/sick-shutdown.service"),
            ),
            Extra::link(
                &format!("{units}/multi-user.target.wants/sick-shutdown.service"),
                "../sick-shutdown.service",
            ),
            Extra::file(
                &format!("{units}/systemd-sysext.service.d/usr-policy.conf"),
                "[Unit]\nAfter=sick.service\n",
            ),
        ],
    );
    Ok(vec![Case {
        name: "trixie-dracut-without-the-product-a-sick-system-is-seen-sick",
        image: dracut("trixie-dracut-sick", Suite::Trixie, &contents)?,
        words: "",
        steps: [&PACMAN[..], &MERGE_BY_HAND].concat(),
        twin: Some(OFF_WITHOUT_THE_PRODUCT),
        verdict: CLEAN,
        judge: |seen, twin| {
            let mut complaints = checks::off(seen).broken_but_for(&SEEN_ON_A_SICK_SYSTEM);
            if twin.is_none_or(|twin| checks::no_new_error(seen, twin).is_ok()) {
                complaints.push("no-new-error-is-logged: kept, and there is one".to_owned());
            }
            complaints
        },
    }])
}

/// What the two units of the sick system break.
const SEEN_ON_A_SICK_SYSTEM: [&str; 8] = [
    "usr-is-always-writable-in-the-watch",
    "etc-run-state-and-log-stay-writable",
    "nothing-is-mounted-at-a-path-of-the-policy",
    "no-unit-of-ours-is-loaded",
    "no-record-has-our-name",
    "no-unit-has-failed",
    "the-system-is-running",
    "the-shutdown-is-clean",
];

/// The whole product on every suite, with and without the word.
fn dracut_with_the_product() -> Result<Vec<Case>> {
    let suites = [
        (
            Suite::Bookworm,
            [
                "bookworm-dracut-without-the-word-usr-stays-writable",
                "bookworm-dracut-strict-holds-from-before-switch-root-to-shutdown",
            ],
        ),
        (
            Suite::Trixie,
            [
                "trixie-dracut-without-the-word-usr-stays-writable",
                "trixie-dracut-strict-holds-from-before-switch-root-to-shutdown",
            ],
        ),
        (
            Suite::Forky,
            [
                "forky-dracut-without-the-word-usr-stays-writable",
                "forky-dracut-strict-holds-from-before-switch-root-to-shutdown",
            ],
        ),
    ];
    let mut cases = Vec::new();
    for (suite, names) in suites {
        let image = dracut(&format!("{suite}-dracut"), suite, &installed(&[]))?;
        cases.extend(off_and_strict(names, &image));
    }
    Ok(cases)
}

/// The two boots of an image that must hold whatever made its initramfs.
pub fn off_and_strict([off, strict]: [&'static str; 2], image: &Image) -> [Case; 2] {
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    [
        Case {
            name: off,
            image: image.clone(),
            words: "",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::off(seen).broken(),
        },
        Case {
            name: strict,
            image: image.clone(),
            words: "usrpolicy=strict",
            steps,
            twin: Some(off),
            verdict: CLEAN,
            judge: |seen, twin| match twin {
                Some(twin) => checks::strict_from_the_initrd(seen, twin).broken(),
                None => vec!["this needs its twin".to_owned()],
            },
        },
    ]
}

/// A strict system that goes on: it merges an extension while it boots, and it is reloaded and isolated.
fn trixie_goes_on() -> Result<Vec<Case>> {
    let merged = with(
        installed(&[]),
        [
            Extra::link("/var/lib/extensions/hello", EXTENSION),
            Extra::link(
                "/etc/systemd/system/sysinit.target.wants/systemd-sysext.service",
                "/usr/lib/systemd/system/systemd-sysext.service",
            ),
        ],
    );
    Ok(vec![
        Case {
            name: "trixie-dracut-strict-an-extension-is-merged-at-boot-after-the-locks",
            image: dracut("trixie-dracut-extension", Suite::Trixie, &merged)?,
            words: "usrpolicy=strict",
            steps: vec![UNMERGE],
            twin: Some(OFF_WITHOUT_THE_PRODUCT),
            verdict: warned(&[WRITABLE_EXTENSION]),
            judge: |seen, twin| match twin {
                Some(twin) => checks::strict_merged_at_boot(seen, twin).broken(),
                None => vec!["this needs its twin".to_owned()],
            },
        },
        Case {
            name: "trixie-dracut-strict-nothing-moves-at-reload-reexec-isolate-and-remount",
            image: dracut("trixie-dracut", Suite::Trixie, &installed(&[]))?,
            words: "usrpolicy=strict",
            steps: STIR.to_vec(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::strict_when_stirred(seen).broken(),
        },
    ])
}
