//! What a finding says in whole, and what it advises: the words that the other tests shorten.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::next_boot::{Unit, UnitPart};
use super::sysext::{Content, Extension, SearchDirectory};
use super::system::{Beneath, Hidden};
use super::tests::{machine, plan};
use super::*;
use crate::cmdline::Cmdline;
use crate::config::ConfigFile;

const CLOSED: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n\
    4 1 0:2 / /var/lib/pacman ro - tmpfs t rw\n";
const OVERLAY: &str = "3 2 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";

fn point(path: &str) -> MountPoint {
    MountPoint::new(path.as_bytes()).unwrap()
}

/// A machine with these mounts, after a change.
fn of(words: &str, table: &str, change: impl FnOnce(&mut Observed)) -> Report {
    let plan = plan(&std::format!("usrpolicy=strict {words}"));
    let mut seen = machine(&plan, table);
    change(&mut seen);
    report(&plan, &seen)
}

fn closed(change: impl FnOnce(&mut Observed)) -> Report {
    of("", CLOSED, change)
}

/// Whether a finding is there, word by word.
#[track_caller]
fn advises(report: &Report, verdict: Verdict, subject: &str, what: &str, remedy: &str) {
    let mut findings = report.findings.iter();
    let is_it = |finding: &&Finding| {
        finding.verdict == verdict
            && finding.subject == subject
            && finding.what == what
            && finding.remedy == remedy
    };
    assert!(
        findings.any(|finding| is_it(&finding)),
        "not {verdict:?} {subject}: {what} -> {remedy}:\n{:#?}",
        report.findings
    );
}

#[track_caller]
fn warns(report: &Report, subject: &str, what: &str, remedy: &str) {
    advises(report, Verdict::Warning, subject, what, remedy);
}

fn directory(access: Access, has_os_release: bool) -> Content {
    Content::Directory {
        access,
        release: Some(b"ID=_any\n".to_vec()),
        has_os_release,
    }
}

fn extension(path: &str, content: Content) -> Extension {
    let name = path.rsplit('/').next().unwrap();
    Extension {
        name: name.strip_suffix(".raw").unwrap_or(name).to_owned(),
        path: path.to_owned(),
        target: None,
        content,
    }
}

fn unit(name: &str, files: &[(&str, &str)]) -> Unit {
    Unit {
        name: name.to_owned(),
        parts: files
            .iter()
            .map(|(path, text)| UnitPart {
                path: (*path).to_owned(),
                text: text.as_bytes().to_vec(),
                is_drop_in: path.contains(".d/"),
            })
            .collect(),
        pulled_in_by: Vec::new(),
    }
}

#[test]
fn why_it_matters_is_said_of_every_topic() {
    for (topic, why) in [
        (
            Topic::Way,
            "what is written by that way changes what was to be closed",
        ),
        (
            Topic::Layout,
            "a read-only /usr protects nothing of the system that lies elsewhere",
        ),
        (
            Topic::Hidden,
            "it takes room on the disk, and no program sees it",
        ),
        (
            Topic::Attribute,
            "chattr +i makes copies and upgrades fail, and systemd-sysext among them",
        ),
    ] {
        assert_eq!(topic.why(), why);
    }
}

#[test]
fn witnesses_that_disagree_are_to_be_reported() {
    let report = closed(|seen| seen.places[0].access = Access::Writable);
    advises(
        &report,
        Verdict::Unknown,
        "/usr",
        "the mount table says read-only, faccessat says writable",
        "the witnesses disagree; report this with /proc/1/mountinfo",
    );
    let report = closed(|seen| seen.places[0].statvfs_read_only = Some(false));
    advises(
        &report,
        Verdict::Unknown,
        "/usr",
        "the mount table says read-only, statvfs says writable",
        "the witnesses disagree; report this with /proc/1/mountinfo",
    );
    let report = closed(|seen| seen.places[0].mount_id = Some(77));
    advises(
        &report,
        Verdict::Unknown,
        "/usr",
        "its mount is not in the mount table of PID 1",
        Caller::Root.way_to_see(),
    );
    let report = closed(|seen| seen.layers.second = Some(SecondReading::default()));
    advises(
        &report,
        Verdict::Unknown,
        "/",
        "the mount table says ext4 writable, a second reading says nothing",
        "the witnesses disagree; report this with /proc/1/mountinfo",
    );
    let more: Vec<String> = (10..14)
        .map(|id| std::format!("{id} 1 0:9 / /m{id} rw - tmpfs t rw\n"))
        .collect();
    let report = of("", &[CLOSED, &more.concat()].concat(), |seen| {
        seen.layers.second = Some(SecondReading::default());
    });
    advises(
        &report,
        Verdict::Unknown,
        "/proc/1/mounts",
        "the two readings of the mount table differ in 4 more places",
        "report this with /proc/1/mountinfo",
    );
}

