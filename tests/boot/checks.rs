//! What is promised, and whether a boot kept it.
//!
//! A check looks at everything and reports every promise by name: a case can say that all are kept, or exactly which
//! are not.

use crate::journal;
use crate::mounts::{Mount, Table};
use crate::observed::{Answer, Moment, Observed};
use crate::steps::{HELLO, OPENS};

/// Promises and what came of them, in the order in which they were looked at.
#[derive(Debug, Default)]
pub struct Report(Vec<(&'static str, Result<(), String>)>);

impl Report {
    fn promise(&mut self, name: &'static str, kept: Result<(), String>) {
        self.0.push((name, kept));
    }

    /// A complaint for every promise that was not kept.
    pub fn broken(&self) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|(name, kept)| Some(format!("{name}: {}", kept.as_ref().err()?)))
            .collect()
    }

    /// A complaint for every promise that was kept but must not be, or the other way round. A probe that cannot turn
    /// red proves nothing, so there is a boot on which these must.
    pub fn broken_but_for(&self, must_break: &[&str]) -> Vec<String> {
        let unknown = must_break
            .iter()
            .filter(|name| !self.0.iter().any(|(promise, _)| promise == *name))
            .map(|name| format!("{name}: nobody promised this"));
        let wrong =
            self.0
                .iter()
                .filter_map(|(name, kept)| match (must_break.contains(name), kept) {
                    (true, Ok(())) => Some(format!(
                        "{name}: kept, on a system where it cannot be; the probe sees nothing"
                    )),
                    (false, Err(why)) => Some(format!("{name}: {why}")),
                    (true, Err(_)) | (false, Ok(())) => None,
                });
        unknown.chain(wrong).collect()
    }
}

/// The moments of a boot at which somebody tries to write to /usr.
const MOMENTS: [(&str, &str); 5] = [
    ("initrd", "usr-is-read-only-just-before-switch-root"),
    ("generator", "usr-is-read-only-for-the-first-generator"),
    ("early", "usr-is-read-only-before-local-fs-pre"),
    ("local-fs", "usr-is-read-only-before-local-fs"),
    ("late", "usr-is-read-only-in-the-end"),
];

const DATABASE: &str = "/var/lib/pacman";
const TRANSIENT: &str = "/var/tmp";
const PACKAGE_CACHE: &str = "/var/cache/pacman";

/// What stays writable whatever the policy says.
const ALWAYS_WRITABLE: [&str; 6] = [
    "/etc",
    "/run",
    "/run/extensions",
    "/var/lib/systemd",
    "/var/log",
    "/",
];

/// Everything that `strict` promises of a system whose /usr is part of its root and whose initramfs has our part.
/// The case takes the steps [`crate::steps::PACMAN`] and [`crate::steps::MERGE_BY_HAND`].
pub fn strict_from_the_initrd(seen: &Observed, twin: &Observed) -> Report {
    strict(
        seen,
        twin,
        &["initrd", "generator", "early", "local-fs", "late"],
    )
}

/// The same of a system whose initramfs has nothing of ours: it keeps all but what only an initramfs can.
pub fn strict_from_the_host(seen: &Observed, twin: &Observed) -> Report {
    strict(seen, twin, &["local-fs", "late"])
}

/// The same of a system that starts by pre-init, without an initramfs.
pub fn strict_from_pre_init(seen: &Observed, twin: &Observed) -> Report {
    strict(seen, twin, &["generator", "early", "local-fs", "late"])
}

