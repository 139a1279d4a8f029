//! Every layout: where /usr, /var, /usr/local and the database may lie, and who else makes things read-only. All of
//! them with the initramfs of trixie's dracut, each with its twin.

use usr_policy_tests::machine::{
    Access, Contents, Extra, Format, Image, Layout, Part, Result, Subvolume, Suite,
};

use crate::case::{Case, Judge, dracut, half_dracut, installed, plain, with};
use crate::checks;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN};
use crate::verdict::{CLEAN, FSTAB_OPENS_USR, warned};
use crate::words::verify_says;

pub const STRICT: &str = "usrpolicy=strict";

/// The line of every fstab for `/` on ext4.
pub const ROOT_LINE: &str = "LABEL=root\t/\text4\trw,relatime\t0 1\n";

/// `/usr` on a disk of its own.
pub const USR: Part = Part {
    path: "/usr",
    label: "usr",
    format: Format::Ext4,
};

/// The line of fstab that mounts it writable, as genfstab writes it.
pub const USR_LINE: &str = "LABEL=usr\t/usr\text4\trw,relatime\t0 2\n";

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    Ok([
        own_partition()?,
        command_line()?,
        btrfs()?,
        read_only_by_nature()?,
        read_only_root()?,
        below_usr()?,
        protect_system()?,
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// A machine with these lines in its fstab besides that of `/`.
pub fn with_fstab(contents: Contents, root: &str, lines: &str) -> Contents {
    with(
        contents,
        [Extra::file("/etc/fstab", &format!("{root}{lines}"))],
    )
}

/// An image of dracut on several disks. The fstab in the initramfs' tree is that of the root, as on a real machine.
pub fn on_disks(
    name: &str,
    suite: Suite,
    layout: Layout,
    root: &str,
    lines: &str,
) -> Result<Image> {
    let contents = with_fstab(installed(&[]), root, lines);
    Ok(Image {
        layout,
        ..dracut(name, suite, &contents)?
    })
}

/// A case with the steps that off and strict need.
pub fn case(
    name: &'static str,
    image: &Image,
    words: &'static str,
    twin: Option<&'static str>,
    judge: Judge,
) -> Case {
    Case {
        name,
        image: image.clone(),
        words,
        steps: [&PACMAN[..], &MERGE_BY_HAND].concat(),
        twin,
        verdict: CLEAN,
        judge,
    }
}

/// All that strict promises, but for promises that this layout cannot keep: each of those is seen broken.
pub fn holds_but_for(seen: &Observed, twin: Option<&Observed>, exceptions: &[&str]) -> Vec<String> {
    match twin {
        Some(twin) => checks::strict_from_the_initrd(seen, twin).broken_but_for(exceptions),
        None => vec!["this needs its twin".to_owned()],
    }
}

/// All that strict promises.
pub const HOLDS: Judge = |seen, twin| holds_but_for(seen, twin, &[]);

/// Only a baseline: the layout itself makes something read-only.
pub const HEALTHY: Judge = |seen, _| checks::healthy(seen).broken();

/// Off, where the layout mounts a writable `/usr`.
pub const OFF_WITH_USR: Judge = |seen, _| checks::off_with_mounts(seen, &["/usr"]).broken();

/// All that strict promises, and verify says who keeps `/usr` read-only.
pub const PROVIDED: Judge = |seen, twin| {
    let mut complaints = holds_but_for(seen, twin, &[]);
    complaints.extend(verify_says(seen, "read-only by its file system, "));
    complaints
};

pub const OWN_OFF: &str = "trixie-dracut-usr-on-its-own-partition-stays-writable-without-the-word";

fn own_partition() -> Result<Vec<Case>> {
    let image = |name, line| {
        on_disks(
            name,
            Suite::Trixie,
            Layout::of(Format::Ext4, [USR]),
            ROOT_LINE,
            line,
        )
    };
    let writable = image("trixie-dracut-own", USR_LINE)?;
    let read_only = image(
        "trixie-dracut-own-ro",
        "LABEL=usr\t/usr\text4\tro,relatime\t0 2\n",
    )?;
    let read_only_off =
        "trixie-dracut-usr-on-its-own-partition-with-ro-in-fstab-boots-without-the-word";
    Ok(vec![
        case(OWN_OFF, &writable, "", None, OFF_WITH_USR),
        case(
            "trixie-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw",
            &writable,
            STRICT,
            Some(OWN_OFF),
            |seen, twin| {
                let mut complaints = holds_but_for(seen, twin, &[]);
                complaints.extend(verify_says(seen, "read-only since the initramfs"));
                complaints
            },
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        case(read_only_off, &read_only, "", None, HEALTHY),
        case(
            "trixie-dracut-usr-on-its-own-partition-with-ro-in-fstab-is-read-only",
            &read_only,
            STRICT,
            Some(read_only_off),
            HOLDS,
        ),
    ])
}

/// `/usr` that only the kernel command line knows.
fn command_line() -> Result<Vec<Case>> {
    let image = on_disks(
        "trixie-dracut-own-without-line",
        Suite::Trixie,
        Layout::of(Format::Ext4, [USR]),
        ROOT_LINE,
        "",
    )?;
    let off = "trixie-dracut-usr-only-on-the-command-line-stays-writable-without-the-word";
    Ok(vec![
        case(
            off,
            &image,
            "mount.usr=LABEL=usr mount.usrfstype=ext4",
            None,
            OFF_WITH_USR,
        ),
        case(
            "trixie-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable",
            &image,
            "mount.usr=LABEL=usr mount.usrfstype=ext4 usrpolicy=strict",
            Some(off),
            HOLDS,
        ),
        case(
            "trixie-dracut-usr-only-by-systemd-mount-extra-is-never-writable",
            &image,
            "systemd.mount-extra=LABEL=usr:/usr:ext4:rw usrpolicy=strict",
            Some(off),
            HOLDS,
        ),
    ])
}

pub const DATABASE: &str = "/var/lib/pacman";

/// Subvolumes side by side, as installers make them.
pub const SIDE_BY_SIDE: &[Subvolume] = &[
    Subvolume {
        name: "@",
        holds: "/",
        access: Access::ReadWrite,
    },
    Subvolume {
        name: "@usr",
        holds: "/usr",
        access: Access::ReadWrite,
    },
    Subvolume {
        name: "@log",
        holds: "/var/log",
        access: Access::ReadWrite,
    },
    Subvolume {
        name: "@cache",
        holds: "/var/cache",
        access: Access::ReadWrite,
    },
    Subvolume {
        name: "@pacman",
        holds: DATABASE,
        access: Access::ReadWrite,
    },
];

/// The line of fstab for `/` on such a file system.
pub const BTRFS_ROOT: &str = "LABEL=root\t/\tbtrfs\trw,relatime,subvol=/@\t0 0\n";

/// Those for the others.
pub const BTRFS_LINES: &str = "\
LABEL=root\t/usr\tbtrfs\trw,relatime,subvol=/@usr\t0 0
LABEL=root\t/var/log\tbtrfs\trw,relatime,subvol=/@log\t0 0
LABEL=root\t/var/cache\tbtrfs\trw,relatime,subvol=/@cache\t0 0
LABEL=root\t/var/lib/pacman\tbtrfs\trw,relatime,subvol=/@pacman\t0 0
";

/// Subvolumes side by side, as installers make them, and one inside another, which no fstab mentions.
fn btrfs() -> Result<Vec<Case>> {
    const NESTED: &[Subvolume] = &[
        Subvolume {
            name: "@",
            holds: "/",
            access: Access::ReadWrite,
        },
        Subvolume {
            name: "@/usr",
            holds: "/usr",
            access: Access::ReadWrite,
        },
    ];
    let side_by_side = on_disks(
        "trixie-dracut-btrfs",
        Suite::Trixie,
        Layout::of(Format::Btrfs(SIDE_BY_SIDE), []),
        BTRFS_ROOT,
        BTRFS_LINES,
    )?;
    let nested = on_disks(
        "trixie-dracut-btrfs-nested",
        Suite::Trixie,
        Layout::of(Format::Btrfs(NESTED), []),
        BTRFS_ROOT,
        "",
    )?;
    let [off, nested_off] = [
        "trixie-dracut-btrfs-subvolumes-stay-writable-without-the-word",
        "trixie-dracut-a-nested-btrfs-subvolume-for-usr-stays-writable-without-the-word",
    ];
    Ok(vec![
        case(off, &side_by_side, "rootflags=subvol=@", None, |seen, _| {
            checks::off_with_mounts(seen, &["/usr", DATABASE]).broken()
        }),
        case(
            "trixie-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold",
            &side_by_side,
            "rootflags=subvol=@ usrpolicy=strict",
            Some(off),
            HOLDS,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        case(
            nested_off,
            &nested,
            "rootflags=subvol=@",
            None,
            |seen, _| checks::off(seen).broken(),
        ),
        case(
            "trixie-dracut-a-nested-btrfs-subvolume-for-usr-holds",
            &nested,
            "rootflags=subvol=@ usrpolicy=strict",
            Some(nested_off),
            HOLDS,
        ),
    ])
}

/// The line of fstab for /usr on erofs.
pub const EROFS_LINE: &str = "/dev/disk/by-id/virtio-usr\t/usr\terofs\tro\t0 0\n";

fn read_only_by_nature() -> Result<Vec<Case>> {
    let image = |name, format, line| {
        let part = Part { format, ..USR };
        on_disks(
            name,
            Suite::Trixie,
            Layout::of(Format::Ext4, [part]),
            ROOT_LINE,
            line,
        )
    };
    let erofs = image("trixie-dracut-erofs", Format::Erofs, EROFS_LINE)?;
    let squashfs = image(
        "trixie-dracut-squashfs",
        Format::Squashfs,
        "/dev/disk/by-id/virtio-usr\t/usr\tsquashfs\tro\t0 0\n",
    )?;
    let [erofs_off, squashfs_off] = [
        "trixie-dracut-usr-on-erofs-boots-without-the-word",
        "trixie-dracut-usr-on-squashfs-boots-without-the-word",
    ];
    Ok(vec![
        case(erofs_off, &erofs, "", None, HEALTHY),
        case(
            "trixie-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it",
            &erofs,
            STRICT,
            Some(erofs_off),
            PROVIDED,
        ),
        case(squashfs_off, &squashfs, "", None, HEALTHY),
        case(
            "trixie-dracut-usr-on-squashfs-is-recognised-and-nothing-is-stacked-on-it",
            &squashfs,
            STRICT,
            Some(squashfs_off),
            PROVIDED,
        ),
    ])
}

/// The root is mounted read-only on a file system that could be written.
fn read_only_root() -> Result<Vec<Case>> {
    const VAR: Part = Part {
        path: "/var",
        label: "var",
        format: Format::Ext4,
    };
    let opened_later = dracut("trixie-dracut", Suite::Trixie, &installed(&[]))?;
    let for_good = on_disks(
        "trixie-dracut-var",
        Suite::Trixie,
        Layout::of(Format::Ext4, [VAR]),
        "LABEL=root\t/\text4\tro,relatime\t0 1\n",
        "LABEL=var\t/var\text4\trw,relatime\t0 2\n",
    )?;
    let off = "trixie-dracut-a-read-only-root-and-var-on-its-own-partition-boots-without-the-word";
    Ok(vec![
        case(
            "trixie-dracut-usr-stays-read-only-when-remount-fs-opens-the-root",
            &opened_later,
            "ro usrpolicy=strict",
            Some("trixie-dracut-without-the-word-usr-stays-writable"),
            HOLDS,
        ),
        case(off, &for_good, "ro", None, HEALTHY),
        case(
            "trixie-dracut-a-read-only-root-and-var-on-its-own-partition-holds",
            &for_good,
            "ro usrpolicy=strict",
            Some(off),
            |seen, twin| {
                let root = "the-root-stays-writable";
                let mut complaints =
                    holds_but_for(seen, twin, &["etc-run-state-and-log-stay-writable", root]);
                let still = ["/run", "/run/extensions", "/var/lib/systemd", "/var/log"];
                complaints.extend(checks::answers(seen, &still, "OK").err());
                complaints
            },
        )
        // Whoever asks for a root that is never opened has an /etc that nobody can change.
        .says(warned(&["read-only, although it must be writable"])),
    ])
}

/// A writable mount below `/usr`.
fn below_usr() -> Result<Vec<Case>> {
    const LOCAL: Part = Part {
        path: "/usr/local",
        label: "local",
        format: Format::Ext4,
    };
    let image = on_disks(
        "trixie-dracut-local",
        Suite::Trixie,
        Layout::of(Format::Ext4, [LOCAL]),
        ROOT_LINE,
        "LABEL=local\t/usr/local\text4\trw,nodev,relatime\t0 2\n",
    )?;
    let off = "trixie-dracut-usr-local-on-its-own-partition-stays-writable-without-the-word";
    Ok(vec![
        case(off, &image, "", None, |seen, _| checks::off(seen).broken()),
        case(
            "trixie-dracut-usr-local-on-its-own-partition-stays-mounted-and-verify-names-it",
            &image,
            STRICT,
            Some(off),
            local_stays,
        )
        .says(warned(&["a writable mount of its own below /usr"])),
        case(
            "trixie-dracut-usr-local-on-its-own-partition-is-no-warning-where-it-is-meant",
            &image,
            "usrpolicy=strict usrpolicy.path=/usr/local:rw",
            Some(off),
            local_stays,
        ),
    ])
}

/// `/usr/local` is the same mount, writable, in the end and after each unmerge.
fn local_stays(seen: &Observed, twin: Option<&Observed>) -> Vec<String> {
    let mut complaints = holds_but_for(seen, twin, &["usr-and-usr-local-refuse-writes"]);
    complaints.extend(checks::answers(seen, &["/usr"], "EROFS").err());
    complaints.extend(checks::answers(seen, &["/usr/local"], "OK").err());
    for moment in ["late", "step-unmerge", "step-unmerge-again"] {
        let stays = seen.moment(moment).and_then(|then| {
            let local = then.mounts.only("/usr/local")?;
            if local.has("nodev") && !local.is_read_only() {
                Ok(())
            } else {
                Err(format!("{moment}: /usr/local is {local:?}"))
            }
        });
        complaints.extend(stays.err());
    }
    complaints
}

/// PID 1 makes `/usr` read-only itself.
fn protect_system() -> Result<Vec<Case>> {
    let contents = with(
        installed(&[]),
        [Extra::file(
            "/etc/systemd/system.conf.d/protect.conf",
            "[Manager]\nProtectSystem=yes\n",
        )],
    );
    let image = dracut("trixie-dracut-protect", Suite::Trixie, &contents)?;
    let without_initramfs_part = half_dracut(
        "trixie-dracut-protect-without-initramfs-part",
        Suite::Trixie,
        &contents,
        &plain(),
    )?;
    let off = "trixie-dracut-protect-system-boots-without-the-word";
    Ok(vec![
        case(off, &image, "", None, HEALTHY),
        case(
            "trixie-dracut-protect-system-finds-usr-read-only-and-there-is-no-second-mount",
            &image,
            STRICT,
            Some(off),
            HOLDS,
        ),
        case(
            "trixie-dracut-protect-system-without-the-initramfs-part-holds-and-an-extension-is-merged-once",
            &without_initramfs_part,
            STRICT,
            Some(off),
            |seen, twin| {
                // Until the host stage its mount is in the peer group of the root.
                let mut complaints = holds_but_for(
                    seen,
                    twin,
                    &[
                        "usr-is-read-only-just-before-switch-root",
                        "usr-is-one-mount-with-a-peer-group-of-its-own",
                    ],
                );
                complaints.extend(checks::own_peer_group(seen, &["late"]).err());
                complaints
            },
        ),
    ])
}