#[test]
fn who_stands_in_a_directory_since_before_is_to_leave_it() {
    let report = closed(|seen| {
        seen.layers.standing.push(Standing {
            pid: 812,
            program: "bash".to_owned(),
            of: point("/usr"),
        });
    });
    warns(
        &report,
        "/usr",
        "pid 812 (bash) has its working directory in it since before it was closed, and can write there by relative names",
        "let it leave that directory, or end it: 812",
    );
}

#[test]
fn what_lies_around_a_rule_says_what_to_do_with_it() {
    let own = "5 1 0:1 /var/own /var/own ro - ext4 a rw\n6 5 0:9 / /var/own/up rw - tmpfs t rw\n";
    let report = of(
        "usrpolicy.path=/var/own:ro",
        &[CLOSED, own].concat(),
        |_| {},
    );
    warns(
        &report,
        "/var/own",
        "read-only, but /var/own/up is a writable mount of its own below it",
        "mount /var/own/up read-only, or give it a rule of its own",
    );
    let report = of("usrpolicy.path=/usr/local:rw", CLOSED, |_| {});
    advises(
        &report,
        Verdict::Broken,
        "/usr/local",
        "read-only, although it must be writable",
        "give it a mount of its own in /etc/fstab",
    );
    let merged =
        "1 0 0:1 /@ / rw - btrfs a rw\n3 1 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";
    let report = of("", merged, |_| {});
    advises(
        &report,
        Verdict::Unknown,
        "/usr",
        "read-only while extensions are merged; what lies beneath them cannot be seen, and may be writable",
        "systemd-sysext unmerge, and ask again",
    );
    let without_parent =
        "1 0 0:1 / / rw - ext4 a rw\n3 9 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";
    let report = of("", without_parent, |seen| seen.places[0].mount_id = Some(3));
    advises(
        &report,
        Verdict::Unknown,
        "/usr",
        "read-only while extensions are merged; what lies beneath them is not in the mount table of PID 1, and may be writable",
        "systemd-sysext unmerge, and ask again",
    );
    let subvolume = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 /@usr /usr rw - btrfs b rw\n";
    let report = of("", subvolume, |seen| {
        seen.places[0].access = Access::ReadOnly;
    });
    advises(
        &report,
        Verdict::Holds,
        "/usr",
        "read-only by its file system, a read-only btrfs subvolume",
        "",
    );
}

#[test]
fn what_lies_outside_usr_says_what_to_do_with_it() {
    let place = |path: &str, mount_id| Place {
        path: point(path),
        kind: Kind::Directory,
        mount_id: Some(mount_id),
        access: Access::NoWitness,
        statvfs_read_only: None,
    };
    let report = closed(|seen| seen.system.store = Some(place("/nix/store", 1)));
    warns(
        &report,
        "/nix/store",
        "holds the programs of this system in place of /usr, and can be written",
        "usr-policy closes /usr alone: have the store mounted read-only",
    );
    let report = closed(|seen| seen.system.outside.push(place("/bin", 1)));
    warns(
        &report,
        "/bin",
        "outside /usr, and can be written: what of the system lies there is not protected",
        "merge it into /usr, as the distribution describes, and leave links in its place",
    );
    let report = closed(|seen| {
        seen.caller = Caller::Other;
        seen.system.hidden.push(Hidden {
            path: point("/var/tmp"),
            beneath: Beneath::Unseen,
        });
    });
    advises(
        &report,
        Verdict::NotApplicable,
        "/var/tmp",
        "what lies beneath it could not be looked at",
        Caller::Other.way_to_see(),
    );
}