/// At these moments /usr is a read-only mount of its own.
fn strict(seen: &Observed, twin: &Observed, mounted: &[&str]) -> Report {
    let mut report = Report::default();
    for (moment, promise) in MOMENTS {
        if mounted.contains(&moment) {
            report.promise(promise, usr_is_read_only(seen, moment));
        }
    }
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
    report.promise(
        "usr-is-one-mount-with-a-peer-group-of-its-own",
        own_peer_group(seen, mounted),
    );
    report.promise(
        "usr-and-usr-local-refuse-writes",
        answers(seen, &["/usr", "/usr/local"], "EROFS"),
    );
    the_rest_stays_writable(&mut report, seen);
    below_var(&mut report, seen);
    report.promise(
        "all-of-it-is-there-before-tmpfiles",
        there_before_tmpfiles(seen),
    );
    report.promise("pacman-refuses-every-change", pacman_refuses(seen));
    report.promise("pacman-changes-no-byte", no_byte_changed(seen));
    report.promise("pacman-still-answers", pacman_answers(seen));
    report.promise("a-merge-shows-the-extension-once", merged_once(seen));
    report.promise(
        "an-unmerge-gives-the-read-only-usr-back",
        unmerged(seen, &TWICE, "EROFS", 1),
    );
    report.promise("verify-says-that-it-holds", verify_ends(seen, 0));
    report.promise("no-new-error-is-logged", no_new_error(seen, twin));
    health(&mut report, seen);
    report
}

/// The paths of the policy below /var.
fn below_var(report: &mut Report, seen: &Observed) {
    report.promise(
        "the-database-is-one-read-only-mount",
        database_is_read_only(seen),
    );
    report.promise(
        "var-tmp-is-a-tmpfs-for-everybody",
        tmpfs(seen, TRANSIENT, "1777", &["nosuid", "nodev"]),
    );
    report.promise(
        "the-package-cache-is-a-tmpfs-for-root",
        tmpfs(seen, PACKAGE_CACHE, "755", &["nosuid", "nodev", "noexec"]),
    );
}

fn usr_alone(report: &mut Report, seen: &Observed) {
    for (moment, promise) in MOMENTS {
        report.promise(promise, usr_is_read_only(seen, moment));
    }
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
}

/// What `strict` promises of /usr on any system that boots, whatever else is odd about it.
pub fn strict_usr_alone(seen: &Observed) -> Report {
    let mut report = Report::default();
    usr_alone(&mut report, seen);
    health(&mut report, seen);
    report
}

/// What strict promises about `/usr` alone, where there may be no database and no /etc. The case takes the steps
/// [`crate::steps::MERGE_BY_HAND`].
pub fn strict_about_usr(seen: &Observed, twin: &Observed) -> Report {
    let mut report = Report::default();
    usr_alone(&mut report, seen);
    report.promise(
        "usr-and-usr-local-refuse-writes",
        answers(seen, &["/usr", "/usr/local"], "EROFS"),
    );
    report.promise("a-merge-shows-the-extension-once", merged_once(seen));
    report.promise(
        "an-unmerge-gives-the-read-only-usr-back",
        unmerged(seen, &TWICE, "EROFS", 1),
    );
    report.promise("verify-says-that-it-holds", verify_ends(seen, 0));
    report.promise("no-new-error-is-logged", no_new_error(seen, twin));
    health(&mut report, seen);
    report
}

/// Everything that a system promises where the policy is off, with the product or without it. The case takes the steps
/// [`crate::steps::PACMAN`] and [`crate::steps::MERGE_BY_HAND`].
pub fn off(seen: &Observed) -> Report {
    off_at(seen, &MOMENTS.map(|(moment, _)| moment), &[])
}

/// The same of a system without an initramfs.
pub fn off_without_initramfs(seen: &Observed) -> Report {
    off_at(seen, &["generator", "early", "local-fs", "late"], &[])
}

/// The same of a system whose own fstab or command line mounts something, writable, at these paths of the policy.
pub fn off_with_mounts(seen: &Observed, mounted: &[&str]) -> Report {
    off_at(seen, &MOMENTS.map(|(moment, _)| moment), mounted)
}

