//! File systems that refuse writes by themselves, whatever the flags of mount and superblock say; and witnesses that disagree.

use std::fs;
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use serde_json::Value;
use usr_policy_tests::prepare::{CACHE, VAR_TMP, in_memory, merge};
use usr_policy_tests::privilege::{bind, tmpfs};
use usr_policy_tests::system::{System, installed};
use usr_policy_tests::verdict;

use crate::STRICT;
use crate::verify::{DATABASE, Report, closed};

/// Closes all but `/usr`, and not by the boot program, which would close that too.
fn close_the_rest(system: &System) {
    in_memory(system, "/var/tmp", VAR_TMP);
    in_memory(system, "/var/cache/pacman", CACHE);
    system.does(&["mount", "--bind", "-o", "ro", DATABASE, DATABASE]);
    system.pretend_to_follow();
}

/// Mounts an overlay over a directory that refuses writes, while the flags of its mount and its superblock are rw: they are the
/// business of the file system that has its upper layer.
fn refuse(system: &System, path: &str, lower: &str) {
    let disk = system.base().join(path.replace('/', "disk-"));
    fs::create_dir(&disk).unwrap();
    tmpfs(&disk, "");
    for name in ["upper", "work"] {
        fs::create_dir(disk.join(name)).unwrap();
    }
    let options = format!(
        "lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work",
        disk = disk.display()
    );
    let target = system.path(path);
    let none = MsFlags::empty();
    let overlay = Some("overlay");
    mount(overlay, &target, overlay, none, Some(options.as_str())).unwrap();
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &disk, None::<&str>, read_only, None::<&str>).unwrap();
}

/// The layers that programs are told at a path.
fn layers(system: &System, path: &str) -> Value {
    let (_, text, _) = system.program(&["verify", "--json"]);
    let object = verdict::object(&text).unwrap();
    let mut findings = object["findings"].as_array().unwrap().iter();
    let is_it = |finding: &&Value| finding["subject"] == path && !finding["layers"].is_null();
    findings.find(is_it).unwrap()["layers"].clone()
}

/// A program that runs from `/usr` until it is killed.
fn idle(system: &System, program: &str) -> Child {
    let mut command = Command::new(system.path(program));
    let command = command.arg("infinity").stdin(Stdio::null());
    command.spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A btrfs subvolume over `/usr`, made read-only by its property; `None` where there is no btrfs or no loop device here.
fn subvolume(system: &System) -> Option<()> {
    let run = |words: &[&str]| Command::new(words[0]).args(&words[1..]).output();
    let image = system.base().join("btrfs-image");
    fs::File::create(&image)
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    let disk = system.base().join("btrfs");
    fs::create_dir(&disk).unwrap();
    let (image, disk) = (image.to_str()?, disk.to_str()?);
    for words in [
        &["mkfs.btrfs", "--quiet", image][..],
        &["mount", "-t", "btrfs", "-o", "loop", image, disk],
    ] {
        if !run(words).ok()?.status.success() {
            return None;
        }
    }
    let usr = format!("{disk}/usr");
    let tree = installed().join("usr");
    for words in [
        &["btrfs", "subvolume", "create", &usr][..],
        &["cp", "-a", &format!("{}/.", tree.display()), &usr],
        &["cp", "/bin/sleep", &format!("{usr}/bin/idle")],
    ] {
        let ran = run(words).unwrap();
        assert!(ran.status.success(), "{words:?}: {ran:?}");
    }
    bind(usr.as_ref(), &system.path("/usr"));
    close_property(system, true);
    Some(())
}

fn close_property(system: &System, is_read_only: bool) {
    let usr = system.base().join("btrfs/usr");
    let mut set = Command::new("btrfs");
    set.args(["property", "set", "-ts", usr.to_str().unwrap(), "ro"]);
    let ran = set.arg(is_read_only.to_string()).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Puts another text in place of the mount table of PID 1.
fn show_other_table(system: &System, change: impl Fn(&str) -> String) {
    let table = "/proc/1/mountinfo";
    let ran = system.command(&["cat", table]).output().unwrap();
    let lines = String::from_utf8(ran.stdout).unwrap();
    let lines: String = lines.lines().map(|line| change(line) + "\n").collect();
    let other = system.base().join("other-table");
    fs::write(&other, lines).unwrap();
    bind(&other, &system.path(table));
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a usr that refuses writes by itself holds whatever its flags say",
        || {
            System::with(STRICT, |system| {
                close_the_rest(system);
                let lower = format!("{}:/usr", installed().join("usr").display());
                refuse(system, "/usr", &lower);
                assert!(system.is_read_only("/usr"));
                let by = "read-only by its file system, overlay, whatever its flags say";
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr", "holds", by);
                assert!(report.text.contains(", and refuses writes by itself\n"));
                let layers_of_usr = layers(system, "/usr");
                for (key, value) in [("mount", "rw"), ("superblock", "rw"), ("access", "ro")] {
                    assert_eq!(layers_of_usr[key], value, "{layers_of_usr}");
                }
            });
        },
    ),
    (
        "an etc that refuses writes by itself is a warning and no contradiction",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let lower = system.path("/etc");
                refuse(system, "/etc", lower.to_str().unwrap());
                assert!(system.is_read_only("/etc"));
                let report = Report::of(system);
                report.exits(0);
                report.says("/etc", "warning", "read-only, although it must be writable");
            });
        },
    ),
    (
        "a read-only subvolume beneath extensions is seen by a program that was started from it",
        || {
            System::with(STRICT, |system| {
                close_the_rest(system);
                if subvolume(system).is_none() {
                    eprintln!("skipped: this machine mounts no btrfs from a file");
                    return;
                }
                assert!(system.is_read_only("/usr"));
                let by = "read-only by its file system, a read-only btrfs subvolume";
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr", "holds", by);
                let before = idle(system, "/usr/bin/idle");
                merge(system, None);
                let beneath = |is_read_only, exit, verdict, what: &str| {
                    close_property(system, is_read_only);
                    let report = Report::of(system);
                    report.exits(exit);
                    report.says("/usr", verdict, what);
                };
                beneath(
                    true,
                    0,
                    "holds",
                    &format!("{by}, extensions merged over it"),
                );
                close_property(system, true);
                let layer = &layers(system, "/usr")["beneath"];
                assert_eq!(
                    (&layer["superblock"], &layer["access"]),
                    (&"rw".into(), &"ro".into())
                );
                beneath(false, 1, "BROKEN", "writable beneath them");
                end(before);
                beneath(
                    true,
                    3,
                    "unknown",
                    "what lies beneath them cannot be seen, and may be writable",
                );
            });
        },
    ),
    (
        "a mount table that statvfs denies makes it unknown, whichever way",
        || {
            for (from, to, what) in [
                (
                    " ro,",
                    " rw,",
                    "the mount table says writable, statvfs says read-only",
                ),
                (
                    " rw,",
                    " ro,",
                    "the mount table says read-only, statvfs says writable",
                ),
            ] {
                System::with(STRICT, |system| {
                    closed(system);
                    if from == " rw," {
                        system.does(&["umount", "--lazy", "/usr"]);
                        system.does(&["mount", "--bind", "/usr", "/usr"]);
                    }
                    show_other_table(system, |line| match line.contains(" /usr ") {
                        true => line.replacen(from, to, 1),
                        false => line.to_owned(),
                    });
                    let (exit, text, _) = system.program(&["verify"]);
                    assert_eq!(exit, 3, "{text}");
                    assert!(text.contains(what), "{text}");
                });
            }
        },
    ),
];