#[test]
fn what_is_wrong_with_extensions_says_what_to_do_about_it() {
    for (path, is_directory, what, remedy) in [
        (
            "/etc/extensions",
            false,
            "is no directory: systemd-sysext finds nothing there",
            "remove it, or make it a directory: /etc/extensions",
        ),
        (
            "/run/extensions",
            true,
            "read-only: no extension can be linked there until the next boot",
            "find who mounts it read-only: findmnt --target /run/extensions",
        ),
    ] {
        let report = closed(|seen| {
            seen.sysext.directories.push(SearchDirectory {
                path,
                is_directory,
                access: Access::ReadOnly,
            });
        });
        warns(&report, path, what, remedy);
    }
    for (path, content, what, remedy) in [
        (
            "/etc/extensions/a",
            Content::LeadsNowhere,
            "a link that leads nowhere: systemd-sysext leaves it out without a word",
            "make it lead to an extension, or remove it",
        ),
        (
            "/etc/extensions/a",
            directory(Access::ReadOnly, true),
            "it has a usr/lib/os-release, so every merge fails, for all extensions",
            "remove that file from it",
        ),
        (
            "/etc/extensions/a:1.raw",
            Content::Image,
            "with this name every merge fails, for all extensions",
            "give it a name without colon and comma",
        ),
    ] {
        let report = closed(|seen| seen.sysext.extensions.push(extension(path, content)));
        warns(&report, path, what, remedy);
    }
    let report = closed(|seen| seen.sysext.has_no_answer = true);
    warns(
        &report,
        "extensions",
        "could not be looked at: a file system that one of them lies on does not answer",
        "see /etc/extensions, /run/extensions and /var/lib/extensions for a link to a network or FUSE file system",
    );
}

#[test]
fn what_is_wrong_with_merged_extensions_says_what_to_do_about_it() {
    let merged = |found: Option<Extension>| {
        of("", &[CLOSED, OVERLAY].concat(), |seen| {
            seen.sysext.merged = Some([String::from("a")].into());
            seen.sysext.extensions.extend(found);
        })
    };
    warns(
        &merged(None),
        "a",
        "is merged, and lies in none of the directories that are searched: the next refresh takes it away",
        "put it back, or systemd-sysext refresh",
    );
    let writable = directory(Access::Writable, false);
    warns(
        &merged(Some(extension("/etc/extensions/a", writable))),
        "a",
        "merged from /etc/extensions/a: a directory that can be written, and what changes there changes /usr at once",
        "make an image of it, or put it on a read-only file system",
    );
    warns(
        &merged(Some(extension("/etc/extensions/a", Content::Mask))),
        "a",
        "is merged, and /etc/extensions/a is no extension any more: the next refresh takes it away",
        "put it back, or systemd-sysext refresh",
    );
}

#[test]
fn a_merge_that_is_missing_or_may_be_mutable_says_what_to_do_about_it() {
    const UNIT: &str = "/usr/lib/systemd/system/systemd-sysext.service";
    const LINK: &str = "/etc/systemd/system/sysinit.target.wants/systemd-sysext.service";
    let report = closed(|seen| {
        let image = extension("/etc/extensions/i.raw", Content::Image);
        seen.sysext.extensions.push(image);
        let mut service = unit("systemd-sysext.service", &[(UNIT, "[Service]\n")]);
        service.pulled_in_by.push(LINK.to_owned());
        seen.system.units.push(service);
    });
    warns(
        &report,
        "extensions",
        "i: not merged, although systemd-sysext.service is enabled (/etc/systemd/system/sysinit.target.wants/systemd-sysext.service); whether they suit this system, systemd-sysext says when it merges",
        "systemctl status systemd-sysext, then systemd-sysext refresh",
    );
    let configured = |text: &str| {
        closed(|seen| {
            seen.sysext.configuration.push(ConfigFile {
                path: b"/etc/systemd/sysext.conf".to_vec(),
                text: b"[SysExt]\nMutable=yes\n".to_vec(),
            });
            seen.system
                .units
                .push(unit("systemd-sysext.service", &[(UNIT, text)]));
        })
    };
    warns(
        &configured("[Service]\n"),
        "/etc/systemd/sysext.conf",
        "lets systemd-sysext.service merge with a writable layer: mutable mode yes",
        "take it out: a mutable merge makes /usr writable",
    );
    warns(
        &configured("[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n"),
        "/etc/systemd/sysext.conf",
        "lets a merge by hand put a writable layer over /usr: Mutable=yes",
        "write Mutable=no, or merge with --mutable=no",
    );
}

