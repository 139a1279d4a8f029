//! Boots without systemd: pre-init, then OpenRC with the scripts that Debian has for it. /usr is a disk of its own.

use usr_policy_tests::machine::{Extra, Format, Image, Initramfs, Layout, Result, Suite};

use crate::case::{Case, Judge, installed, with};
use crate::checks;
use crate::guest;
use crate::layouts::USR;
use crate::verdict::{CLEAN, CLOSED_AGAIN, FSTAB_OPENS_USR, broken, warned};
use crate::words::verify_says;

/// The script that is shipped, where `make install-openrc` puts it.
const SCRIPT: &str = include_str!("../../openrc/usr-policy");

/// What only a /usr keeps that nobody opens after pre-init.
const ONLY_WITH_RO: [&str; 1] = ["usr-is-never-writable-in-the-watch"];

/// An image; `options` are those of /usr in fstab.
fn image(name: &str, options: &str, extras: impl IntoIterator<Item = Extra>) -> Result<Image> {
    let fstab = format!("LABEL=root / ext4 rw,relatime 0 1\nLABEL=usr /usr ext4 {options} 0 2\n");
    let files = [
        Extra::file("/etc/fstab", &fstab),
        Extra::file("/etc/inittab", include_str!("guest/openrc/inittab")),
        Extra::program(
            "/etc/init.d/witness-first",
            include_str!("guest/openrc/first"),
        ),
        Extra::program(
            "/etc/init.d/witness-last",
            include_str!("guest/openrc/last"),
        ),
        Extra::program("/witness/late", include_str!("guest/openrc/late")),
        runs_in("sysinit", "witness-first"),
        runs_in("default", "witness-last"),
        Extra::program("/etc/init.d/usr-policy", SCRIPT),
    ];
    let contents = with(installed(&[]), files.into_iter().chain(extras));
    Ok(Image {
        name: name.to_owned(),
        suite: Suite::OpenRc,
        root: contents.clone(),
        root_extras: vec![guest::witness(guest::WITNESS)?],
        layout: Layout::of(Format::Ext4, [USR]),
        share: None,
        initramfs: Initramfs::None,
        initramfs_tree: contents,
        initramfs_extras: Vec::new(),
    })
}

/// What rc-update(8) does. Debian has no boot runlevel: what others have there is in sysinit.
fn runs_in(runlevel: &str, service: &str) -> Extra {
    Extra::link(
        &format!("/etc/runlevels/{runlevel}/{service}"),
        &format!("/etc/init.d/{service}"),
    )
}

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let case = |name, image, judge: Judge| Case {
        name,
        image,
        words: "init=/usr-policy-init usrpolicy=strict",
        steps: Vec::new(),
        twin: None,
        verdict: CLEAN,
        judge,
    };
    let script = || runs_in("sysinit", "usr-policy");
    Ok(vec![
        case(
            "trixie-openrc-without-our-script-leaves-usr-writable-and-verify-says-so",
            image("trixie-openrc-alone", "rw,relatime", [])?,
            |seen, _| {
                checks::strict_by_openrc(seen).broken_but_for(&[
                    "usr-is-read-only-for-the-first-service",
                    "usr-is-never-writable-in-the-watch",
                    "usr-is-read-only-in-the-end",
                    "usr-refuses-writes",
                    "the-database-is-one-read-only-mount",
                    "var-tmp-is-a-tmpfs-for-everybody",
                    "the-package-cache-is-a-tmpfs-for-root",
                    "verify-says-that-it-holds",
                ])
            },
        )
        .says(broken(&[FSTAB_OPENS_USR])),
        case(
            "trixie-openrc-closes-usr-late-where-fstab-says-rw-and-verify-says-so",
            image("trixie-openrc-rw", "rw,relatime", [script()])?,
            |seen, _| checks::strict_by_openrc(seen).broken_but_for(&ONLY_WITH_RO),
        )
        .says(warned(&[CLOSED_AGAIN, FSTAB_OPENS_USR])),
        case(
            "trixie-openrc-leaves-usr-read-only-since-pre-init-where-fstab-says-ro",
            image("trixie-openrc-ro", "ro,relatime", [script()])?,
            |seen, _| {
                let mut complaints = checks::strict_by_openrc(seen).broken();
                complaints.extend(verify_says(seen, "read-only since pre-init"));
                complaints
            },
        ),
    ])
}
