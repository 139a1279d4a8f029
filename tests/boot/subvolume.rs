//! `/usr` on a subvolume of btrfs that is read-only itself, as some images have it: nothing in a mount table tells.

use usr_policy_tests::machine::{Access, Format, Layout, Result, Subvolume, Suite};

use crate::case::{Case, Step};
use crate::checks;
use crate::layouts::{BTRFS_ROOT, case, holds_but_for, on_disks};
use crate::observed::{Answer, Observed};
use crate::verdict::{FSTAB_OPENS_USR, warned};

const SUBVOLUMES: &[Subvolume] = &[
    Subvolume {
        name: "@",
        holds: "/",
        access: Access::ReadWrite,
    },
    Subvolume {
        name: "@usr",
        holds: "/usr",
        access: Access::ReadOnly,
    },
];

/// The line of fstab for it. Whoever makes such an image sees no need for ro.
const USR_LINE: &str = "LABEL=root\t/usr\tbtrfs\trw,relatime,subvol=/@usr\t0 0\n";

/// What only the boot program has set is taken away, and then what the image has.
const OPENED: [Step; 2] = [
    Step {
        name: "undo-flag",
        script: "mount -o remount,bind,rw /usr",
    },
    Step {
        name: "undo-property",
        script: "btrfs property set -f -t subvol /usr ro false",
    },
];

/// The case with the word.
pub const STRICT: &str =
    "trixie-dracut-usr-on-a-read-only-btrfs-subvolume-holds-with-and-without-a-flag-of-its-mount";

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let image = on_disks(
        "trixie-dracut-btrfs-ro",
        Suite::Trixie,
        Layout::of(Format::Btrfs(SUBVOLUMES), []),
        BTRFS_ROOT,
        USR_LINE,
    )?;
    let off = "trixie-dracut-usr-on-a-read-only-btrfs-subvolume-and-off-promises-nothing";
    let mut cases = vec![
        case(
            off,
            &image,
            "rootflags=subvol=@ usrpolicy=off",
            None,
            |seen, _| {
                let mut complaints = checks::healthy(seen).broken();
                complaints.extend(by_its_property_alone(seen, "late").err());
                // What only the word brings.
                let open = ["/var/lib/pacman", "/var/tmp", "/var/cache/pacman"];
                complaints.extend(checks::answers(seen, &open, "OK").err());
                complaints.extend(says_and_meets(seen, "undo-flag", 0, "", "EROFS").err());
                complaints.extend(says_and_meets(seen, "undo-property", 0, "", "OK").err());
                complaints
            },
        ),
        case(
            STRICT,
            &image,
            "rootflags=subvol=@ usrpolicy=strict",
            Some(off),
            |seen, twin| {
                // It is opened in the end.
                let mut complaints =
                    holds_but_for(seen, twin, &["usr-is-never-writable-in-the-watch"]);
                complaints.extend(never_writable_before_it_is_opened(seen).err());
                complaints.extend(by_its_property_alone(seen, "step-undo-flag").err());
                let by = "read-only by its file system, a read-only btrfs subvolume";
                complaints.extend(says_and_meets(seen, "undo-flag", 0, by, "EROFS").err());
                complaints.extend(says_and_meets(seen, "undo-property", 1, "writable", "OK").err());
                complaints
            },
        )
        .says(warned(&[FSTAB_OPENS_USR])),
    ];
    for case in &mut cases {
        case.steps.extend(OPENED);
    }
    Ok(cases)
}

/// `/usr` is one mount, and what closes it is shown by no table.
fn by_its_property_alone(seen: &Observed, moment: &str) -> Answer<()> {
    let then = seen.moment(moment)?;
    let usr = then.mounts.only("/usr")?;
    if then.append != "EROFS" || usr.is_read_only() {
        return Err(format!("{moment}: a write: {}; {usr:?}", then.append));
    }
    Ok(())
}

/// After a step verify ends with a code and says something, and a write to `/usr` is answered so.
fn says_and_meets(seen: &Observed, step: &str, code: i32, text: &str, answer: &str) -> Answer<()> {
    let did = seen.said(&format!("step-{step}"))?;
    let verify = seen.said(&format!("step-{step}-verify"))?;
    let writes = &seen.said(&format!("step-{step}-writes"))?.stdout;
    let is_met = writes.lines().any(|line| line == format!("/usr\t{answer}"));
    if did.code == 0 && is_met && verify.code == code && verify.stdout.contains(text) {
        return Ok(());
    }
    Err(format!(
        "{step}: exit code {}: {}; writes: {writes}; verify: exit code {}, without \"{text}\": {}",
        did.code, did.stderr, verify.code, verify.stdout
    ))
}

fn never_writable_before_it_is_opened(seen: &Observed) -> Answer<()> {
    let end = seen.moment("step-unmerge-again")?.time;
    let mut before = seen.watch.of("/usr").filter(|change| change.at <= end);
    match before.find(|change| change.writable != Some(false)) {
        Some(change) => Err(change.line.replace('\t', " ")),
        None => Ok(()),
    }
}
