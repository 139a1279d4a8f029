//! The package database through a day: merged and unmerged by every way there is, unlocked, isolated, locked again, and a
//! merge while pacman is at work.

use usr_policy_tests::machine::{Format, Layout, Result, Suite};

use crate::case::{Case, Step, dracut, installed};
use crate::checks;
use crate::layouts::{ROOT_LINE, STRICT, USR, USR_LINE, on_disks};
use crate::observed::{Answer, Observed};
use crate::verdict::{CLEAN, FSTAB_OPENS_USR, warned};

/// A step, and the lines that it says among others.
#[derive(Clone, Copy)]
struct Act {
    step: Step,
    says: &'static [&'static str],
}

macro_rules! act {
    ($name:literal, $script:literal, $says:expr) => {
        Act {
            step: Step {
                name: $name,
                script: concat!("set -e\n. input/lock\n", $script),
            },
            says: $says,
        }
    };
}

const UNLOCK: Act = act!(
    "lock-unlock",
    "sandbox before
sandbox strict --property=ProtectSystem=full
ask_sandbox before
usr-policy unlock
usr-policy status
findmnt --noheadings --output FSTYPE /var/cache/pacman || echo no tmpfs over the cache
sandbox during
state unlocked
ask_sandbox before && ask_sandbox strict && ask_sandbox during
pacman -S --noconfirm toy && pacman -R --noconfirm oldtoy
test -e /usr/bin/toy && ! test -e /usr/bin/oldtoy && echo installed and removed",
    &[
        "before: /usr refuses writes",
        "no tmpfs over the cache",
        "unlocked: /usr takes writes",
        "unlocked: /var/lib/pacman takes writes",
        "before: /var/lib/pacman takes writes",
        "strict: /var/lib/pacman takes writes",
        "during: /usr takes writes",
        "installed and removed",
    ]
);