fn off_at(seen: &Observed, moments: &[&str], mounted: &[&str]) -> Report {
    let mut report = Report::default();
    report.promise(
        "usr-is-writable-at-every-moment",
        usr_is_writable(seen, moments),
    );
    report.promise(
        "usr-is-always-writable-in-the-watch",
        always_writable(seen, "/usr"),
    );
    report.promise(
        "usr-and-the-database-take-writes",
        answers(
            seen,
            &["/usr", "/usr/local", DATABASE, TRANSIENT, PACKAGE_CACHE],
            "OK",
        ),
    );
    the_rest_stays_writable(&mut report, seen);
    report.promise(
        "nothing-is-mounted-at-a-path-of-the-policy",
        nothing_mounted(seen, mounted),
    );
    report.promise("no-unit-of-ours-is-loaded", no_unit(seen, mounted));
    report.promise("no-record-has-our-name", no_record(seen));
    report.promise("pacman-installs-and-removes", pacman_works(seen));
    report.promise("pacman-still-answers", pacman_answers(seen));
    report.promise("a-merge-shows-the-extension-once", merged_once(seen));
    report.promise(
        "an-unmerge-gives-the-writable-usr-back",
        unmerged(seen, &TWICE, "OK", usize::from(mounted.contains(&"/usr"))),
    );
    if seen.said("verify").is_ok() {
        report.promise("verify-has-nothing-to-say", verify_ends(seen, 0));
    }
    health(&mut report, seen);
    report
}

/// What every system promises that boots at all, whatever is writable there: a baseline for others.
pub fn healthy(seen: &Observed) -> Report {
    let mut report = Report::default();
    health(&mut report, seen);
    report
}

/// What `strict` promises of a system that merges an extension while it boots.
pub fn strict_merged_at_boot(seen: &Observed, twin: &Observed) -> Report {
    let mut report = Report::default();
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
    report.promise("the-merge-comes-after-the-locks", merged_after_locks(seen));
    report.promise(
        "the-merged-usr-is-there-once-and-refuses-writes",
        merged_at(seen, "late"),
    );
    report.promise(
        "the-database-is-one-read-only-mount",
        database_is_read_only(seen),
    );
    report.promise(
        "an-unmerge-gives-the-read-only-usr-back",
        unmerged(seen, &TWICE[..1], "EROFS", 1),
    );
    report.promise("verify-says-that-it-holds", verify_ends(seen, 0));
    report.promise("no-new-error-is-logged", no_new_error(seen, twin));
    health(&mut report, seen);
    report
}

/// What `strict` promises of a system whose initramfs has merged an extension already.
pub fn strict_merged_in_the_initramfs(seen: &Observed, twin: &Observed) -> Report {
    let mut report = Report::default();
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
    for (moment, promise) in [
        (
            "generator",
            "the-merged-usr-is-there-once-for-the-first-generator",
        ),
        ("late", "the-merged-usr-is-there-once-and-refuses-writes"),
    ] {
        report.promise(promise, merged_at(seen, moment));
    }
    report.promise(
        "the-database-is-one-read-only-mount",
        database_is_read_only(seen),
    );
    report.promise(
        "an-unmerge-gives-the-read-only-usr-back",
        unmerged(seen, &TWICE[..1], "EROFS", 1),
    );
    report.promise(
        "the-follower-knew-of-the-merge-and-opens-the-database",
        ends_well(seen, &format!("step-{}", OPENS.name)),
    );
    report.promise("verify-says-that-it-holds", verify_ends(seen, 0));
    report.promise("no-new-error-is-logged", no_new_error(seen, twin));
    health(&mut report, seen);
    report
}

/// What `strict` promises of a system that goes on: the case takes the steps [`crate::steps::STIR`].
pub fn strict_when_stirred(seen: &Observed) -> Report {
    let mut report = Report::default();
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
    report.promise("no-mount-is-moved-or-doubled", no_mount_moved(seen));
    report.promise("no-unit-is-lost", no_unit_lost(seen));
    health(&mut report, seen);
    report
}

/// What `strict` promises of a system that pre-init starts and OpenRC goes on with.
pub fn strict_by_openrc(seen: &Observed) -> Report {
    let mut report = Report::default();
    report.promise(
        "usr-is-read-only-for-the-first-service",
        usr_is_read_only(seen, "generator"),
    );
    report.promise(
        "usr-is-never-writable-in-the-watch",
        never_writable(seen, "/usr"),
    );
    report.promise(
        "usr-is-read-only-in-the-end",
        usr_is_read_only(seen, "late"),
    );
    report.promise("usr-refuses-writes", answers(seen, &["/usr"], "EROFS"));
    below_var(&mut report, seen);
    report.promise(
        "etc-run-and-log-stay-writable",
        answers(seen, &["/etc", "/run", "/var/log", "/"], "OK"),
    );
    report.promise("verify-says-that-it-holds", verify_ends(seen, 0));
    report.promise("the-machine-is-switched-off", switched_off(seen));
    report
}

