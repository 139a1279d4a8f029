//! The boots.

use usr_policy_tests::machine::{Result, Suite};

use crate::case::{Case, dracut, plain};
use crate::checks;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN};

/// Every case. A twin stands before the cases that need it, so that it is booted as a test of its own first.
///
/// # Errors
/// The witness cannot be prepared.
pub fn all() -> Result<Vec<Case>> {
    Ok([without_the_product()?].into_iter().flatten().collect())
}

/// The judge before the work: a system with nothing of ours keeps what any system keeps, and every probe for the rest
/// is seen to turn red on it.
fn without_the_product() -> Result<Vec<Case>> {
    let image = dracut("trixie-dracut-without-the-product", Suite::Trixie, &plain())?;
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    Ok(vec![
        Case {
            name: "trixie-dracut-without-the-product-usr-stays-writable-and-pacman-works",
            image: image.clone(),
            words: "",
            steps: steps.clone(),
            twin: None,
            judge: |seen, _| checks::off(seen).broken(),
        },
        Case {
            name: "trixie-dracut-without-the-product-every-strict-promise-is-seen-broken",
            image,
            words: "usrpolicy=strict",
            steps,
            twin: Some("trixie-dracut-without-the-product-usr-stays-writable-and-pacman-works"),
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
