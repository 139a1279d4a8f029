//! Boots of machines that are not as a policy expects them: each goes on, and says what it left out.

use usr_policy_tests::machine::{Contents, Extra, Format, Layout, Part, Result, Suite};

use crate::case::{Case, Step, dracut, half_dracut, installed, with};
use crate::checks;
use crate::layouts::{DATABASE, ROOT_LINE, STRICT, on_disks};
use crate::observed::Observed;
use crate::verdict::{CLEAN, broken};
use crate::words::{said_in_the_log, verify_says};

/// Everything that can be odd at once: words that are refused, a configuration with mistakes, a link and a hole where
/// directories should be, paths that fstab has already.
const WORDS: &str = "usrpolicy=strict usrpolicy.path=/etc:ro usrpolicy.path=/var:tmpfs usrpolicy.path=/:ro \
    usrpolicy.path=/var/../etc:ro \"usrpolicy.path=/var/lib/100% mine:tmpfs,size=5%,mode=0700\"";

const CONFIGURATION: &str =
    "[Policy]\nMode=strict\nLock\n[Path:/home]\nTreatment=ro\n[Path:/usr/local]\nTreatment=rw\n";

/// As genfstab writes it, and three lines that concern the policy.
const FSTAB: &str = "LABEL=root\t/\text4\trw,relatime\t0 1\n\
    /srv/local\t/usr/local\tnone\tbind\t0 0\n\
    tmpfs\t/var/cache/pacman\ttmpfs\tsize=64m,mode=0755\t0 0\n";

/// What the log says of all that, once each.
const SAID: [&str; 8] = [
    "/sysroot/usr: made read-only",
    "/etc/usr-policy.conf:3: is not a setting; write Key=value, or start a comment with #",
    "/etc/usr-policy.conf:5: /home is neither below /var nor below /usr; remove it",
    "/proc/cmdline: /etc is neither below /var nor below /usr; remove it",
    "/proc/cmdline: /var is neither below /var nor below /usr; remove it",
    "/proc/cmdline: / is neither below /var nor below /usr; remove it",
    "/proc/cmdline: /var/../etc contains ..; write the path that it leads to",
    "/etc/fstab:3: /var/cache/pacman is already mounted there; leaving it to fstab",
];

/// What becomes of a boot whose verdict is not good: its service fails, and nothing else comes of it.
const JUDGED_BROKEN: [&str; 2] = ["no-unit-has-failed", "the-system-is-running"];

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let odd = with(
        Contents {
            removed: vec!["/var/lib/pacman".to_owned(), "/var/tmp".to_owned()],
            ..installed(&[])
        },
        [
            Extra::file("/etc/usr-policy.conf", CONFIGURATION),
            Extra::link("/var/tmp", "../srv/tmp"),
            Extra::directory("/srv/tmp", 0o1777),
            Extra::directory("/srv/local", 0o755),
            Extra::directory("/var/lib/100% mine", 0o755),
            Extra::file("/etc/fstab", FSTAB),
        ],
    );
    let no_var = Contents {
        removed: vec!["/var".to_owned()],
        ..installed(&[])
    };
    let look = Step {
        name: "odd-mounts",
        script: "findmnt -n -o FSTYPE,OPTIONS '/var/lib/100% mine'; findmnt -n -o OPTIONS /usr/local; \
            touch /usr/local/x && rm /usr/local/x && touch /var/tmp/x && stat -c %a '/var/lib/100% mine'",
    };
    Ok(vec![
        Case {
            name: "trixie-dracut-an-odd-machine-boots-and-says-what-is-left-out",
            image: dracut("trixie-dracut-odd", Suite::Trixie, &odd)?,
            words: WORDS,
            steps: vec![look],
            twin: None,
            verdict: broken(&["a symbolic link leads there"]),
            judge: |seen, _| {
                let mut complaints = checks::strict_usr_alone(seen).broken_but_for(&JUDGED_BROKEN);
                complaints.extend(said_in_the_log(seen, &SAID));
                for text in [
                    "/var/cache/pacman is already mounted there",
                    "there is no such directory",
                    "tmpfs mode=0700,size=5%,nosuid,nodev",
                ] {
                    complaints.extend(verify_says(seen, text));
                }
                match seen.said("step-odd-mounts") {
                    Ok(said)
                        if said.code == 0
                            && said.stdout.contains("tmpfs")
                            && said.stdout.ends_with("700\n") => {}
                    Ok(said) => {
                        complaints.push(format!("odd mounts: {}{}", said.stdout, said.stderr))
                    }
                    Err(why) => complaints.push(why),
                }
                complaints
            },
        },
        Case {
            name: "trixie-dracut-strict-a-root-without-a-var-boots",
            // dracut itself needs /var/tmp.
            image: half_dracut(
                "trixie-dracut-no-var",
                Suite::Trixie,
                &no_var,
                &installed(&[]),
            )?,
            words: "usrpolicy=strict",
            steps: Vec::new(),
            twin: None,
            verdict: broken(&[]),
            judge: |seen, _| {
                let mut complaints = checks::strict_usr_alone(seen).broken_but_for(&JUDGED_BROKEN);
                // systemd-tmpfiles makes /var/tmp when the units have long been looked at.
                complaints.extend(verify_says(seen, "covered from the next one on"));
                complaints
            },
        },
        Case {
            name: "trixie-dracut-a-database-on-a-disk-that-the-boot-does-not-wait-for-is-locked",
            image: on_disks(
                "trixie-dracut-nofail",
                Suite::Trixie,
                Layout::of(
                    Format::Ext4,
                    [Part {
                        path: DATABASE,
                        label: "db",
                        format: Format::Ext4,
                    }],
                ),
                ROOT_LINE,
                "LABEL=db\t/var/lib/pacman\text4\trw,nofail\t0 2\n",
            )?,
            words: STRICT,
            steps: vec![Step {
                name: "late-database",
                script: "systemctl start usr-policy-lock.service; findmnt -n -o FSTYPE,OPTIONS /var/lib/pacman; \
                    systemctl is-active local-fs.target var-lib-pacman.mount && ! touch /var/lib/pacman/x",
            }],
            twin: None,
            verdict: CLEAN,
            judge: is_locked_late,
        },
        Case {
            name: "trixie-dracut-a-missing-disk-of-the-database-that-fstab-does-not-wait-for-holds-up-no-boot",
            image: on_disks(
                "trixie-dracut-nofail-missing",
                Suite::Trixie,
                Layout::whole(),
                ROOT_LINE,
                "LABEL=gone\t/var/lib/pacman\text4\trw,nofail,x-systemd.device-timeout=60s\t0 2\n",
            )?,
            words: STRICT,
            steps: vec![Step {
                name: "late-database",
                script: "at() { systemctl show -P ActiveEnterTimestampMonotonic $1; }; up=$(at multi-user.target); \
                    systemctl start usr-policy-lock.service; locked=$(at usr-policy-lock.service); \
                    echo $up $locked; systemctl is-active local-fs.target && \
                    test 0 -lt $up && test $up -lt $locked && ! touch /var/lib/pacman/x",
            }],
            twin: None,
            verdict: CLEAN,
            judge: is_locked_late,
        },
    ])
}

/// The machine is up, and nothing can be written in the database.
fn is_locked_late(seen: &Observed, _: Option<&Observed>) -> Vec<String> {
    let mut complaints = checks::healthy(seen).broken();
    match seen.said("step-late-database") {
        Ok(said) if said.code == 0 => {}
        Ok(said) => complaints.push(format!("the database: {}{}", said.stdout, said.stderr)),
        Err(why) => complaints.push(why),
    }
    complaints
}