/// What holds on any system that boots.
fn health(report: &mut Report, seen: &Observed) {
    report.promise("the-watch-saw-the-whole-boot", watch_is_whole(seen));
    report.promise("no-unit-has-failed", no_unit_failed(seen));
    report.promise("the-system-is-running", running(seen));
    report.promise("the-shutdown-is-clean", clean_shutdown(seen));
}

fn the_rest_stays_writable(report: &mut Report, seen: &Observed) {
    report.promise(
        "etc-run-state-and-log-stay-writable",
        answers(seen, &ALWAYS_WRITABLE, "OK"),
    );
    let root = seen.moment("late").and_then(|late| {
        let root = late.mounts.only("/")?;
        must(!root.is_read_only(), || format!("/ is {}", show(root)))
    });
    report.promise("the-root-stays-writable", root);
}

/// `Ok` if something is so, and else the reason.
fn must(so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(why()) }
}

fn show(mount: &Mount) -> String {
    let (options, super_options) = (mount.options.join(","), mount.super_options.join(","));
    format!(
        "{} {} {} ({options}; {super_options})",
        mount.id, mount.fs_type, mount.source
    )
}

fn usr_is_read_only(seen: &Observed, moment: &str) -> Result<(), String> {
    let then = seen.moment(moment)?;
    must(then.append == "EROFS", || {
        format!("opening a file in /usr to append: {}", then.append)
    })?;
    let point = match moment {
        // Where a busybox initramfs mounts the root; one with systemd has it in /sysroot.
        "initrd" if !then.mounts.at("/new_root").is_empty() => "/new_root/usr",
        "initrd" => "/sysroot/usr",
        _ => "/usr",
    };
    let mount = then.mounts.only(point)?;
    // A read-only file system that could be written may be opened later; one that could not needs no flag.
    let is_by_nature = ["erofs", "squashfs"].contains(&mount.fs_type.as_str());
    must(mount.has("ro") || is_by_nature, || {
        format!("{point} is {}", show(mount))
    })
}

fn usr_is_writable(seen: &Observed, moments: &[&str]) -> Result<(), String> {
    for moment in moments {
        let append = &seen.moment(moment)?.append;
        must(append == "OK", || {
            format!("opening a file in /usr to append, {moment}: {append}")
        })?;
    }
    Ok(())
}

fn never_writable(seen: &Observed, path: &str) -> Result<(), String> {
    all_changes(seen, path, false)
}

fn always_writable(seen: &Observed, path: &str) -> Result<(), String> {
    all_changes(seen, path, true)
}

/// Everything that the watch saw before the first step was as wanted; a merge is a step, and read-only by nature.
fn all_changes(seen: &Observed, path: &str, writable: bool) -> Result<(), String> {
    let end = seen.moment("late")?.time;
    let mut changes = seen
        .watch
        .of(path)
        .filter(|change| change.at <= end || !writable)
        .peekable();
    must(changes.peek().is_some(), || {
        format!("the watch has no line about {path}")
    })?;
    changes.try_for_each(|change| {
        must(change.writable == Some(writable), || {
            change.line.replace('\t', " ")
        })
    })
}

/// Whether the watch began before local-fs-pre.target and was awake until the last step.
fn watch_is_whole(seen: &Observed) -> Result<(), String> {
    let (generator, early) = (seen.moment("generator")?.time, seen.moment("early")?.time);
    let first = seen
        .watch
        .of("/usr")
        .next()
        .ok_or("the watch has no line about /usr")?
        .at;
    must((generator..=early).contains(&first), || {
        format!(
            "the watch began at {first} µs, not between generator ({generator}) and early ({early})"
        )
    })?;
    let end = seen.last_step()?;
    // A heartbeat is due every second; a machine that is busy may be late.
    must(seen.watch.last_awake() + 5_000_000 > end, || {
        format!(
            "the watch was last awake at {} µs, the last step was at {end}",
            seen.watch.last_awake()
        )
    })
}

