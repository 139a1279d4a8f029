//! What undoes a read-only /usr elsewhere: after each, the state holds, or verify exits 1 and names the layer.

use usr_policy_tests::machine::{Format, Layout, Result, Suite};

use crate::case::{Case, Step, dracut, installed};
use crate::checks;
use crate::layouts::{OWN_OFF, USR, USR_LINE, on_disks};
use crate::observed::{Answer, Observed};
use crate::verdict::{CLEAN, FSTAB_OPENS_USR, warned};

/// What is to be seen after an undoer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Everything that is promised, and verify says so.
    Holds,
    /// /usr is read-only, but something else is gone: verify exits 1 and says this.
    Names(&'static str),
    /// /usr is writable: verify exits 1 and says so.
    Opened,
    /// Nothing is merged any more, and our hook stops what would change /usr: the database is open, with a warning.
    Guarded,
}

use After::{Guarded, Holds, Names, Opened};

/// An undoer: its step, and what comes of it.
type Undoer = (Step, After);

const fn undoer(name: &'static str, script: &'static str, after: After) -> Undoer {
    (Step { name, script }, after)
}

const SYNC: &str = "/usr/lib/usr-policy/usr-policy-generator sync";

/// What holds whatever is done, in any layout.
const HELD: [Undoer; 14] = [
    undoer(
        "undo-remount-fs",
        "systemctl restart systemd-remount-fs.service",
        Holds,
    ),
    undoer("undo-daemon-reload", "systemctl daemon-reload", Holds),
    undoer("undo-daemon-reexec", "systemctl daemon-reexec", Holds),
    undoer(
        "undo-isolate-rescue",
        "systemctl isolate rescue.target",
        Holds,
    ),
    undoer(
        "undo-isolate-back",
        "systemctl isolate multi-user.target",
        Holds,
    ),
    undoer(
        "undo-second-run",
        "program=/usr/lib/usr-policy/usr-policy-generator
systemctl start usr-policy-apply.service usr-policy-lock.service usr.mount var-lib-pacman.mount &&
	$program apply --root / --stage host && $program sync && $program sync",
        Holds,
    ),
    // There is a process in every /usr: the unmount is refused.
    undoer("undo-stop-usr", "! systemctl stop usr.mount", Holds),
    undoer(
        "undo-stop-var-tmp",
        "systemctl stop var-tmp.mount",
        Names("/var/tmp"),
    ),
    undoer("undo-start-var-tmp", "systemctl start var-tmp.mount", Holds),
    undoer("undo-merge", MERGE, Holds),
    undoer("undo-refresh", REFRESH, Holds),
    undoer("undo-unmerge", UNMERGE, Guarded),
    undoer("undo-merge-again", MERGE, Holds),
    undoer("undo-unmerge-again", UNMERGE, Guarded),
];

const MERGE: &str =
    "ln -sfn /opt/extensions/hello /run/extensions/hello && systemd-sysext merge && hello-ext";

/// And as long as it takes until that is known to be no refresh.
const UNMERGE: &str = "systemd-sysext unmerge && sleep 6";

/// Another image, or it would be nothing to do.
const REFRESH: &str = "cp -a /opt/extensions/hello /run/extensions/other &&
cd /run/extensions/other/usr/lib/extension-release.d &&
mv extension-release.hello extension-release.other && systemd-sysext refresh && hello-ext";

/// The same over the socket that desktops use.
const VARLINK: [Undoer; 4] = [
    undoer("undo-merge-by-varlink", VARLINK_MERGE, Holds),
    undoer("undo-unmerge-by-varlink", VARLINK_UNMERGE, Guarded),
    undoer("undo-merge-by-varlink-again", VARLINK_MERGE, Holds),
    undoer("undo-unmerge-by-varlink-again", VARLINK_UNMERGE, Guarded),
];

const VARLINK_MERGE: &str = "systemctl start systemd-sysext.socket &&
varlinkctl call /run/systemd/io.systemd.sysext io.systemd.sysext.Merge '{}' && hello-ext";