/// Everything but what only some systemd can.
const DAY: &[Act] = &[
    act!(
        "lock-from-boot",
        "state boot
pacman -Q oldtoy
! pacman -R --noconfirm oldtoy && ! pacman -S --noconfirm toy && ! pacman -Syy && echo refused",
        &[
            "boot: /usr refuses writes",
            "boot: /var/lib/pacman refuses writes",
            "oldtoy 1-1",
            "refused"
        ]
    ),
    act!(
        "lock-merge-by-hand",
        "merge
state merged
code=0
usr-policy unlock || code=$?
test $code -eq 4
systemd-sysext unmerge
becomes '/var/lib/pacman takes writes'
state unmerged",
        &[
            "merged: /usr refuses writes",
            "merged: /var/lib/pacman refuses writes",
            "unmerged: /usr refuses writes",
            "unmerged: /var/lib/pacman takes writes",
        ]
    ),
    act!(
        "lock-guarded",
        "usr-policy verify
pacman -Sy
! pacman -R --noconfirm oldtoy 2>&1
pacman -Q oldtoy
test -e /usr/bin/oldtoy && echo still there",
        &["oldtoy 1-1", "still there"]
    ),
    act!(
        "lock-merge-by-the-service",
        "systemctl start systemd-sysext.service
state started
systemctl stop systemd-sysext.service
becomes '/var/lib/pacman takes writes'
# Its own units tell it from the bind that is gone.
merge
becomes '/var/lib/pacman refuses writes'
# A refresh is an unmerge and a merge.
systemd-sysext refresh
sleep 3
state refreshed
systemd-sysext unmerge",
        &[
            "started: /usr refuses writes",
            "started: /var/lib/pacman refuses writes",
            "became: /var/lib/pacman refuses writes",
            "refreshed: /var/lib/pacman refuses writes",
        ]
    ),
    UNLOCK,
    act!(
        "lock-lock",
        "cd /var/lib/pacman
usr-policy lock
state locked
cd /run/witness
ask_sandbox before && ask_sandbox strict && ask_sandbox during
findmnt --noheadings --output FSTYPE /var/cache/pacman
usr-policy verify",
        &[
            "locked: /usr refuses writes",
            "locked: /var/lib/pacman refuses writes",
            "before: /usr refuses writes",
            "before: /var/lib/pacman refuses writes",
            "strict: /var/lib/pacman refuses writes",
            "during: /usr refuses writes",
            "during: /var/lib/pacman refuses writes",
            "tmpfs",
        ]
    ),
    act!(
        "lock-isolate",
        "usr-policy unlock
systemctl isolate rescue.target && systemctl isolate multi-user.target
systemctl start local-fs.target && systemctl daemon-reload
state isolated
findmnt --noheadings --output FSTYPE /var/cache/pacman || echo no tmpfs over the cache
usr-policy lock
findmnt --noheadings --output FSTYPE /var/cache/pacman
systemctl isolate rescue.target && systemctl isolate multi-user.target
state locked",
        &[
            "isolated: /usr takes writes",
            "isolated: /var/lib/pacman takes writes",
            "no tmpfs over the cache",
            "tmpfs",
            "locked: /usr refuses writes",
            "locked: /var/lib/pacman refuses writes",
        ]
    ),
    act!(
        "lock-unlock-for-a-time",
        "usr-policy unlock --for 3s
state unlocked
becomes '/usr refuses writes'
state over",
        &[
            "unlocked: /usr takes writes",
            "unlocked: /var/lib/pacman takes writes",
            "over: /usr refuses writes",
            // As before the unlock: nothing is merged any more, and there is the guard.
            "over: /var/lib/pacman takes writes",
        ]
    ),
    act!(
        "lock-merge-ends-an-unlock",
        "usr-policy unlock
merge
becomes '/var/lib/pacman refuses writes'
systemd-sysext unmerge
becomes '/usr refuses writes'
usr-policy status",
        &[
            "became: /var/lib/pacman refuses writes",
            "became: /usr refuses writes"
        ]
    ),
    act!(
        "lock-merge-under-pacman-beside-usr",
        "mkdir -p /etc/pacman.d/hooks beside/opt/beside beside/etc
echo opt >beside/opt/beside/file
echo etc >beside/etc/beside.conf
printf 'pkgname = beside\\npkgver = 1-1\\npkgdesc = a\\nbuilddate = 1\\nsize = 1\\narch = any\\n' >beside/.PKGINFO
bsdtar -C beside -cf beside-1-1-any.pkg.tar .PKGINFO etc opt
cat >/etc/pacman.d/hooks/slow.hook <<END
[Trigger]
Operation = Install
Type = Path
Target = opt/*
[Action]
When = PreTransaction
Exec = /bin/sh -c 'touch /run/witness/slow; sleep 8'
END
usr-policy unlock
pacman -U --noconfirm beside-1-1-any.pkg.tar >pacman.beside 2>&1 &
until test -e slow; do sleep 0.1; done
merge
usr-policy status | grep 'is changing packages' && echo named
state meanwhile
wait $! && echo pacman could
cat pacman.beside
becomes '/var/lib/pacman refuses writes'
rm slow /etc/pacman.d/hooks/slow.hook
pacman -Qk beside
cat /opt/beside/file /etc/beside.conf
systemd-sysext unmerge
becomes '/usr refuses writes'
becomes '/var/lib/pacman takes writes'
usr-policy verify
test ! -e /var/lib/usr-policy/covered && echo nothing is covered",
        &[
            "named",
            "meanwhile: /var/lib/pacman takes writes",
            "pacman could",
            "became: /var/lib/pacman refuses writes",
            "opt",
            "etc",
            "nothing is covered",
        ]
    ),
    act!(
        "lock-merge-under-pacman",
        "mkdir -p /etc/pacman.d/hooks
# In the middle of its transaction, which has not unpacked anything.
cat >/etc/pacman.d/hooks/slow.hook <<END
[Trigger]
Operation = Install
Type = Path
Target = usr/*
[Action]
When = PreTransaction
Exec = /bin/sh -c 'touch /run/witness/slow; sleep 8'
END
usr-policy unlock
rm -f /run/witness/slow
pacman -S --noconfirm toy oldtoy >/run/witness/pacman 2>&1 &
until test -e /run/witness/slow; do sleep 0.1; done
merge
usr-policy status | grep 'is changing packages' && echo named
code=0
usr-policy verify || code=$?
echo meanwhile: exit code $code
wait $! || echo pacman could not
cat /run/witness/pacman
becomes '/var/lib/pacman refuses writes'
rm /etc/pacman.d/hooks/slow.hook
pacman -Q toy oldtoy || :
systemd-sysext unmerge
becomes '/usr refuses writes'
code=0
usr-policy verify >verdict || code=$?
cat verdict
echo then: exit code $code
# Nothing else is broken any more.
grep -c BROKEN verdict
grep -o 'changed while extensions covered /usr.*' verdict",
        &[
            "named",
            "meanwhile: exit code 1",
            "became: /var/lib/pacman refuses writes",
            "became: /usr refuses writes",
            "then: exit code 1",
            "1",
            "changed while extensions covered /usr, so their files there may be missing or left over: oldtoy-1-1, toy-1-1",
        ]
    ),
    act!(
        "lock-mended",
        "usr-policy unlock
pacman -S --noconfirm toy oldtoy
test -e /usr/bin/toy && test -e /usr/bin/oldtoy && echo mended
usr-policy lock
usr-policy verify",
        &["mended"]
    ),
];

/// All of user space starts again while an unlock still has its time, and nothing is merged: what was opened is closed.
const SOFT_REBOOT: &[Act] = &[
    act!(
        "lock-unlock-for-an-hour",
        "usr-policy unlock --for 1h
state unlocked
usr-policy status | grep -o 'unlocked by hand'
systemctl soft-reboot
sleep 90",
        &["unlocked: /usr takes writes", "unlocked by hand"]
    ),
    act!(
        "lock-soft-reboot",
        "systemctl show --property=SoftRebootsCount
state rebooted
usr-policy status
findmnt --noheadings --output FSTYPE /var/cache/pacman
usr-policy verify
# Nor is it opened again when the old time would have gone on.
sleep 3
state later
! usr-policy status | grep 'unlocked by hand' && echo no unlock is remembered",
        &[
            "rebooted: /usr refuses writes",
            "rebooted: /var/lib/pacman refuses writes",
            "tmpfs",
            "later: /usr refuses writes",
            "later: /var/lib/pacman refuses writes",
            "no unlock is remembered",
        ]
    ),
];

/// The same over the socket that desktops use.
const VARLINK: &[Act] = &[act!(
    "lock-merge-by-varlink",
    "systemctl start systemd-sysext.socket
varlinkctl call /run/systemd/io.systemd.sysext io.systemd.sysext.Unmerge '{}'
usr-policy unlock
ln -sfn /opt/extensions/hello /run/extensions/hello
varlinkctl call /run/systemd/io.systemd.sysext io.systemd.sysext.Merge '{}'
becomes '/var/lib/pacman refuses writes'
varlinkctl call /run/systemd/io.systemd.sysext io.systemd.sysext.Unmerge '{}'
becomes '/usr refuses writes'
usr-policy lock",
    &[
        "became: /var/lib/pacman refuses writes",
        "became: /usr refuses writes"
    ]
)];

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let image = |suite: Suite| dracut(&format!("{suite}-dracut"), suite, &installed(&[]));
    let own = on_disks(
        "trixie-dracut-own",
        Suite::Trixie,
        Layout::of(Format::Ext4, [USR]),
        ROOT_LINE,
        USR_LINE,
    )?;
    let case = |name, image, acts: &[&[Act]], judge| Case {
        name,
        image,
        words: STRICT,
        steps: acts.iter().copied().flatten().map(|act| act.step).collect(),
        twin: None,
        verdict: CLEAN,
        judge,
    };
    Ok(vec![
        case(
            "forky-dracut-strict-the-database-is-locked-and-unlocked-as-the-table-says",
            image(Suite::Forky)?,
            &[DAY, VARLINK, SOFT_REBOOT],
            |seen, _| in_root(judged(seen, &[DAY, VARLINK, SOFT_REBOOT]), seen),
        ),
        case(
            "bookworm-dracut-strict-the-database-is-locked-and-unlocked-as-the-table-says",
            image(Suite::Bookworm)?,
            &[DAY],
            |seen, _| in_root(judged(seen, &[DAY]), seen),
        ),
        case(
            "trixie-dracut-usr-on-its-own-partition-is-opened-and-closed-with-the-database",
            own,
            &[DAY],
            |seen, _| judged(seen, &[DAY]),
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        Case {
            words: "",
            ..case(
                "forky-dracut-without-the-word-every-promise-of-the-lock-is-seen-broken",
                image(Suite::Forky)?,
                &[DAY],
                |seen, _| {
                    let kept = DAY.iter().filter(|act| act_is_kept(seen, act).is_ok());
                    kept.map(|act| format!("{}: kept, although there is no lock", act.step.name))
                        .collect()
                },
            )
        },
    ])
}

fn judged(seen: &Observed, acts: &[&[Act]]) -> Vec<String> {
    let mut complaints = checks::healthy(seen).broken();
    for act in acts.iter().copied().flatten() {
        complaints.extend(act_is_kept(seen, act).err());
    }
    complaints
}

/// The bind is taken away for a service with mounts of its own too. Where /usr is a partition the flag of its mount is
/// cleared, and such a service keeps the flag that it has got.
fn in_root(mut complaints: Vec<String>, seen: &Observed) -> Vec<String> {
    let opened = Act {
        says: &["before: /usr takes writes"],
        ..UNLOCK
    };
    complaints.extend(act_is_kept(seen, &opened).err());
    complaints
}

/// Whether a step ended well and said what it must.
fn act_is_kept(seen: &Observed, act: &Act) -> Answer<()> {
    let said = seen.said(&format!("step-{}", act.step.name))?;
    let missing = act
        .says
        .iter()
        .find(|line| !said.stdout.lines().any(|said| said.trim() == **line));
    if said.code == 0 && missing.is_none() {
        return Ok(());
    }
    Err(format!(
        "{}: exit code {}, without the line {missing:?}: {}{}",
        act.step.name, said.code, said.stdout, said.stderr
    ))
}