/// At these moments `/usr` is one mount, shared, and not in the peer group of the root.
pub fn own_peer_group(seen: &Observed, moments: &[&str]) -> Result<(), String> {
    // In the initramfs / is another root.
    for moment in moments.iter().filter(|moment| **moment != "initrd") {
        let mounts = &seen.moment(moment)?.mounts;
        let (root, usr) = (mounts.only("/")?, mounts.only("/usr")?);
        // Over a /usr that is not shared a merge says that all is well, and the system sees nothing of it; in the peer
        // group of / the merged tree is there twice, and one of the two stays.
        must(usr.peer_group.is_some(), || {
            format!("{moment}: /usr is not shared")
        })?;
        must(usr.peer_group != root.peer_group, || {
            format!("{moment}: /usr is in the peer group of /")
        })?;
    }
    Ok(())
}

/// Writes in these directories were answered so.
pub fn answers(seen: &Observed, dirs: &[&str], wanted: &str) -> Result<(), String> {
    for dir in dirs {
        let answer = seen.write(dir)?;
        must(answer == wanted, || format!("a write to {dir}: {answer}"))?;
    }
    Ok(())
}

fn database_is_read_only(seen: &Observed) -> Result<(), String> {
    let late = seen.moment("late")?;
    // Over one of the layout's own, which keeps its flags.
    let (closed, own): (Vec<&Mount>, Vec<_>) = late
        .mounts
        .at(DATABASE)
        .into_iter()
        .partition(|mount| mount.has("ro"));
    must(closed.len() == 1 && own.len() <= 1, || {
        format!("{DATABASE}: {closed:?} over {own:?}")
    })?;
    answers(seen, &[DATABASE], "EROFS")
}

/// A tmpfs of a quarter of the memory, mounted once.
fn tmpfs(seen: &Observed, path: &str, mode: &str, flags: &[&str]) -> Result<(), String> {
    let late = seen.moment("late")?;
    let mount = late.mounts.only(path)?;
    must(mount.fs_type == "tmpfs" && !mount.is_read_only(), || {
        format!("{path} is {}", show(mount))
    })?;
    for flag in ["nosuid", "nodev", "noexec"] {
        must(mount.has(flag) == flags.contains(&flag), || {
            format!("{path} is {}", show(mount))
        })?;
    }
    let size = mount
        .value("size")
        .and_then(|size| size.strip_suffix('k'))
        .ok_or("no size= in KiB")?;
    let (size, quarter) = (
        size.parse::<u64>()
            .map_err(|_| format!("not a size: {size}"))?,
        seen.memory()? / 4,
    );
    // The kernel counts in pages, and has a few more of them than /proc/meminfo tells.
    must(size.abs_diff(quarter) <= quarter / 100, || {
        format!("{path} has {size} KiB, a quarter is {quarter} KiB")
    })?;
    let modes = &seen.said("modes")?.stdout;
    let wanted = format!("{path} {mode} 0 0");
    must(modes.lines().any(|line| line == wanted), || {
        format!("not \"{wanted}\" but {modes}")
    })?;
    answers(seen, &[path], "OK")
}

/// Everything was mounted, and stayed as it was, when systemd-tmpfiles-setup began.
fn there_before_tmpfiles(seen: &Observed) -> Result<(), String> {
    let began = seen.time(
        "systemd-tmpfiles-setup.service",
        "InactiveExitTimestampMonotonic",
    )?;
    for path in [DATABASE, TRANSIENT, PACKAGE_CACHE] {
        let mounted = seen
            .watch
            .of(path)
            .find(|change| change.mount_point == path)
            .ok_or_else(|| format!("the watch saw no mount at {path}"))?;
        must(mounted.at < began, || {
            format!(
                "{path}: mounted at {} µs, tmpfiles began at {began}",
                mounted.at
            )
        })?;
    }
    Ok(())
}

