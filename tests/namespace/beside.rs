//! What verify says of what lies beside the mounts: files beneath a tmpfs, directories outside `/usr`, and what would undo
//! the policy at the next boot.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::privilege::tmpfs;
use usr_policy_tests::system::{System, installed};

use crate::STRICT;
use crate::verify::{Report, changed, closed};

fn deep(system: &System) -> Report {
    Report::of_command(&mut system.command(&["/usr/bin/usr-policy", "verify", "--deep", "--all"]))
}

fn mask(system: &System, path: &str) {
    let path = system.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink("/dev/null", path).unwrap();
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "what a tmpfs hides is found beneath it, counted where that is asked for, and no mount is changed",
        || {
            System::with(STRICT, |system| {
                system.write("/var/tmp/a/b/old", &"x".repeat(100_000));
                system.write("/var/tmp/new", "x");
                fs::hard_link(system.path("/var/tmp/new"), system.path("/var/tmp/same")).unwrap();
                closed(system);
                assert!(!system.path("/var/tmp/new").exists());
                let mounts = system.mounts();
                let report = Report::of(system);
                report.exits(0);
                report.says("/var/tmp", "holds", "tmpfs");
                report.says("/var/tmp", "-", "files on the disk are hidden beneath it");
                assert!(
                    report.text.ends_with(
                        "Everything that is promised holds.
"
                    ),
                    "{}",
                    report.text
                );
                let report = deep(system);
                report.exits(0);
                // A page for the small file, that has two names.
                report.says(
                    "/var/tmp",
                    "warning",
                    "3 files are hidden beneath it, and 104 KiB",
                );
                assert!(
                    report
                        .text
                        .contains("mount --bind /var /mnt, and look in /mnt/tmp"),
                    "{}",
                    report.text
                );
                assert_eq!(system.mounts(), mounts);
                // The way that is told leads there.
                system.does(&["mount", "--bind", "/var", "/mnt"]);
                assert!(system.path("/mnt/tmp/new").exists());
            });
        },
    ),
    (
        "a hook that the next image of mkinitcpio will not have is told, and a preset with another list is heard",
        || {
            System::with(STRICT, |system| {
                system.write("/usr/bin/mkinitcpio", "#!/bin/sh\n");
                system.does(&["chmod", "0755", "/usr/bin/mkinitcpio"]);
                let conf = "/etc/mkinitcpio.conf";
                system.write(conf, "COMPRESSION=\"zstd\"\nHOOKS=(base udev usr-policy)\n");
                closed(system);
                let is_told = |subject: &str| {
                    let report = Report::of(system);
                    report.exits(0);
                    report.says(subject, "warning", "has no usr-policy in HOOKS");
                };
                let is_quiet = || {
                    let report = Report::of(system);
                    assert!(!report.text.contains("HOOKS"), "{}", report.text);
                };
                is_quiet();
                let drop_in = "/etc/mkinitcpio.conf.d/mine.conf";
                system.write(drop_in, "HOOKS=(base udev)\n");
                is_told(drop_in);
                let preset = "/etc/mkinitcpio.d/linux.preset";
                system.write(preset, "default_options=\"-A usr-policy\"\n");
                is_quiet();
                fs::remove_file(system.path(preset)).unwrap();
                fs::remove_file(system.path(drop_in)).unwrap();
                system.write(conf, "HOOKS=(base udev)\n");
                is_told(conf);
            });
        },
    ),
    (
        "what a type of units, a file of an environment and the manager ask for is read, and a masked verdict is told",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let lets = |path: &str| {
                    let report = Report::of(system);
                    report.exits(0);
                    report.says(
                        path,
                        "warning",
                        "merge with a writable layer: mutable mode yes",
                    );
                };
                const YES: &str = "SYSTEMD_SYSEXT_MUTABLE_MODE=yes";
                let unit = "/etc/systemd/system/systemd-sysext.service";
                system.write(unit, "[Service]\nExecStart=systemd-sysext refresh\n");
                let manager = "/etc/systemd/system.conf.d/mine.conf";
                system.write(manager, &format!("[Manager]\nDefaultEnvironment={YES}\n"));
                lets(manager);
                let prefix = "/etc/systemd/system/systemd-.service.d/mine.conf";
                system.write(prefix, &format!("[Service]\nEnvironment={YES}\n"));
                lets(prefix);
                let file = "/etc/default/sysext";
                system.write(file, &format!("{YES}\n"));
                let of_type = "/etc/systemd/system/service.d/own.conf";
                system.write(of_type, &format!("[Service]\nEnvironmentFile=-{file}\n"));
                lets(file);
                mask(system, "/etc/systemd/system/usr-policy-verify.service");
                Report::of(system).says(
                    "/etc/systemd/system/usr-policy-verify.service",
                    "warning",
                    "masks usr-policy-verify.service: boot-complete.target is reached without a verdict",
                );
            });
        },
    ),
    (
        "deep counts more directories than files may be open",
        || {
            System::with(STRICT, |system| {
                for number in 0..100 {
                    system.write(&format!("/var/tmp/{number}/in/it"), "x");
                }
                closed(system);
                let limited = ["prlimit", "--nofile=32", "/usr/bin/usr-policy"];
                let words = [&limited[..], &["verify", "--deep", "--all"]].concat();
                let report = Report::of_command(&mut system.command(&words));
                report.exits(0);
                report.says("/var/tmp", "warning", "100 files are hidden beneath it");
            });
        },
    ),
    (
        "empty directories beneath a tmpfs are nothing to tell",
        || {
            System::with(STRICT, |system| {
                fs::create_dir_all(system.path("/var/tmp/systemd-private-x/tmp")).unwrap();
                closed(system);
                for report in [Report::of(system), deep(system)] {
                    report.exits(0);
                    assert!(!report.text.contains("beneath"), "{}", report.text);
                }
            });
        },
    ),
    (
        "who is not root is told by deep that it could not be looked",
        || {
            changed(
                |_| {},
                |system, _| {
                    if !usr_policy_tests::privilege::has_other_users() {
                        return;
                    }
                    let words = ["/usr/bin/usr-policy", "verify", "--deep", "--all"];
                    let report = Report::of_command(&mut system.as_nobody(&words));
                    report.says("/var/tmp", "-", "could not be looked at");
                    let report = Report::for_nobody(system);
                    assert!(!report.text.contains("beneath"), "{}", report.text);
                },
            );
        },
    ),
    (
        "directories outside usr are named, and links into it are not",
        || {
            changed(
                |system| {
                    let sbin = system.path("/sbin");
                    fs::remove_file(&sbin).unwrap();
                    system.write("/sbin/x", "");
                    for (name, target) in [("libx32", "lib"), ("lib32", "srv/lib32")] {
                        let _ = fs::remove_file(system.path("/").join(name));
                        symlink(target, system.path("/").join(name)).unwrap();
                    }
                    system.write("/srv/lib32/x", "");
                },
                |system, report| {
                    report.exits(0);
                    report.says(
                        "/sbin, /lib32",
                        "warning",
                        "outside /usr, and can be written: what of the system lies there is not protected",
                    );
                    for path in ["/sbin", "/lib32"] {
                        assert!(!system.is_read_only(path));
                    }
                    assert!(system.is_read_only("/libx32"));
                    system.does(&["mount", "--bind", "-o", "ro", "/sbin", "/sbin"]);
                    let report = Report::of(system);
                    report.says("/sbin", "holds", "outside /usr, and read-only as well");
                    report.says("/lib32", "warning", "outside /usr");
                    // An empty directory is no half of a system.
                    system.does(&["umount", "/sbin"]);
                    system.does(&["rm", "/sbin/x", "/lib32"]);
                    assert!(!Report::of(system).text.contains("outside"));
                },
            );
        },
    ),
    (
        "a system with its programs in a store has nothing in usr, and the store is judged",
        || {
            System::with(STRICT, |system| {
                system.write("/nix/store/x/bin/sh", "");
                system.does(&["mount", "--bind", "-o", "ro", "/nix/store", "/nix/store"]);
                tmpfs(&system.path("/usr"), "mode=0755");
                fs::create_dir(system.path("/usr/bin")).unwrap();
                let program = installed().join("usr/bin/usr-policy");
                fs::copy(program, system.path("/usr/bin/usr-policy")).unwrap();
                let report = Report::of(system);
                report.says("/usr", "BROKEN", "writable");
                let what = "holds the programs of this system in place of /usr, and is read-only";
                report.says("/nix/store", "holds", what);
                assert!(system.is_read_only("/nix/store"));
                umount2(&system.path("/nix/store"), MntFlags::MNT_DETACH).unwrap();
                let what = "in place of /usr, and can be written";
                Report::of(system).says("/nix/store", "warning", what);
                assert!(!system.is_read_only("/nix/store"));
            });
        },
    ),
    (
        "masks, drop-ins and lines of fstab that would undo it later are warnings",
        || {
            changed(
                |system| {
                    mask(system, "/etc/systemd/system/usr-policy-follow.service");
                    mask(
                        system,
                        "/etc/systemd/system-generators/usr-policy-generator",
                    );
                    system.write(
                        "/etc/systemd/system/usr-policy-lock.service.d/off.conf",
                        "[Service]\nExecStart=\n",
                    );
                    system.write(
                        "/run/systemd/system/usr.mount",
                        "[Mount]\nWhat=/dev/vdb\nWhere=/usr\nOptions=rw\n",
                    );
                    system.write("/etc/fstab", "# x\n/dev/vdc /usr/local ext4 rw 0 2\n");
                },
                |_, report| {
                    report.exits(0);
                    for (subject, what) in [
                        (
                            "/etc/systemd/system/usr-policy-follow.service",
                            "masks usr-policy-follow.service",
                        ),
                        (
                            "/etc/systemd/system-generators/usr-policy-generator",
                            "nothing locks the database",
                        ),
                        (
                            "/etc/systemd/system/usr-policy-lock.service.d/off.conf",
                            "takes /usr/lib/usr-policy/usr-policy-generator out of usr-policy-lock.service",
                        ),
                        (
                            "/run/systemd/system/usr.mount",
                            "makes usr.mount a mount that can be written",
                        ),
                        (
                            "/etc/fstab:2",
                            "mounts /usr/local writable at the next boot",
                        ),
                    ] {
                        report.says(subject, "warning", what);
                    }
                },
            );
        },
    ),
    (
        "a generator and drop-ins of the administrator that change nothing are nothing to tell",
        || {
            changed(
                |system| {
                    let generator =
                        system.path("/etc/systemd/system-generators/usr-policy-generator");
                    fs::create_dir_all(generator.parent().unwrap()).unwrap();
                    symlink("/usr/lib/usr-policy/usr-policy-generator", generator).unwrap();
                    system.write(
                        "/etc/systemd/system/usr-policy-lock.service.d/slow.conf",
                        "[Service]\nTimeoutStartSec=90\n",
                    );
                    system.write("/etc/fstab", "/dev/vdc /usr/local ext4 ro 0 2\n");
                },
                |_, report| assert!(!report.text.contains("warning"), "{}", report.text),
            );
        },
    ),
];
