//! A boot loader that counts: an entry whose policy is broken is left for another, and one whose policy holds is blessed.

use std::fs;
use std::path::Path;

use usr_policy_tests::machine::{
    At, Boot, Cache, Entry, Error, Extra, Firmware, Image, Result, Suite, cache, firmware,
};

use crate::case::{Step, dracut, installed, with};
use crate::guest;
use crate::layouts::{ROOT_LINE, with_fstab};
use crate::observed::{Answer, Observed};

/// The case. It is none of the others, which start a kernel without firmware and forget what they write.
pub const NAME: &str =
    "trixie-systemd-boot-leaves-an-entry-whose-policy-is-broken-and-blesses-one-whose-policy-holds";

/// The first is what the boot loader prefers, and has one try; something opens /usr there before the verdict.
const ENTRIES: [Entry; 2] = [
    Entry {
        name: "preferred+1.conf",
        words: "usrpolicy=strict undo",
    },
    Entry {
        name: "other+3.conf",
        words: "usrpolicy=strict",
    },
];

/// A service as any other, for the boot with the word.
const UNDO: &str = "[Unit]
Description=Somebody who opens /usr
ConditionKernelCommandLine=undo
[Service]
Type=oneshot
ExecStart=mount -o remount,bind,rw /usr
";

/// What is asked in the guest after each boot.
const STEPS: [Step; 4] = [
    Step {
        name: "command-line",
        script: "cat /proc/cmdline",
    },
    Step {
        name: "complete",
        script: "systemctl is-active boot-complete.target systemd-bless-boot.service",
    },
    Step {
        name: "unit",
        script: "systemctl show --property=Result,ExecMainStatus usr-policy-verify.service",
    },
    Step {
        name: "record",
        script: "journalctl --sync; journalctl -b -o export MESSAGE_ID=36876bae71e64a5ea81a770b140c232c",
    },
];

/// What the machine starts from.
///
/// # Errors
/// The witness cannot be prepared.
pub fn image() -> Result<Image> {
    let line = format!(
        "LABEL={}\t/efi\tvfat\trw,umask=0077\t0 0\n",
        firmware::LABEL
    );
    let contents = with_fstab(installed(&[]), ROOT_LINE, &line);
    let undo = Extra::unit("multi-user.target", "undo.service", UNDO);
    let contents = with(contents, undo);
    let contents = with(contents, [Extra::directory("/efi", 0o755)]);
    dracut("efi-dracut", Suite::Efi, &contents)
}

/// Boots twice, and looks at the names of the entries after each.
///
/// # Errors
/// A boot fails, or a promise is broken.
pub fn run(cache: &Cache, stage: Option<&Path>) -> Result<()> {
    let _turn = cache.turn()?;
    let made = image()?.make(cache, stage)?;
    let dir = cache.dir().join("results").join(NAME);
    cache::remove(&dir)?;
    let disks = dir.join("firmware");
    fs::create_dir_all(&disks).at(&disks)?;
    let system = Suite::Efi.system(cache)?;
    let firmware = Firmware::new(&disks, &system, &made, &ENTRIES, &dir.join("log"))?;
    let input = guest::input(&STEPS)?;
    let boot = |name: &str| -> Result<Observed> {
        let dir = dir.join(name);
        let boot = Boot {
            made: &made,
            words: "",
            firmware: Some(&firmware),
            dir: &dir,
            proof: Some("journal.out"),
        };
        let took = boot.run(input.path(), || Ok(()))?;
        eprintln!("{NAME}: {name} boot in {:.1} s", took.as_secs_f64());
        Observed::load(&dir)
    };
    let mut complaints = Vec::new();
    let mut look = |seen: &Observed, is_good: bool, entries: [&str; 2]| -> Result<()> {
        complaints.extend(judged(seen, is_good).err());
        let now = firmware.entries()?;
        if now != entries {
            complaints.push(format!("entries: {now:?}, not {entries:?}"));
        }
        Ok(())
    };
    look(
        &boot("first")?,
        false,
        ["other+3.conf", "preferred+0-1.conf"],
    )?;
    look(&boot("second")?, true, ["other.conf", "preferred+0-1.conf"])?;
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}\n\nall that was seen: {}",
        complaints.join("\n"),
        dir.display()
    )))
}

/// What the guest says of a boot.
fn judged(seen: &Observed, is_good: bool) -> Answer<()> {
    let step = |name: &str| seen.said(&format!("step-{name}"));
    let must = |holds: bool, what: &str| {
        let what = format!(
            "{}: {what}",
            if is_good { "second boot" } else { "first boot" }
        );
        if holds { Ok(()) } else { Err(what) }
    };
    let words = &step("command-line")?.stdout;
    must(words.contains("usrpolicy=strict"), words)?;
    must(words.contains(" undo") != is_good, words)?;
    let append = &seen.moment("late")?.append;
    must(append == if is_good { "EROFS" } else { "OK" }, append)?;
    let complete = &step("complete")?.stdout;
    let expected = if is_good {
        "active\nactive\n"
    } else {
        "inactive\ninactive\n"
    };
    must(complete == expected, complete)?;
    let unit = &step("unit")?.stdout;
    let result = if is_good {
        "Result=success"
    } else {
        "Result=exit-code"
    };
    let status = if is_good {
        "ExecMainStatus=0"
    } else {
        "ExecMainStatus=1"
    };
    must(unit.contains(result) && unit.contains(status), unit)?;
    let record = &step("record")?.stdout;
    let lines = |wanted: &str| record.lines().filter(|line| *line == wanted).count();
    let exit = if is_good {
        "USR_POLICY_EXIT=0"
    } else {
        "USR_POLICY_EXIT=1"
    };
    must(
        lines(exit) == 1 && record.matches("USR_POLICY_EXIT=").count() == 1,
        record,
    )?;
    must(
        lines("USR_POLICY_BROKEN=usr /usr") == usize::from(!is_good),
        record,
    )?;
    must(
        lines("_SYSTEMD_UNIT=usr-policy-verify.service") == 1,
        record,
    )
}