fn pacman_refuses(seen: &Observed) -> Result<(), String> {
    for name in [
        "step-pacman-install",
        "step-pacman-remove",
        "step-pacman-synchronise",
    ] {
        let said = seen.said(name)?;
        must(said.code == 1, || {
            format!(
                "{name}: exit code {}: {}{}",
                said.code, said.stdout, said.stderr
            )
        })?;
        must(said.stderr.contains("error: "), || {
            format!("{name}: no error: {}", said.stderr)
        })?;
    }
    Ok(())
}

fn pacman_works(seen: &Observed) -> Result<(), String> {
    for name in [
        "step-pacman-install",
        "step-pacman-remove",
        "step-pacman-synchronise",
    ] {
        let said = seen.said(name)?;
        must(said.code == 0, || {
            format!("{name}: exit code {}: {}", said.code, said.stderr)
        })?;
    }
    must(digests(seen)?.0 != digests(seen)?.1, || {
        "the database is as it was before".to_owned()
    })
}

fn no_byte_changed(seen: &Observed) -> Result<(), String> {
    let (before, after) = digests(seen)?;
    must(before == after, || {
        format!("before:\n{before}after:\n{after}")
    })
}

/// What the database and the cache held before and after; four lines each, so that an empty answer is none.
fn digests(seen: &Observed) -> Answer<(&str, &str)> {
    let of = |name: &str| {
        let said = seen.said(name)?;
        must(said.code == 0 && said.stdout.lines().count() == 4, || {
            format!(
                "{name}: exit code {}: {}{}",
                said.code, said.stdout, said.stderr
            )
        })?;
        Ok::<_, String>(said.stdout.as_str())
    };
    Ok((of("step-digest-before")?, of("step-digest-after")?))
}

fn pacman_answers(seen: &Observed) -> Result<(), String> {
    let said = seen.said("step-pacman-query")?;
    must(said.code == 0 && said.stdout.contains("oldtoy 1-1"), || {
        format!(
            "pacman -Q: exit code {}: {}{}",
            said.code, said.stdout, said.stderr
        )
    })
}

/// Those of systemd-sysext: a volatile root is an overlay as well.
fn overlays_at_usr(mounts: &Table) -> usize {
    mounts
        .below("/usr")
        .filter(|mount| mount.fs_type == "overlay" && mount.source == "sysext")
        .count()
}

fn merged_once(seen: &Observed) -> Result<(), String> {
    for name in ["step-merge", "step-merge-again"] {
        let said = seen.said(name)?;
        must(said.code == 0 && said.stdout.contains(HELLO), || {
            format!(
                "{name}: exit code {}: {}{}",
                said.code, said.stdout, said.stderr
            )
        })?;
        merged_at(seen, name)?;
    }
    Ok(())
}

/// At this moment one overlay is over /usr, and a writer is refused.
fn merged_at(seen: &Observed, moment: &str) -> Result<(), String> {
    let Moment { append, mounts, .. } = seen.moment(moment)?;
    let count = overlays_at_usr(mounts);
    must(count == 1, || {
        format!(
            "{moment}: {count} overlays at /usr: {:?}",
            mounts.at("/usr")
        )
    })?;
    must(append == "EROFS", || {
        format!("{moment}: opening a file in the merged /usr to append: {append}")
    })
}

/// Everything of the policy was mounted when the extension was merged.
fn merged_after_locks(seen: &Observed) -> Result<(), String> {
    let first = |path: &str, fs_type: Option<&str>| {
        seen.watch
            .of(path)
            .find(|change| {
                change.mount_point == path
                    && fs_type.is_none_or(|fs_type| change.fs_type == fs_type)
            })
            .map(|change| change.at)
            .ok_or_else(|| format!("the watch saw no mount at {path} of type {fs_type:?}"))
    };
    let merged = first("/usr", Some("overlay"))?;
    for path in ["/usr", DATABASE, TRANSIENT, PACKAGE_CACHE] {
        let mounted = first(path, None)?;
        must(mounted < merged, || {
            format!("{path}: mounted at {mounted} µs, merged at {merged}")
        })?;
    }
    Ok(())
}