#[test]
fn what_undoes_the_policy_at_the_next_boot_says_what_to_do_about_it() {
    const LOCK: &str = "usr-policy-lock.service";
    for (name, what) in [
        (
            LOCK,
            "masks usr-policy-lock.service: nothing locks the database before packages can be changed",
        ),
        (
            "usr-policy-follow.service",
            "masks usr-policy-follow.service: nothing locks the database when extensions are merged",
        ),
    ] {
        let path = std::format!("/etc/systemd/system/{name}");
        let report = closed(|seen| seen.system.units.push(unit(name, &[(&path, "")])));
        let remedy = std::format!("systemctl unmask {name}");
        warns(&report, &path, what, &remedy);
    }
    let drop_in = "/etc/systemd/system/usr-policy-lock.service.d/x.conf";
    let report = closed(|seen| {
        let own = (
            "/usr/lib/systemd/system/usr-policy-lock.service",
            "[Service]\nExecStart=/usr/lib/usr-policy/usr-policy-generator sync\n",
        );
        let taken = (drop_in, "[Service]\nExecStart=\n");
        seen.system.units.push(unit(LOCK, &[own, taken]));
    });
    warns(
        &report,
        drop_in,
        "takes /usr/lib/usr-policy/usr-policy-generator out of usr-policy-lock.service",
        "take ExecStart= out of it, then systemctl daemon-reload",
    );
    let mask = "/etc/systemd/system-generators/usr-policy-generator";
    let report = closed(|seen| seen.system.generator = Generator::Masked(mask.to_owned()));
    warns(
        &report,
        mask,
        "stands in place of usr-policy's generator, and is no program: after the next boot or reload nothing locks the database",
        "rm /etc/systemd/system-generators/usr-policy-generator",
    );
    for (line, what, remedy) in [
        (
            "/dev/b /usr/local ext4 rw 0 2\n",
            "mounts /usr/local writable at the next boot",
            "write ro in its options, or say that it is meant: usrpolicy.path=/usr/local:rw",
        ),
        (
            "t /var/lib/pacman/sync tmpfs rw 0 0\n",
            "mounts /var/lib/pacman/sync writable at the next boot",
            "write ro in its options, or take the line out",
        ),
    ] {
        let report = closed(|seen| seen.system.fstab = line.into());
        warns(&report, "/etc/fstab:1", what, remedy);
    }
}

#[test]
fn how_to_get_into_the_initramfs_is_said_in_whole() {
    for (mkinitcpio, has_dracut, remedy) in [
        (
            "HOOKS=(base usr-policy)\n",
            false,
            "the initramfs that ran was built without the hook usr-policy, which HOOKS has: rebuild it with mkinitcpio -P",
        ),
        (
            "HOOKS=(base)\n",
            false,
            "add usr-policy to HOOKS in /etc/mkinitcpio.conf, and rebuild the initramfs with mkinitcpio -P",
        ),
        (
            "",
            true,
            "the initramfs that ran was built without usr-policy: rebuild it with dracut --force",
        ),
    ] {
        let report = closed(|seen| {
            seen.events = Event::parse(b"5 host /usr read-only");
            let files = [mkinitcpio].into_iter().filter(|text| !text.is_empty());
            seen.system.builders.mkinitcpio = files
                .map(|text| ConfigFile {
                    path: "/etc/mkinitcpio.conf".into(),
                    text: text.into(),
                })
                .collect();
            seen.system.builders.has_dracut = has_dracut;
        });
        let what = "read-only, but late, since 0.000 s after the kernel started (host stage, when services may have been running)";
        warns(&report, "/usr", what, remedy);
    }
}

