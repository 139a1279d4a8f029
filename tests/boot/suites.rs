//! The nastiest layouts once more on the oldest systemd and on the nearest to Arch, and an extension that an initramfs
//! merges.

use usr_policy_tests::machine::base::EXTENSION;
use usr_policy_tests::machine::{Extra, Format, Image, Initramfs, Layout, Part, Result, Suite};

use crate::case::{Case, Judge, dracut, installed, with};
use crate::checks;
use crate::guest;
use crate::layouts::{
    BTRFS_LINES, BTRFS_ROOT, DATABASE, EROFS_LINE, HEALTHY, HOLDS, OFF_WITH_USR, PROVIDED,
    ROOT_LINE, SIDE_BY_SIDE, USR, USR_LINE, case, on_disks,
};
use crate::steps::{OPENS, UNMERGE};
use crate::verdict::{CLEAN, FSTAB_OPENS_USR, Verdict, WRITABLE_EXTENSION, warned};

const STRICT: &str = "usrpolicy=strict";

/// Names of the cases of one suite: off and strict of each image, and the one that has the suite's plain image.
struct Names {
    own: [&'static str; 2],
    command_line: [&'static str; 2],
    btrfs: [&'static str; 2],
    erofs: [&'static str; 2],
    read_only_root: [&'static str; 2],
}

const BOOKWORM: Names = Names {
    own: [
        "bookworm-dracut-usr-on-its-own-partition-stays-writable-without-the-word",
        "bookworm-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw",
    ],
    command_line: [
        "bookworm-dracut-usr-only-on-the-command-line-stays-writable-without-the-word",
        "bookworm-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable",
    ],
    btrfs: [
        "bookworm-dracut-btrfs-subvolumes-stay-writable-without-the-word",
        "bookworm-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold",
    ],
    erofs: [
        "bookworm-dracut-usr-on-erofs-boots-without-the-word",
        "bookworm-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it",
    ],
    read_only_root: [
        "bookworm-dracut-without-the-word-usr-stays-writable",
        "bookworm-dracut-usr-stays-read-only-when-remount-fs-opens-the-root",
    ],
};

const FORKY: Names = Names {
    own: [
        "forky-dracut-usr-on-its-own-partition-stays-writable-without-the-word",
        "forky-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw",
    ],
    command_line: [
        "forky-dracut-usr-only-on-the-command-line-stays-writable-without-the-word",
        "forky-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable",
    ],
    btrfs: [
        "forky-dracut-btrfs-subvolumes-stay-writable-without-the-word",
        "forky-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold",
    ],
    erofs: [
        "forky-dracut-usr-on-erofs-boots-without-the-word",
        "forky-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it",
    ],
    read_only_root: [
        "forky-dracut-without-the-word-usr-stays-writable",
        "forky-dracut-usr-stays-read-only-when-remount-fs-opens-the-root",
    ],
};

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = of(Suite::Bookworm, &BOOKWORM)?;
    cases.extend(of(Suite::Forky, &FORKY)?);
    cases.extend(merged_in_the_initramfs()?);
    Ok(cases)
}

fn of(suite: Suite, names: &Names) -> Result<Vec<Case>> {
    let image = |name: &str, part: Part, line| {
        let layout = Layout::of(Format::Ext4, [part]);
        on_disks(
            &format!("{suite}-dracut-{name}"),
            suite,
            layout,
            ROOT_LINE,
            line,
        )
    };
    let erofs = Part {
        format: Format::Erofs,
        ..USR
    };
    let btrfs = on_disks(
        &format!("{suite}-dracut-btrfs"),
        suite,
        Layout::of(Format::Btrfs(SIDE_BY_SIDE), []),
        BTRFS_ROOT,
        BTRFS_LINES,
    )?;
    let off_btrfs: Judge = |seen, _| checks::off_with_mounts(seen, &["/usr", DATABASE]).broken();
    let mut cases = Vec::new();
    let mut add = |[off, strict]: [&'static str; 2],
                   image: &Image,
                   words: [&'static str; 2],
                   judges: [Judge; 2],
                   verdict: Verdict| {
        cases.push(case(off, image, words[0], None, judges[0]));
        cases.push(case(strict, image, words[1], Some(off), judges[1]).says(verdict));
    };
    add(
        names.own,
        &image("own", USR, USR_LINE)?,
        ["", STRICT],
        [OFF_WITH_USR, HOLDS],
        warned(&[FSTAB_OPENS_USR]),
    );
    add(
        names.command_line,
        &image("own-without-line", USR, "")?,
        [
            "mount.usr=LABEL=usr mount.usrfstype=ext4",
            "mount.usr=LABEL=usr mount.usrfstype=ext4 usrpolicy=strict",
        ],
        [OFF_WITH_USR, HOLDS],
        CLEAN,
    );
    add(
        names.btrfs,
        &btrfs,
        ["rootflags=subvol=@", "rootflags=subvol=@ usrpolicy=strict"],
        [off_btrfs, HOLDS],
        warned(&[FSTAB_OPENS_USR]),
    );
    add(
        names.erofs,
        &image("erofs", erofs, EROFS_LINE)?,
        ["", STRICT],
        [HEALTHY, PROVIDED],
        CLEAN,
    );
    let [off, strict] = names.read_only_root;
    let plain = dracut(&format!("{suite}-dracut"), suite, &installed(&[]))?;
    cases.push(case(
        strict,
        &plain,
        "ro usrpolicy=strict",
        Some(off),
        HOLDS,
    ));
    Ok(cases)
}

/// systemd 261 and later merge an extension of the root before the switch to it.
fn merged_in_the_initramfs() -> Result<Vec<Case>> {
    let contents = with(
        installed(&[]),
        [Extra::link("/var/lib/extensions/hello", EXTENSION)],
    );
    // Not dracut's module: it wants dm-verity, and with it half of cryptsetup.
    let mut initramfs_extras = guest::initrd()?;
    initramfs_extras.push(Extra::link(
        "/etc/systemd/system/initrd.target.wants/systemd-sysext-sysroot.service",
        "/usr/lib/systemd/system/systemd-sysext-sysroot.service",
    ));
    let image = Image {
        initramfs: Initramfs::DracutWith {
            add: "",
            omit: "",
            install: "systemd-sysext /usr/lib/systemd/system/systemd-sysext-sysroot.service",
        },
        initramfs_extras,
        ..dracut(
            "forky-dracut-merged-in-the-initramfs",
            Suite::Forky,
            &contents,
        )?
    };
    let off = "forky-dracut-an-extension-that-the-initramfs-merges-boots-without-the-word";
    let with_steps = |case| Case {
        steps: vec![UNMERGE, OPENS],
        ..case
    };
    Ok(vec![
        with_steps(case(off, &image, "", None, HEALTHY)),
        with_steps(case(
            "forky-dracut-an-extension-that-the-initramfs-merges-lies-over-a-read-only-usr",
            &image,
            STRICT,
            Some(off),
            |seen, twin| match twin {
                Some(twin) => checks::strict_merged_in_the_initramfs(seen, twin).broken(),
                None => vec!["this needs its twin".to_owned()],
            },
        ))
        .says(warned(&[WRITABLE_EXTENSION])),
    ])
}