/// The steps of [`crate::steps::STIR`], as they come back.
const STIRRED: [&str; 5] = [
    "step-untouched",
    "step-daemon-reload",
    "step-daemon-reexec",
    "step-isolate-and-back",
    "step-remount-fs-again",
];

fn no_mount_moved(seen: &Observed) -> Result<(), String> {
    let before = &seen.moment("late")?.mounts;
    for name in STIRRED {
        let Moment { append, mounts, .. } = seen.moment(name)?;
        must(append == "EROFS", || {
            format!("{name}: opening a file in /usr to append: {append}")
        })?;
        for path in ["/usr", DATABASE, TRANSIENT, PACKAGE_CACHE] {
            let (was, is) = (before.only(path)?, mounts.only(path)?);
            must(was == is, || {
                format!("{name}: {path} was {}, is {}", show(was), show(is))
            })?;
        }
    }
    Ok(())
}

fn no_unit_lost(seen: &Observed) -> Result<(), String> {
    let before = &seen.said(STIRRED[0])?.stdout;
    must(
        before.contains("usr-policy-apply.service loaded active"),
        || format!("before anything was done: {before}"),
    )?;
    for name in STIRRED {
        let said = seen.said(name)?;
        must(said.code == 0 && said.stdout == *before, || {
            format!(
                "{name}: exit code {}: {}{}before:\n{before}",
                said.code, said.stdout, said.stderr
            )
        })?;
    }
    Ok(())
}

fn ends_well(seen: &Observed, name: &str) -> Result<(), String> {
    let said = seen.said(name)?;
    must(said.code == 0, || {
        format!(
            "{name}: exit code {}: {}{}",
            said.code, said.stdout, said.stderr
        )
    })
}

/// The unmerges of [`crate::steps::MERGE_BY_HAND`], as they come back.
const TWICE: [&str; 2] = ["step-unmerge", "step-unmerge-again"];

/// After an unmerge /usr is what it was: as many mounts as before, and the same answer to a writer.
fn unmerged(
    seen: &Observed,
    steps: &[&str],
    answer: &str,
    mounts_at_usr: usize,
) -> Result<(), String> {
    for name in steps {
        ends_well(seen, name)?;
        let Moment { append, mounts, .. } = seen.moment(name)?;
        must(append == answer, || {
            format!("{name}: opening a file in /usr to append: {append}")
        })?;
        let at_usr = mounts.at("/usr");
        must(
            at_usr.len() == mounts_at_usr && overlays_at_usr(mounts) == 0,
            || format!("{name}: mounts at /usr: {at_usr:?}"),
        )?;
    }
    Ok(())
}

/// How `usr-policy verify` ended, which was asked before any step.
pub fn verify_ends(seen: &Observed, code: i32) -> Result<(), String> {
    let said = seen.said("verify")?;
    must(said.code == code, || {
        format!(
            "usr-policy verify: exit code {}: {}{}",
            said.code, said.stdout, said.stderr
        )
    })
}

/// Nothing is logged as an error that the twin does not log as well.
pub fn no_new_error(seen: &Observed, twin: &Observed) -> Result<(), String> {
    must(!twin.journal.is_empty(), || {
        "the journal of the twin is empty".to_owned()
    })?;
    must(!seen.journal.is_empty(), || {
        "the journal is empty".to_owned()
    })?;
    let errors: Vec<String> = journal::new_errors(&seen.journal, &twin.journal)
        .iter()
        .map(|record| record.line())
        .collect();
    must(errors.is_empty(), || errors.join("\n"))
}

fn nothing_mounted(seen: &Observed, layout: &[&str]) -> Result<(), String> {
    for moment in ["generator", "early", "local-fs", "late"] {
        let mounts = &seen.moment(moment)?.mounts;
        for path in ["/usr", DATABASE, TRANSIENT, PACKAGE_CACHE] {
            // Not all of the layout is mounted from the start.
            let expected = usize::from(layout.contains(&path));
            must(mounts.at(path).len() <= expected, || {
                format!("{moment}: {:?}", mounts.at(path))
            })?;
        }
    }
    Ok(())
}