const VARLINK_UNMERGE: &str =
    "varlinkctl call /run/systemd/io.systemd.sysext io.systemd.sysext.Unmerge '{}' &&
! test -e /usr/bin/hello-ext && sleep 6";

/// Opened by hand, and what closes it again.
const OPENED: [Undoer; 4] = [
    undoer("undo-remount-rw", "mount -o remount,rw /usr", Opened),
    undoer("undo-closed-by-sync", SYNC, Holds),
    // A package that is upgraded needs a writable /usr: this is what its maintainer's script and hook amount to.
    undoer(
        "undo-upgrade",
        "cd /usr/lib/usr-policy && mount -o remount,bind,rw /usr &&
cp -a usr-policy-generator new && mv new usr-policy-generator &&
cp -a /usr/bin/usr-policy /usr/bin/new && mv /usr/bin/new /usr/bin/usr-policy &&
touch ../systemd/system/usr-policy-apply.service && systemctl daemon-reload",
        Opened,
    ),
    undoer("undo-upgraded-and-closed-by-sync", SYNC, Holds),
];

/// A remount that takes fstab's options.
const REMOUNT_BY_FSTAB: [Undoer; 2] = [
    undoer(
        "undo-fstab",
        "sed -i 's|/usr\\text4\\tro|/usr\\text4\\trw|' /etc/fstab && mount -o remount /usr",
        Opened,
    ),
    undoer("undo-fstab-closed-by-sync", SYNC, Holds),
];

/// Where fstab has no such line the options are those that the mount has, and they reach the file system: the root
/// with it.
const REMOUNT_WITHOUT_FSTAB: [Undoer; 1] = [undoer(
    "undo-remount",
    "mount -o remount /usr; mount -o remount,rw /",
    Holds,
)];

/// All of user space starts again. The script that runs these steps is stopped with it, and goes on after it.
const SOFT_REBOOT: Undoer = undoer("undo-soft-reboot", "systemctl soft-reboot; sleep 90", Holds);

/// The same with extensions that were merged while /usr was open: nothing could close what lies beneath.
const OVER_AN_OPEN_USR: Undoer = undoer(
    "undo-soft-reboot-over-an-open-usr",
    "usr-policy unlock && ln -sfn /opt/extensions/hello /run/extensions/hello && systemd-sysext merge &&
systemctl soft-reboot; sleep 90",
    Holds,
);

/// The same into a root that no initramfs has seen.
const NEXT_ROOT: Undoer = undoer(
    "undo-soft-reboot-into-a-new-root",
    "mkdir -p /run/nextroot && mount --bind / /run/nextroot &&
! test -e /dev/disk/by-label/usr || mount /dev/disk/by-label/usr /run/nextroot/usr
systemctl soft-reboot; sleep 90",
    Holds,
);

fn steps(layout: &[Undoer]) -> Vec<Undoer> {
    [
        &HELD[..],
        &VARLINK,
        &[SOFT_REBOOT, OVER_AN_OPEN_USR],
        layout,
        &OPENED,
        &[NEXT_ROOT],
    ]
    .concat()
}

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let in_root = dracut("trixie-dracut", Suite::Trixie, &installed(&[]))?;
    let own = on_disks(
        "trixie-dracut-own",
        Suite::Trixie,
        Layout::of(Format::Ext4, [USR]),
        "LABEL=root\t/\text4\trw,relatime\t0 1\n",
        USR_LINE,
    )?;
    let plain = |undoers: Vec<Undoer>| undoers.into_iter().map(|(step, _)| step).collect();
    Ok(vec![
        Case {
            name: "trixie-dracut-strict-holds-after-every-undoer-or-verify-names-it",
            image: in_root,
            words: "usrpolicy=strict",
            steps: plain(steps(&REMOUNT_WITHOUT_FSTAB)),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| judged(seen, &steps(&REMOUNT_WITHOUT_FSTAB)),
        },
        Case {
            name: "trixie-dracut-usr-on-its-own-partition-holds-after-every-undoer-or-verify-names-it",
            image: own,
            words: "usrpolicy=strict",
            steps: plain(steps(&REMOUNT_BY_FSTAB)),
            twin: Some(OWN_OFF),
            verdict: warned(&[FSTAB_OPENS_USR]),
            judge: |seen, _| judged(seen, &steps(&REMOUNT_BY_FSTAB)),
        },
    ])
}