#[test]
fn who_has_undone_a_rule_comes_with_the_way_to_undo_that() {
    const OPEN: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr rw - ext4 b rw\n";
    let broken = |report: &Report, subject: &str, undone: &str, remedy: &str| {
        let mut findings = report.findings.iter();
        let is_it = |finding: &&Finding| {
            finding.verdict == Verdict::Broken
                && finding.subject == subject
                && finding.what.contains(undone)
                && finding.remedy == remedy
        };
        assert!(findings.any(|finding| is_it(&finding)), "{report:#?}");
    };
    let strict = plan("usrpolicy=strict");
    let with_line = Plan::new(&crate::plan::Facts {
        cmdline: Cmdline::parse(b"usrpolicy=strict"),
        fstab: Some(b"/dev/b /usr ext4 defaults 0 2\n".to_vec()),
        ..crate::plan::Facts::default()
    });
    let mut seen = machine(&with_line, OPEN);
    seen.events = Event::parse(b"5 early /usr read-only");
    broken(
        &report(&with_line, &seen),
        "/usr",
        "systemd-remount-fs applies /etc/fstab:1, which has no ro: the drop-in that keeps it from that is missing",
        "write ro in its options, then run /usr/lib/usr-policy/usr-policy-generator sync",
    );
    let mut seen = machine(&strict, OPEN);
    seen.system.generator = Generator::Missing;
    broken(
        &report(&strict, &seen),
        "/usr",
        "systemd finds no generator of usr-policy: it is missing",
        "make install, then boot again",
    );
    let mut seen = machine(&strict, OPEN);
    seen.events = Event::parse(b"5 host /usr failed");
    broken(
        &report(&strict, &seen),
        "/usr",
        "usr-policy could not close it (host)",
        "journalctl -b -t usr-policy-generator says why",
    );
    let mine = "/etc/systemd/system/var-tmp.mount.d/mine.conf";
    for (path, text, remedy) in [
        (
            mine,
            "[Mount]\nType=ext4\n",
            "look into /etc/systemd/system/var-tmp.mount.d/mine.conf",
        ),
        (
            "/etc/systemd/system/var-tmp.mount",
            "",
            "systemctl unmask var-tmp.mount, then systemctl start var-tmp.mount",
        ),
    ] {
        let mut seen = machine(&strict, CLOSED);
        seen.system
            .units
            .push(unit("var-tmp.mount", &[(path, text)]));
        broken(&report(&strict, &seen), "/var/tmp", "no tmpfs; ", remedy);
    }
    let mutable = [
        CLOSED,
        "3 2 0:3 / /usr rw - overlay sysext rw,lowerdir=/usr,upperdir=/x\n",
    ];
    let mut seen = machine(&strict, &mutable.concat());
    let drop_in = "/etc/systemd/system/systemd-sysext.service.d/mine.conf";
    let asks = "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n";
    let service = unit("systemd-sysext.service", &[(drop_in, asks)]);
    seen.system.units.push(service);
    broken(
        &report(&strict, &seen),
        "/usr",
        "mine.conf:2 asks for it, with yes",
        "take that out of /etc/systemd/system/systemd-sysext.service.d/mine.conf:2, systemctl daemon-reload, and merge again",
    );
    seen.system.units.clear();
    seen.sysext.configuration.push(ConfigFile {
        path: b"/etc/systemd/sysext.conf".to_vec(),
        text: b"[SysExt]\nMutable=yes\n".to_vec(),
    });
    broken(
        &report(&strict, &seen),
        "/usr",
        "/etc/systemd/sysext.conf asks for it, with Mutable=yes",
        "write Mutable=no in /etc/systemd/sysext.conf, and merge again",
    );
}

#[test]
fn what_is_nearly_full_says_what_to_do_about_it() {
    let path = point("/var/tmp");
    let report = closed(|seen| {
        seen.fills.push(Fill {
            path,
            size: 100,
            used: 95,
            inodes: 10,
            used_inodes: 1,
        });
    });
    let mut findings = report.findings.iter();
    let full = findings.find(|finding| finding.topic == Topic::Fill);
    assert_eq!(
        full.expect("a finding").remedy,
        "remove what is not needed there, or give it more: size= in its rule, and mount -o remount,size=SIZE /var/tmp until the next boot"
    );
}