/// No unit of ours is loaded, no other unit has a drop-in of ours, and generators wrote none.
fn no_unit(seen: &Observed, layout: &[&str]) -> Result<(), String> {
    let units = &seen.said("units")?.stdout;
    must(units.trim().is_empty(), || format!("loaded: {units}"))?;
    let generated = seen.said("generated")?;
    must(generated.code == 0, || {
        format!("generators' directories: {}", generated.stderr)
    })?;
    let ours = [
        ("usr-policy", ""),
        ("usr.mount", "/usr"),
        ("var-lib-pacman", DATABASE),
        ("var-tmp", TRANSIENT),
        ("var-cache-pacman", PACKAGE_CACHE),
    ];
    let ours = ours.map(|(name, path)| (name, layout.contains(&path)));
    let mut lines = generated.stdout.lines().filter(|line| {
        ours.iter()
            .any(|(name, is_theirs)| !is_theirs && line.contains(name))
    });
    must(lines.next().is_none(), || {
        format!("generated: {}", generated.stdout)
    })?;
    let cat = &seen.said("cat")?.stdout;
    must(cat.contains("systemd-sysext.service"), || {
        format!("systemctl cat says nothing: {cat}")
    })?;
    must(!cat.contains("usr-policy"), || format!("a drop-in: {cat}"))
}

/// Nothing is logged under our name, but for what PID 1 of the initramfs says about the two services there.
fn no_record(seen: &Observed) -> Result<(), String> {
    let real_root = seen.moment("generator")?.time;
    let records: Vec<String> = seen
        .journal
        .iter()
        .filter(|record| record.mentions("usr-policy"))
        .filter(|record| {
            let of_the_initrd = record.monotonic < real_root && record.field("_PID") == "1";
            let units = ["usr-policy-early.service", "usr-policy-late.service"];
            !(of_the_initrd && units.iter().any(|unit| record.mentions(unit)))
        })
        .map(journal::Record::line)
        .collect();
    must(!seen.journal.is_empty(), || {
        "the journal is empty".to_owned()
    })?;
    must(records.is_empty(), || records.join("\n"))
}

fn no_unit_failed(seen: &Observed) -> Result<(), String> {
    let failed = seen.said("failed")?;
    must(failed.code == 0 && failed.stdout.trim().is_empty(), || {
        format!("{}{}", failed.stdout, failed.stderr)
    })
}

fn running(seen: &Observed) -> Result<(), String> {
    let state = seen.said("state")?;
    must(state.stdout.trim() == "running", || {
        format!("{}{}", state.stdout, state.stderr)
    })
}

/// The last systemd that unmounts a bind after the file system below it, and says so at every shutdown.
const COMPLAINS_ABOUT_BINDS: u32 = 253;

fn switched_off(seen: &Observed) -> Result<(), String> {
    let shutdown = seen.shutdown()?;
    // What a machine says, and what user-mode-linux does.
    let ends = ["reboot: Power down", "reboot: System halted"];
    must(ends.iter().any(|end| shutdown.contains(end)), || {
        "the machine was not switched off".to_owned()
    })
}

fn clean_shutdown(seen: &Observed) -> Result<(), String> {
    switched_off(seen)?;
    let shutdown = seen.shutdown()?;
    let allowed: &[&str] = if seen.systemd()? <= COMPLAINS_ABOUT_BINDS {
        &[
            "Failed to unmount /usr: Device or resource busy",
            "Failed to finalize file systems, ignoring",
        ]
    } else {
        &[]
    };
    let failures: Vec<&str> = shutdown
        .lines()
        .filter(|line| line.to_lowercase().contains("fail"))
        .filter(|line| !allowed.iter().any(|known| line.contains(known)))
        .collect();
    must(failures.is_empty(), || failures.join("\n"))
}
