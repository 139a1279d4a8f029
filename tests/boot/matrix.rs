//! The boot matrix: layouts, ways to start, and what comes of each. `make check-matrix` boots every cell and writes
//! `tests/matrix.tsv`; `make check` boots those that are quick to show the most.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use usr_policy_tests::machine::key::Key;
use usr_policy_tests::machine::{At, Result};

use crate::case::Case;
use crate::counting;
use crate::nfs;
use crate::subvolume;

/// A cell.
pub struct Cell {
    suite: &'static str,
    layout: &'static str,
    start: &'static str,
    outcome: Outcome,
    /// The case that shows it; the one that covers it, where it has none of its own.
    case: &'static str,
    when: When,
}

/// What comes of it, where its case passes.
#[derive(Clone, Copy)]
enum Outcome {
    /// Read-only before the first process of the real root.
    Holds,
    /// Read-only before the file systems are mounted, and verify says since when.
    Late,
    /// Somebody else makes it read-only; the rest is ours.
    Provided(&'static str),
    /// It is left alone, and why.
    Refused(&'static str),
    /// A case of another cell shows it.
    Covered,
    /// No kernel here can, for this reason; its case shows what can be shown.
    NotRun(fn() -> String),
}

/// Which target boots it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// `make check`.
    Check,
    /// `make check-matrix` alone.
    Matrix,
}

use Outcome::{Covered, Holds, Late, NotRun, Provided, Refused};
use When::{Check, Matrix};

const fn cell(
    [suite, layout, start]: [&'static str; 3],
    outcome: Outcome,
    when: When,
    case: &'static str,
) -> Cell {
    Cell {
        suite,
        layout,
        start,
        outcome,
        case,
        when,
    }
}

const BTRFS: &str = "trixie-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold";
const NESTED: &str = "trixie-dracut-a-nested-btrfs-subvolume-for-usr-holds";
const VAR: &str = "trixie-dracut-a-read-only-root-and-var-on-its-own-partition-holds";
const IN_ROOT: &str = "/usr in the root";
const DAY: &str = "/usr in the root, locked and unlocked";
const OWN: &str = "/usr on its own partition, fstab rw";
const LINE: &str = "/usr, /var/log, /var/cache and the database btrfs subvolumes in fstab";
const MOUNT_USR: &str = "/usr only by mount.usr=";
const NFS: &str = "/usr over NFS, fstab and export rw";
const EROFS: &str = "/usr on erofs";
const LATER: &str = "root ro, fstab rw";

/// Every cell.
#[rustfmt::skip]
const CELLS: &[Cell] = &[
    cell(["trixie", IN_ROOT, "dracut"], Holds, Check, "trixie-dracut-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["trixie", "root a btrfs subvolume", "dracut"], Covered, Matrix, NESTED),
    cell(["trixie", "/usr a nested btrfs subvolume", "dracut"], Holds, Matrix, NESTED),
    cell(["trixie", OWN, "dracut"], Holds, Check, "trixie-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw"),
    cell(["trixie", "/usr on its own partition, fstab ro", "dracut"], Holds, Matrix, "trixie-dracut-usr-on-its-own-partition-with-ro-in-fstab-is-read-only"),
    cell(["trixie", MOUNT_USR, "dracut"], Holds, Matrix, "trixie-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable"),
    cell(["trixie", "/usr only by systemd.mount-extra=", "dracut"], Holds, Matrix, "trixie-dracut-usr-only-by-systemd-mount-extra-is-never-writable"),
    cell(["trixie", LINE, "dracut"], Holds, Check, BTRFS),
    cell(["trixie", "/usr a read-only btrfs subvolume, fstab rw", "dracut"], Holds, Matrix, subvolume::STRICT),
    cell(["trixie", "/var/log and /var/cache btrfs subvolumes", "dracut"], Covered, Matrix, BTRFS),
    cell(["trixie", "the database a btrfs subvolume", "dracut"], Covered, Matrix, BTRFS),
    cell(["trixie", EROFS, "dracut"], Provided("erofs"), Matrix, "trixie-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it"),
    cell(["trixie", "/usr on squashfs", "dracut"], Provided("squashfs"), Matrix, "trixie-dracut-usr-on-squashfs-is-recognised-and-nothing-is-stacked-on-it"),
    cell(["trixie", LATER, "dracut"], Holds, Matrix, "trixie-dracut-usr-stays-read-only-when-remount-fs-opens-the-root"),
    cell(["trixie", "root ro, fstab ro", "dracut"], Holds, Matrix, VAR),
    cell(["trixie", "/var on its own partition", "dracut"], Covered, Matrix, VAR),
    cell(["trixie", "/usr/local on its own partition", "dracut"], Holds, Matrix, "trixie-dracut-usr-local-on-its-own-partition-stays-mounted-and-verify-names-it"),
    cell(["trixie", "/usr/local on its own partition, usrpolicy.path=/usr/local:rw", "dracut"], Holds, Matrix, "trixie-dracut-usr-local-on-its-own-partition-is-no-warning-where-it-is-meant"),
    cell(["trixie", "ProtectSystem=yes", "dracut"], Holds, Matrix, "trixie-dracut-protect-system-finds-usr-read-only-and-there-is-no-second-mount"),
    cell(["trixie", "ProtectSystem=yes", "dracut without our part"], Provided("PID 1"), Matrix, "trixie-dracut-protect-system-without-the-initramfs-part-holds-and-an-extension-is-merged-once"),
    cell(["trixie", "systemd.volatile=yes", "dracut"], Provided("systemd-volatile-root"), Matrix, "trixie-dracut-volatile-yes-holds-without-a-database"),
    cell(["trixie", "systemd.volatile=state", "dracut"], Holds, Matrix, "trixie-dracut-volatile-state-holds-without-a-database"),
    cell(["trixie", "systemd.volatile=overlay", "dracut"], Holds, Matrix, "trixie-dracut-volatile-overlay-holds"),
    cell(["trixie", "overlay of dracut", "dracut"], Late, Matrix, "trixie-dracut-an-overlay-of-dracut-holds-late-and-the-log-says-why"),
    cell(["trixie", "/usr in the root, every undoer", "dracut"], Holds, Check, "trixie-dracut-strict-holds-after-every-undoer-or-verify-names-it"),
    cell(["trixie", "/usr on its own partition, every undoer", "dracut"], Holds, Matrix, "trixie-dracut-usr-on-its-own-partition-holds-after-every-undoer-or-verify-names-it"),
    cell(["trixie", "/usr on its own partition, locked and unlocked", "dracut"], Holds, Check, "trixie-dracut-usr-on-its-own-partition-is-opened-and-closed-with-the-database"),
    cell(["trixie", NFS, "dracut"], Holds, Matrix, "trixie-dracut-usr-over-nfs-is-never-writable-though-fstab-and-export-say-rw"),
    cell(["trixie", "/usr over NFS, export ro", "dracut"], Holds, Matrix, "trixie-dracut-usr-over-nfs-with-ro-in-the-export-is-read-only"),
    cell(["trixie", "/usr over NFS, fstab ro", "dracut"], Holds, Matrix, "trixie-dracut-usr-over-nfs-with-ro-in-fstab-is-read-only"),
    cell(["trixie", "/usr over NFS, the server dead", "dracut"], Holds, Matrix, "trixie-dracut-a-dead-nfs-server-holds-the-boot-no-longer-than-fstab-says"),
    cell(["trixie", IN_ROOT, "dracut without systemd"], Holds, Matrix, "trixie-dracut-without-systemd-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["trixie", OWN, "dracut without systemd"], Holds, Matrix, "trixie-dracut-without-systemd-usr-on-its-own-partition-is-never-writable"),
    cell(["trixie", IN_ROOT, "busybox"], Holds, Check, "trixie-busybox-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["trixie", OWN, "busybox, our hook before usr"], Holds, Matrix, "trixie-busybox-usr-on-its-own-partition-is-never-writable-with-our-hook-before-usr"),
    cell(["trixie", OWN, "busybox, our hook after usr"], Holds, Check, "trixie-busybox-usr-on-its-own-partition-is-never-writable-with-our-hook-after-usr"),
    cell(["trixie", IN_ROOT, "mkinitcpio busybox"], Holds, Check, "trixie-mkinitcpio-busybox-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["trixie", OWN, "mkinitcpio busybox"], Holds, Matrix, "trixie-mkinitcpio-busybox-usr-on-its-own-partition-is-never-writable"),
    cell(["trixie", IN_ROOT, "mkinitcpio systemd"], Holds, Check, "trixie-mkinitcpio-systemd-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["trixie", OWN, "mkinitcpio systemd"], Holds, Matrix, "trixie-mkinitcpio-systemd-usr-on-its-own-partition-is-never-writable"),
    cell(["trixie", IN_ROOT, "dracut without our part"], Late, Check, "trixie-dracut-without-the-initramfs-part-it-holds-late-and-verify-says-so"),
    cell(["trixie", OWN, "dracut without our part"], Late, Matrix, "trixie-dracut-without-the-initramfs-part-usr-on-its-own-partition-holds-late"),
    cell(["trixie", IN_ROOT, "no initramfs"], Late, Check, "trixie-without-an-initramfs-it-holds-late-and-verify-says-so"),
    cell(["trixie", IN_ROOT, "no initramfs, pre-init"], Holds, Matrix, "trixie-pre-init-usr-in-the-root-holds-from-the-first-process-to-shutdown"),
    cell(["trixie", OWN, "no initramfs, pre-init"], Holds, Check, "trixie-pre-init-strict-holds-from-the-first-process-to-shutdown"),
    cell(["trixie", NFS, "no initramfs, pre-init"], NotRun(nfs::why_not_without_an_initramfs), Matrix, nfs::PRE_INIT),
    cell(["trixie", NFS, "pre-init, its drivers loaded by an initramfs"], Holds, Matrix, nfs::PRE_INIT),
    cell(["trixie", OWN, "no initramfs, pre-init, OpenRC"], Late, Matrix, "trixie-openrc-closes-usr-late-where-fstab-says-rw-and-verify-says-so"),
    cell(["trixie", OWN, "no initramfs, pre-init, OpenRC without our script"], Refused("nobody would lock the database"), Matrix, "trixie-openrc-without-our-script-leaves-usr-writable-and-verify-says-so"),
    cell(["trixie", "/usr on its own partition, fstab ro", "no initramfs, pre-init, OpenRC"], Holds, Matrix, "trixie-openrc-leaves-usr-read-only-since-pre-init-where-fstab-says-ro"),
    cell(["trixie", "/usr in the root, entries that are counted", "systemd-boot, dracut"], Holds, Matrix, counting::NAME),
    cell(["bookworm", IN_ROOT, "dracut"], Holds, Check, "bookworm-dracut-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["bookworm", DAY, "dracut"], Holds, Matrix, "bookworm-dracut-strict-the-database-is-locked-and-unlocked-as-the-table-says"),
    cell(["bookworm", OWN, "dracut"], Holds, Matrix, "bookworm-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw"),
    cell(["bookworm", MOUNT_USR, "dracut"], Holds, Matrix, "bookworm-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable"),
    cell(["bookworm", LINE, "dracut"], Holds, Matrix, "bookworm-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold"),
    cell(["bookworm", EROFS, "dracut"], Provided("erofs"), Matrix, "bookworm-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it"),
    cell(["bookworm", LATER, "dracut"], Holds, Matrix, "bookworm-dracut-usr-stays-read-only-when-remount-fs-opens-the-root"),
    cell(["forky", IN_ROOT, "dracut"], Holds, Check, "forky-dracut-strict-holds-from-before-switch-root-to-shutdown"),
    cell(["forky", DAY, "dracut"], Holds, Check, "forky-dracut-strict-the-database-is-locked-and-unlocked-as-the-table-says"),
    cell(["forky", DAY, "dracut, without the word"], Refused("nothing was asked for"), Matrix, "forky-dracut-without-the-word-every-promise-of-the-lock-is-seen-broken"),
    cell(["forky", OWN, "dracut"], Holds, Matrix, "forky-dracut-usr-on-its-own-partition-is-never-writable-though-fstab-says-rw"),
    cell(["forky", MOUNT_USR, "dracut"], Holds, Matrix, "forky-dracut-usr-only-by-mount-usr-on-the-command-line-is-never-writable"),
    cell(["forky", LINE, "dracut"], Holds, Matrix, "forky-dracut-btrfs-subvolumes-for-usr-log-cache-and-database-hold"),
    cell(["forky", EROFS, "dracut"], Provided("erofs"), Matrix, "forky-dracut-usr-on-erofs-is-recognised-and-nothing-is-stacked-on-it"),
    cell(["forky", LATER, "dracut"], Holds, Matrix, "forky-dracut-usr-stays-read-only-when-remount-fs-opens-the-root"),
    cell(["forky", "extension merged by the initramfs", "dracut"], Holds, Matrix, "forky-dracut-an-extension-that-the-initramfs-merges-lies-over-a-read-only-usr"),
];

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Holds => f.write_str("holds"),
            Late => f.write_str("late"),
            Provided(by) => write!(f, "provided by {by}"),
            Refused(why) => write!(f, "refused: {why}"),
            Covered => write!(f, "not run: covered by {}", self.case),
            NotRun(why) => write!(f, "not run: {}", why()),
        }
    }
}

/// A line for a person about every cell that no kernel here can run.
pub fn not_run() -> Vec<String> {
    let cells = CELLS
        .iter()
        .filter(|cell| matches!(cell.outcome, NotRun(_)));
    cells
        .map(|cell| format!("{}, {}, {}: {cell}", cell.suite, cell.layout, cell.start))
        .collect()
}

/// The names of the cases that only `make check-matrix` boots, of these: cells of it, and twins of no others.
pub fn is_left_out_of_check(cases: &[Case]) -> Vec<&'static str> {
    let in_check = |name: &str| {
        CELLS
            .iter()
            .any(|cell| cell.case == name && cell.when == Check)
    };
    let wanted: Vec<&'static str> = cases
        .iter()
        .filter(|case| in_check(case.name))
        .flat_map(|case| [Some(case.name), case.twin])
        .flatten()
        .collect();
    cases
        .iter()
        .map(|case| case.name)
        .filter(|name| !wanted.contains(name))
        .collect()
}

/// Whether a case shows a cell, or is the twin of one that does.
pub fn has(name: &str, cases: &[Case]) -> bool {
    let shows = |name: &str| CELLS.iter().any(|cell| cell.case == name);
    let mut twins = cases.iter().filter(|case| case.twin == Some(name));
    shows(name) || twins.any(|case| shows(case.name))
}

/// The folders that decide a boot.
const DECIDE: [&str; 7] = [
    "generator",
    "src",
    "units",
    "dracut",
    "mkinitcpio",
    "tests/boot",
    "tests/support",
];

/// The top of the repository.
const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A hash of all that decides a boot.
///
/// # Errors
/// A file cannot be read.
pub fn hash() -> Result<String> {
    DECIDE
        .iter()
        .try_fold(Key::new(), |key, dir| {
            key.with(dir).with_tree(&Path::new(TOP).join(dir))
        })
        .map(Key::text)
}

/// A line for a person where the recorded matrix is older than what it is about; `None` where it is not.
///
/// # Errors
/// A file cannot be read.
pub fn outdated() -> Result<Option<String>> {
    let file = Path::new(TOP).join("tests/matrix.tsv");
    // None yet is as old as any.
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let recorded = recorded
        .lines()
        .find_map(|line| line.strip_prefix("# hash "))
        .unwrap_or_default()
        .to_owned();
    let now = hash()?;
    let what = match recorded.as_str() {
        "" => "tests/matrix.tsv says nothing of any tree".to_owned(),
        _ => format!("tests/matrix.tsv is of {recorded}, the tree is {now}"),
    };
    Ok((recorded != now).then(|| format!("{what}: run make check-matrix before a release")))
}

/// Writes the matrix: a head, then a line for each cell. `passed` says of cases that were judged whether they passed.
///
/// # Errors
/// The file cannot be written.
pub fn write(file: &Path, head: &str, passed: &BTreeMap<String, bool>) -> Result<()> {
    let mut text = String::new();
    for line in head.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "# hash {}\nsuite\tlayout\tstart\tresult", hash()?);
    for cell in CELLS {
        let Cell {
            suite,
            layout,
            start,
            case,
            ..
        } = cell;
        let _ = match passed.get(*case) {
            Some(true) => writeln!(text, "{suite}\t{layout}\t{start}\t{cell}"),
            Some(false) => writeln!(text, "{suite}\t{layout}\t{start}\tRED: {case}"),
            None => writeln!(text, "{suite}\t{layout}\t{start}\tunknown: {case}"),
        };
    }
    fs::write(file, text).at(file)
}