#[test]
fn what_the_next_initramfs_leaves_out_says_so_in_whole() {
    let file = |path: &str, text: &str| ConfigFile {
        path: path.into(),
        text: text.into(),
    };
    let hooks = file("/etc/mkinitcpio.conf", "HOOKS=(base udev)\n");
    let report = closed(|seen| {
        seen.events = Event::parse(b"5 early /usr read-only");
        seen.system.builders.has_mkinitcpio = true;
        seen.system.builders.mkinitcpio = [hooks].into();
    });
    warns(
        &report,
        "/etc/mkinitcpio.conf",
        "has no usr-policy in HOOKS, and the initramfs that ran had it: from the next one that mkinitcpio makes, /usr is writable until the real root",
        "add usr-policy to HOOKS there",
    );
    let omits = file("/etc/dracut.conf", "omit_dracutmodules+=\" usr-policy \"\n");
    let with_dracut = |event: &[u8]| {
        closed(|seen| {
            seen.events = Event::parse(event);
            seen.system.builders.has_dracut = true;
            seen.system.builders.dracut = [omits.clone()].into();
        })
    };
    warns(
        &with_dracut(b"5 early /usr read-only"),
        "/etc/dracut.conf",
        "leaves usr-policy out by omit_dracutmodules, and the initramfs that ran had it: from the next one that dracut makes, /usr is writable until the real root",
        "change omit_dracutmodules there",
    );
    warns(
        &with_dracut(b"5 host /usr read-only"),
        "/usr",
        "read-only, but late, since 0.000 s after the kernel started (host stage, when services may have been running)",
        "omit_dracutmodules in /etc/dracut.conf leaves usr-policy out of the initramfs: change that, and rebuild it with dracut --force",
    );
}

#[test]
fn what_may_never_answer_is_said_not_to_be_looked_at() {
    let report = of("", &[CLOSED, OVERLAY].concat(), |seen| {
        let mut unseen = extension("/run/extensions/x", Content::Unseen);
        unseen.target = Some("/mnt/far/x".to_owned());
        seen.sysext.merged = Some(["x".to_owned()].into());
        seen.sysext.extensions.push(unseen);
    });
    advises(
        &report,
        Verdict::NotApplicable,
        "/run/extensions/x",
        "/run/extensions/x, a link to /mnt/far/x is not looked at: it lies on a network or FUSE file system or an automount, which may never answer",
        "",
    );
    warns(
        &report,
        "x",
        "merged from /run/extensions/x, a link to /mnt/far/x: a directory on a file system that may stop answering, and what changes there changes /usr at once",
        "make an image of it, or put it on a read-only file system of this machine",
    );
    let report = of("", &[CLOSED, OVERLAY].concat(), |seen| {
        let image = extension("/run/extensions/x.raw", Content::Unseen);
        seen.sysext.merged = Some(["x".to_owned()].into());
        seen.sysext.extensions.push(image);
    });
    advises(
        &report,
        Verdict::NotApplicable,
        "x",
        "merged from /run/extensions/x.raw, which is not looked at",
        "",
    );
}

#[test]
fn a_mutable_mode_of_the_command_line_is_named() {
    let mutable = "3 2 0:3 / /usr rw - overlay sysext rw,lowerdir=/usr,upperdir=/x\n";
    let report = of("", &[CLOSED, mutable].concat(), |seen| {
        let words = b"usrpolicy=strict systemd.setenv=SYSTEMD_SYSEXT_MUTABLE_MODE=yes";
        seen.system.cmdline = Cmdline::parse(words);
        let service = Unit {
            name: "systemd-sysext.service".to_owned(),
            ..Unit::default()
        };
        seen.system.units.push(service);
    });
    advises(
        &report,
        Verdict::Broken,
        "/usr",
        "extensions are merged with a writable layer over it, /x; systemd.setenv= on the kernel command line asks for it, with yes",
        "take that out of systemd.setenv= on the kernel command line, systemctl daemon-reload, and merge again",
    );
}