fn judged(seen: &Observed, undoers: &[Undoer]) -> Vec<String> {
    let mut complaints = checks::healthy(seen).broken();
    for (step, after) in undoers {
        complaints.extend(one(seen, step.name, *after).err());
    }
    complaints.extend(no_instant(seen, undoers).err());
    complaints
}

/// What came of one undoer; the answers of verify and of a writer must go together.
fn one(seen: &Observed, name: &str, after: After) -> Answer<()> {
    let step = format!("step-{name}");
    let did = seen.said(&step)?;
    let fail = |what: String| Err(format!("{name}: {what}"));
    if did.code != 0 {
        return fail(format!(
            "exit code {}: {}{}",
            did.code, did.stdout, did.stderr
        ));
    }
    let then = seen.moment(&step)?;
    let verify = seen.said(&format!("{step}-verify"))?;
    let writes = &seen.said(&format!("{step}-writes"))?.stdout;
    let (usr, database, code, text) = match after {
        Holds => ("EROFS", "EROFS", 0, ""),
        Names(text) => ("EROFS", "EROFS", 1, text),
        Opened => ("OK", "EROFS", 1, "writable"),
        Guarded => ("EROFS", "OK", 0, "only the hook of usr-policy"),
    };
    if then.append != usr {
        return fail(format!("opening a file in /usr to append: {}", then.append));
    }
    for (path, answer) in [("/usr", usr), ("/var/lib/pacman", database)] {
        if !writes
            .lines()
            .any(|line| line == format!("{path}\t{answer}"))
        {
            return fail(format!("writes: {writes}"));
        }
    }
    if verify.code != code || !verify.stdout.contains(text) {
        return fail(format!(
            "verify: exit code {}: {}",
            verify.code, verify.stdout
        ));
    }
    let overlays = then
        .mounts
        .at("/usr")
        .iter()
        .filter(|mount| mount.fs_type == "overlay")
        .count();
    let bases = then.mounts.at("/usr").len() - overlays;
    let merged = name.contains("merge") && !name.contains("unmerge") || name == "undo-refresh";
    if (bases, overlays) != (1, usize::from(merged)) {
        return fail(format!("mounts at /usr: {:?}", then.mounts.at("/usr")));
    }
    let count = then.mounts.at("/var/lib/pacman").len();
    if count != usize::from(database == "EROFS") {
        return fail(format!("{count} mounts at the database"));
    }
    Ok(())
}

/// No instant was writable but from an undoer that opens to the end of the one that closes.
fn no_instant(seen: &Observed, undoers: &[Undoer]) -> Answer<()> {
    let time = |name: &str| seen.moment(&format!("step-{name}")).map(|then| then.time);
    let mut open = Vec::new();
    for (index, (step, after)) in undoers.iter().enumerate() {
        let before = match index {
            0 => seen.moment("late")?.time,
            _ => time(undoers[index - 1].0.name)?,
        };
        let is_open = *after == Opened || index > 0 && undoers[index - 1].1 == Opened;
        // No initramfs acts on a root that is entered like this: it is closed by the host stage.
        if is_open || [NEXT_ROOT.0, OVER_AN_OPEN_USR.0].contains(step) {
            open.push(before..time(step.name)?);
        }
    }
    for change in seen.watch.of("/usr") {
        let allowed = open.iter().any(|span| span.contains(&change.at));
        if change.writable != Some(false) && !allowed {
            return Err(format!("writable: {}", change.line.replace('\t', " ")));
        }
    }
    Ok(())
}
