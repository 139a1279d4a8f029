//! Ways to start: each with /usr in the root and on a partition of its own.

use usr_policy_tests::machine::{Extra, Format, Image, Initramfs, Layout, Result, Suite};

use crate::case::{Case, dracut, installed, plain, with};
use crate::cases::off_and_strict;
use crate::checks;
use crate::guest;
use crate::layouts::{
    HOLDS, OFF_WITH_USR, OWN_OFF, ROOT_LINE, USR, USR_LINE, case, on_disks, with_fstab,
};
use crate::mkinitcpio;
use crate::verdict::{FSTAB_OPENS_USR, LATE, warned};

const STRICT: &str = "usrpolicy=strict";

/// Cases that need a checkout of mkinitcpio.
pub const WITH_SOURCE: [&str; 4] = [
    "trixie-mkinitcpio-busybox-usr-on-its-own-partition-stays-writable-without-the-word",
    "trixie-mkinitcpio-busybox-usr-on-its-own-partition-is-never-writable",
    "trixie-mkinitcpio-systemd-usr-on-its-own-partition-stays-writable-without-the-word",
    "trixie-mkinitcpio-systemd-usr-on-its-own-partition-is-never-writable",
];

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    Ok([
        dracut_without_systemd()?,
        busybox()?,
        without_initramfs_part()?,
        mkinitcpio_itself()?,
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// Dracut without systemd: its hooks mount the root and /usr.
fn dracut_without_systemd() -> Result<Vec<Case>> {
    let initramfs = Initramfs::DracutWith {
        add: "",
        omit: "systemd systemd-initrd dracut-systemd",
        install: "",
    };
    let mut initramfs_extras = guest::busybox_initrd()?;
    initramfs_extras.push(Extra::program(
        "/var/lib/dracut/hooks/cleanup/99-witness.sh",
        include_str!("guest/witness-dracut.sh"),
    ));
    let in_root = Image {
        initramfs: initramfs.clone(),
        initramfs_extras: initramfs_extras.clone(),
        ..dracut(
            "trixie-dracut-without-systemd",
            Suite::Trixie,
            &installed(&[]),
        )?
    };
    let own = Image {
        initramfs,
        initramfs_extras,
        ..own_partition("trixie-dracut-without-systemd-own")?
    };
    let mut cases = Vec::from(off_and_strict(
        [
            "trixie-dracut-without-systemd-without-the-word-usr-stays-writable",
            "trixie-dracut-without-systemd-strict-holds-from-before-switch-root-to-shutdown",
        ],
        &in_root,
    ));
    let off =
        "trixie-dracut-without-systemd-usr-on-its-own-partition-stays-writable-without-the-word";
    cases.push(case(off, &own, "", None, OFF_WITH_USR));
    cases.push(
        case(
            "trixie-dracut-without-systemd-usr-on-its-own-partition-is-never-writable",
            &own,
            STRICT,
            Some(off),
            HOLDS,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
    );
    Ok(cases)
}

/// With /usr on a partition of its own and fstab `rw`.
fn own_partition(name: &str) -> Result<Image> {
    on_disks(
        name,
        Suite::Trixie,
        Layout::of(Format::Ext4, [USR]),
        ROOT_LINE,
        USR_LINE,
    )
}

/// A busybox image whose hook `usr` mounts /usr, ours before it and after it.
fn busybox() -> Result<Vec<Case>> {
    let image = |name: &str, hooks: &'static [&'static str]| {
        let mut image = own_partition(name)?;
        image.initramfs_tree.extras.extend(guest::hook());
        image.initramfs_tree.extras.extend([
            Extra::file(
                "/etc/initcpio/install/usr",
                include_str!("guest/usr.install"),
            ),
            Extra::file("/etc/initcpio/hooks/usr", include_str!("guest/usr.hook")),
        ]);
        Ok::<_, usr_policy_tests::machine::Error>(Image {
            initramfs: Initramfs::Busybox(hooks),
            initramfs_extras: guest::busybox_initrd()?,
            ..image
        })
    };
    let before = image(
        "trixie-busybox-own-before",
        &["witness", "usr-policy", "usr"],
    )?;
    let after = image(
        "trixie-busybox-own-after",
        &["witness", "usr", "usr-policy"],
    )?;
    let off = "trixie-busybox-usr-on-its-own-partition-stays-writable-without-the-word";
    Ok(vec![
        case(off, &before, "", None, OFF_WITH_USR),
        case(
            "trixie-busybox-usr-on-its-own-partition-is-never-writable-with-our-hook-before-usr",
            &before,
            STRICT,
            Some(off),
            HOLDS,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        case(
            "trixie-busybox-usr-on-its-own-partition-is-never-writable-with-our-hook-after-usr",
            &after,
            STRICT,
            Some(off),
            HOLDS,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
    ])
}

/// Only the real root has us, and fstab opens /usr: the host stage closes it before anything is mounted.
fn without_initramfs_part() -> Result<Vec<Case>> {
    let own = Image {
        initramfs_tree: with_fstab(plain(), ROOT_LINE, USR_LINE),
        ..own_partition("trixie-dracut-without-initramfs-part-own")?
    };
    Ok(vec![
        case(
            "trixie-dracut-without-the-initramfs-part-usr-on-its-own-partition-holds-late",
            &own,
            STRICT,
            Some(OWN_OFF),
            |seen, twin| {
                let Some(twin) = twin else {
                    return vec!["this needs its twin".to_owned()];
                };
                checks::strict_from_the_host(seen, twin)
                    .broken_but_for(&["usr-is-never-writable-in-the-watch"])
            },
        )
        .says(warned(&[LATE, FSTAB_OPENS_USR])),
    ])
}

/// Images of mkinitcpio itself.
fn mkinitcpio_itself() -> Result<Vec<Case>> {
    let Some(source) = mkinitcpio::source() else {
        return Ok(Vec::new());
    };
    let [busybox_off, busybox_strict, systemd_off, systemd_strict] = WITH_SOURCE;
    let busybox = &[
        "base",
        "udev",
        "modconf",
        "block",
        "filesystems",
        "usr",
        "fsck",
        "witness",
        "usr-policy",
    ];
    let systemd = &[
        "base",
        "systemd",
        "modconf",
        "block",
        "filesystems",
        "fsck",
        "usr-policy",
    ];
    let mut image = own_partition("trixie-mkinitcpio-busybox-own")?;
    image.initramfs_tree = with(image.initramfs_tree, guest::hook());
    let busybox = Image {
        initramfs: Initramfs::Mkinitcpio {
            source: source.clone(),
            hooks: busybox,
        },
        initramfs_extras: guest::busybox_initrd()?,
        ..image
    };
    let systemd = Image {
        initramfs: Initramfs::Mkinitcpio {
            source,
            hooks: systemd,
        },
        ..own_partition("trixie-mkinitcpio-systemd-own")?
    };
    Ok(vec![
        case(busybox_off, &busybox, "", None, OFF_WITH_USR),
        case(busybox_strict, &busybox, STRICT, Some(busybox_off), HOLDS)
            .says(warned(&[FSTAB_OPENS_USR])),
        case(systemd_off, &systemd, "", None, OFF_WITH_USR),
        case(systemd_strict, &systemd, STRICT, Some(systemd_off), HOLDS)
            .says(warned(&[FSTAB_OPENS_USR])),
    ])
}
