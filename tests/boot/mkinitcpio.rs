//! Boots from images made with our hooks of mkinitcpio: by our own builder always, by mkinitcpio itself where a checkout
//! of it is at hand.

use std::env;
use std::path::PathBuf;

use usr_policy_tests::machine::{Image, Initramfs, Layout, Result, Suite};

use crate::case::{Case, installed};
use crate::cases::off_and_strict;
use crate::guest;

/// Names a checkout of mkinitcpio, which Debian does not package.
pub const SOURCE: &str = "MKINITCPIO_SRC";

/// Cases that need one: printed as ignored where there is none.
pub const WITH_SOURCE: [&str; 4] = [
    "trixie-mkinitcpio-busybox-without-the-word-usr-stays-writable",
    "trixie-mkinitcpio-busybox-strict-holds-from-before-switch-root-to-shutdown",
    "trixie-mkinitcpio-systemd-without-the-word-usr-stays-writable",
    "trixie-mkinitcpio-systemd-strict-holds-from-before-switch-root-to-shutdown",
];

/// The checkout, where there is one.
pub fn source() -> Option<PathBuf> {
    env::var_os(SOURCE)
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

/// Every case that can be booted.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::from(off_and_strict(
        [
            "trixie-busybox-without-the-word-usr-stays-writable",
            "trixie-busybox-strict-holds-from-before-switch-root-to-shutdown",
        ],
        &busybox(
            "trixie-busybox",
            Initramfs::Busybox(&["witness", "usr-policy"]),
        )?,
    ));
    if let Some(source) = source() {
        let [busybox_off, busybox_strict, systemd_off, systemd_strict] = WITH_SOURCE;
        let hooks = &[
            "base",
            "udev",
            "modconf",
            "block",
            "filesystems",
            "witness",
            "usr-policy",
        ];
        let made = Initramfs::Mkinitcpio {
            source: source.clone(),
            hooks,
        };
        cases.extend(off_and_strict(
            [busybox_off, busybox_strict],
            &busybox("trixie-mkinitcpio-busybox", made)?,
        ));
        let hooks = &[
            "base",
            "systemd",
            "modconf",
            "block",
            "filesystems",
            "usr-policy",
        ];
        let image = Image {
            name: "trixie-mkinitcpio-systemd".to_owned(),
            initramfs: Initramfs::Mkinitcpio { source, hooks },
            initramfs_tree: installed(&[]),
            initramfs_extras: guest::initrd()?,
            ..busybox("", Initramfs::Dracut)?
        };
        cases.extend(off_and_strict([systemd_off, systemd_strict], &image));
    }
    Ok(cases)
}

/// An image whose initramfs is made with the witness among the hooks.
fn busybox(name: &str, initramfs: Initramfs) -> Result<Image> {
    let mut initramfs_tree = installed(&[]);
    initramfs_tree.extras.extend(guest::hook());
    Ok(Image {
        name: name.to_owned(),
        suite: Suite::Trixie,
        root: installed(&[]),
        root_extras: guest::root()?,
        layout: Layout::whole(),
        share: None,
        initramfs,
        initramfs_tree,
        initramfs_extras: guest::busybox_initrd()?,
    })
}
