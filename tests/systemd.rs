//! The units against systemd's own programs: each golden folder's output together with what the real
//! systemd-fstab-generator(8) writes for the same root, as PID 1 would load both.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use nix::mount::{MsFlags, mount};
use tempfile::TempDir;
use usr_policy_tests::golden::{Case, Entry, Tree, argument, cases, tree, write};
use usr_policy_tests::privilege::{become_root, in_own_mounts};
use usr_policy_tests::product;

fn main() -> ExitCode {
    become_root();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = verified_cases()
        .into_iter()
        .map(|case| {
            Trial::test(case.name.clone(), move || {
                in_own_mounts(|| is_accepted(&case));
                Ok(())
            })
        })
        .collect();
    // As of writing there are 60 of them.
    assert!(trials.len() > 50, "the golden folders are not found");
    for (name, test) in OTHERS {
        trials.push(Trial::test(*name, move || {
            in_own_mounts(test);
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The folders with output that is all ours.
fn verified_cases() -> Vec<Case> {
    let mut cases = cases();
    cases.retain(|case| {
        !case.recorded().output.is_empty()
            && !case.folder.join("input/run/systemd/generator").exists()
    });
    cases
}

const OTHERS: &[(&str, fn())] = &[
    (
        "the units of the initramfs are accepted with /usr inside the root and on a disk of its own",
        units_of_the_initramfs,
    ),
    (
        "systemd-analyze notices a setting that does not exist",
        || {
            let said = verified_with("var-tmp.mount", "\n[Mount]\nFoo=bar\n");
            assert!(said.contains("Foo"), "{said}");
        },
    ),
    (
        "systemd-analyze notices a mount point that is not the unit's name",
        || {
            let said = verified_with("var-tmp.mount", "\n[Mount]\nWhere=/var/tmpx\n");
            assert!(said.contains("doesn't match unit name"), "{said}");
        },
    ),
    ("systemd-analyze notices an ordering cycle", || {
        let said = verified_with("var-tmp.mount", "\n[Unit]\nAfter=local-fs.target\n");
        assert!(said.contains("ordering cycle"), "{said}");
    }),
    (
        "systemd-analyze notices an order against the fsck of /usr, which is why the drop-in has none",
        || {
            let said = verified_with(
                "usr.mount.d/50-usr-policy.conf",
                "\n[Unit]\nBefore=local-fs-pre.target\n",
            );
            assert!(said.contains("ordering cycle"), "{said}");
        },
    ),
    (
        "systemd-analyze notices an order that the network cannot keep, which is why there is another target",
        || {
            install_over_usr();
            let case =
                Case::named("a-database-that-the-network-brings-is-locked-before-remote-fs-target");
            let both = together(&case.recorded().output, in_the_real_root(&case));
            for network in NETWORKS {
                let mut tree = with_network(both.clone(), network);
                assert_eq!(Units::new(&tree).verify(&TARGETS), "");
                let path = Path::new("normal/usr-policy-lock.service.d/50-usr-policy.conf");
                let Some(Entry::File(bytes)) = tree.get_mut(path) else {
                    panic!("{}: no such file", path.display());
                };
                bytes.extend_from_slice(b"Before=local-fs.target\n");
                let said = Units::new(&tree).verify(&TARGETS);
                assert!(said.contains("ordering cycle"), "{said}");
            }
        },
    ),
    (
        "what fstab brings late, and the boot does not wait for, is not waited for because of us either",
        what_comes_late,
    ),
    (
        "whoever marks a boot as good does so after the verdict, as systemd-bless-boot does",
        || {
            install_over_usr();
            let case =
                Case::named("strict-closes-usr-and-the-database-and-puts-the-rest-in-memory");
            let both = together(&case.recorded().output, in_the_real_root(&case));
            let said = |order: &str| {
                let service = format!(
                    "[Unit]\n{order}\nRequires=boot-complete.target\nAfter=boot-complete.target\n\
                     [Service]\nType=oneshot\nExecStart=/bin/true\n"
                );
                let mut tree = both.clone();
                tree.insert(
                    "normal/test-bless.service".into(),
                    Entry::File(service.into_bytes()),
                );
                tree.insert(
                    "normal/multi-user.target.wants/test-bless.service".into(),
                    Entry::Link("../test-bless.service".into()),
                );
                Units::new(&tree).verify(&TARGETS)
            };
            assert_eq!(said("DefaultDependencies=no"), "");
            assert_eq!(said("After=multi-user.target"), "");
            // The manual warns of it.
            let cycle = said("");
            assert!(cycle.contains("ordering cycle"), "{cycle}");
        },
    ),
    (
        "systemd-fstab-generator would write a unit of ours if we did not leave it to fstab",
        the_real_generator_writes,
    ),
    ("systemd-escape makes the same unit names", unit_names),
];

/// The installed tree over the system's own /usr: systemd looks for units and programs there.
fn install_over_usr() {
    let stage = product::stage().join("usr").into_os_string().into_vec();
    let options = [b"lowerdir=", stage.as_slice(), b":/usr"].concat();
    let options = OsStr::from_bytes(&options);
    mount(
        Some("overlay"),
        "/usr",
        Some("overlay"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
}

/// Where systemd finds units, in its order.
struct Units {
    directory: TempDir,
}

impl Units {
    fn new(tree: &Tree) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["early", "normal", "late"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        write(directory.path(), tree);
        Units { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What systemd-analyze says about these units and everything that they pull in. Its exit code says nothing: it is 0
    /// even for an unknown setting.
    fn verify(&self, units: &[&str]) -> String {
        let system = Path::new("/usr/lib/systemd/system");
        let path = [
            &self.path("early"),
            &self.path("normal"),
            system,
            &self.path("late"),
        ]
        .map(|path| path.to_str().unwrap())
        .join(":");
        let ran = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--"])
            .args(units)
            .env("SYSTEMD_UNIT_PATH", path)
            .env("SYSTEMD_LOG_LEVEL", "info")
            .env("SYSTEMD_LOG_COLOR", "0")
            .output()
            .unwrap();
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    }
}

/// The targets through which all our units are pulled in.
const TARGETS: [&str; 5] = [
    "local-fs.target",
    "sysinit.target",
    "remote-fs.target",
    "multi-user.target",
    "boot-complete.target",
];

/// What the real systemd-fstab-generator writes for a folder's root.
fn fstab_generator(case: &Case, stage: &[(&str, &OsStr)]) -> Tree {
    let output = tempfile::tempdir().unwrap();
    let directories = ["normal", "early", "late"].map(|name| output.path().join(name));
    for directory in &directories {
        fs::create_dir(directory).unwrap();
    }
    // No variable can hold a NUL, which separates words as a blank does.
    let cmdline: Vec<u8> = case
        .cmdline()
        .unwrap()
        .into_iter()
        .map(|byte| if byte == 0 { b' ' } else { byte })
        .collect();
    let ran = Command::new("/usr/lib/systemd/system-generators/systemd-fstab-generator")
        .args(&directories)
        .env("SYSTEMD_PROC_CMDLINE", argument(&cmdline))
        .envs(stage.iter().copied())
        .output()
        .unwrap();
    // It exits 1 for a line that it cannot read, and writes the rest.
    assert!(ran.status.code().is_some(), "{ran:?}");
    tree(output.path())
}

fn in_the_real_root(case: &Case) -> Tree {
    let fstab = case.folder.join("input/etc/fstab");
    let environment = [
        ("SYSTEMD_IN_INITRD", OsStr::new("0")),
        ("SYSTEMD_FSTAB", fstab.as_os_str()),
        ("SYSTEMD_SYSROOT_FSTAB", OsStr::new("/nonexistent")),
    ];
    fstab_generator(case, &environment)
}

/// Ours and fstab-generator's, which never write the same file; links may coincide.
fn together(ours: &Tree, theirs: Tree) -> Tree {
    let mut both = theirs;
    for (path, entry) in ours {
        let other = both.insert(path.clone(), entry.clone());
        if let Some(other) = other {
            assert!(
                matches!((&other, entry), (Entry::Link(_), Entry::Link(_))),
                "{}: systemd-fstab-generator writes it too",
                path.display()
            );
        }
    }
    both
}

/// A network that is up when the local file systems are, as with ifupdown, and one that needs more than that, as with
/// NetworkManager: what the network brings must not be ordered before either.
const NETWORKS: [&str; 2] = [
    "DefaultDependencies=no\nAfter=local-fs.target\nConflicts=shutdown.target\nBefore=shutdown.target",
    "",
];

/// Adds a network, of which network-online.target consists.
fn with_network(mut tree: Tree, network: &str) -> Tree {
    let service = format!(
        "[Unit]\n{network}\nBefore=network.target network-online.target\nWants=network.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n"
    );
    let mut add = |path: &str, entry| tree.insert(PathBuf::from(path), entry);
    add(
        "normal/test-network.service",
        Entry::File(service.into_bytes()),
    );
    add(
        "normal/network-online.target.wants/test-network.service",
        Entry::Link("../test-network.service".into()),
    );
    tree
}

fn is_accepted(case: &Case) {
    install_over_usr();
    let ours = case.recorded().output;
    let theirs = in_the_real_root(case);
    let both = together(&ours, theirs.clone());
    let is_remote = |path: &PathBuf| path.to_string_lossy().contains("remote-fs.target");
    if !both.keys().any(is_remote) {
        // Nothing comes with the network, and nothing starts one.
        return is_accepted_with(&ours, &both);
    }
    let mut accepted = 0;
    for network in NETWORKS {
        // A machine may have a cycle without us; that is not ours to mend.
        let alone = Units::new(&with_network(theirs.clone(), network)).verify(&TARGETS);
        if !alone.contains("ordering cycle") {
            is_accepted_with(&ours, &with_network(both.clone(), network));
            accepted += 1;
        }
    }
    assert!(accepted > 0, "no network suits this machine");
}

fn is_accepted_with(ours: &Tree, both: &Tree) {
    let units = Units::new(both);
    let mut names: BTreeSet<&str> = TARGETS.into();
    names.extend([
        "usr-policy-apply.service",
        "usr-policy-lock.service",
        "usr-policy-verify.service",
    ]);
    names.extend(ours.keys().filter_map(|path| {
        // A colon would make it "file:alias" to systemd-analyze; local-fs.target pulls those in.
        let name = path.file_name()?.to_str()?;
        (name.ends_with(".mount") && !name.contains(':')).then_some(name)
    }));
    let names: Vec<&str> = names.into_iter().collect();
    assert_eq!(units.verify(&names), "", "{names:?}");
}

/// Lines of fstab with which a machine boots, and a place of the database of its own: what they mount may need all that
/// comes after the local file systems.
const LATE: &[(&str, &str)] = &[
    (
        "nas:/srv /srv nfs nofail\n/srv/cache /var/cache none bind,nofail\n",
        "",
    ),
    (
        "/dev/mapper/data /var/cache ext4 nofail,x-systemd.requires=unlock-data.service\n",
        "",
    ),
    (
        "/dev/mapper/data /var/lib/pacman ext4 nofail,x-systemd.requires=unlock-data.service\n",
        "",
    ),
    (
        "/dev/mapper/data /var/lib ext4 nofail,x-systemd.requires=unlock-data.service\n",
        "",
    ),
    (
        "nas:/srv /srv nfs nofail\n/srv/db /var/lib/pacman none bind,nofail\n",
        "",
    ),
    (
        "/dev/mapper/data /mnt/data ext4 nofail,x-systemd.requires=unlock-data.service\n",
        "/mnt/data/pacman",
    ),
    (
        "/dev/mapper/data /mnt/data ext4 noauto,x-systemd.requires=unlock-data.service\n",
        "/mnt/data/pacman",
    ),
    (
        "/dev/mapper/data /mnt/data ext4 nofail,noauto,x-systemd.requires=unlock-data.service\n",
        "/mnt/data/pacman",
    ),
    (
        "/dev/mapper/data /mnt/data ext4 nofail,noauto,x-systemd.automount,x-systemd.requires=unlock-data.service\n",
        "/mnt/data/pacman",
    ),
    // The other way round a machine has a cycle without us.
    (
        "/dev/vdb /var ext4 rw\n/dev/mapper/data /var/lib ext4 nofail,x-systemd.requires=unlock-data.service\n",
        "",
    ),
];

fn what_comes_late() {
    install_over_usr();
    let unlock = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
    let unlock = Entry::File(unlock.as_bytes().to_vec());
    let mut cycles = Vec::new();
    for (fstab, database) in LATE {
        let directory = tempfile::tempdir().unwrap();
        let case = Case {
            name: (*fstab).to_owned(),
            folder: directory.path().to_owned(),
        };
        let input = directory.path().join("input");
        fs::create_dir_all(input.join("proc")).unwrap();
        fs::create_dir_all(input.join("etc")).unwrap();
        fs::write(input.join("proc/cmdline"), "rw usrpolicy=strict\n").unwrap();
        fs::write(
            input.join("etc/fstab"),
            format!("LABEL=root / ext4 rw\n{fstab}"),
        )
        .unwrap();
        if !database.is_empty() {
            let text = format!("[options]\nDBPath = {database}\n");
            fs::write(input.join("etc/pacman.conf"), text).unwrap();
        }
        let mut theirs = with_network(in_the_real_root(&case), "");
        theirs.insert("normal/unlock-data.service".into(), unlock.clone());
        assert_eq!(Units::new(&theirs).verify(&TARGETS), "", "{fstab}");
        let said = Units::new(&together(&case.run().output, theirs)).verify(&TARGETS);
        if !said.is_empty() {
            cycles.push(format!("{fstab}{said}"));
        }
    }
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

/// What systemd-analyze says when `text` is added to a file of the folder that has all kinds of entries.
fn verified_with(name: &str, text: &str) -> String {
    install_over_usr();
    let case = Case::named("usr-in-fstab-gets-a-drop-in-and-an-fstab-without-it");
    let mut both = together(&case.recorded().output, in_the_real_root(&case));
    assert_eq!(Units::new(&both).verify(&TARGETS), "");
    match both.get_mut(&Path::new("normal").join(name)) {
        Some(Entry::File(bytes)) => bytes.extend_from_slice(text.as_bytes()),
        other => panic!("{name}: {other:?}"),
    }
    Units::new(&both).verify(&TARGETS)
}

fn units_of_the_initramfs() {
    install_over_usr();
    for (name, sysroot_usr) in [
        (
            "strict-closes-usr-and-the-database-and-puts-the-rest-in-memory",
            false,
        ),
        ("usr-in-fstab-gets-a-drop-in-and-an-fstab-without-it", true),
    ] {
        let case = Case::named(name);
        let fstab = case.folder.join("input/etc/fstab");
        let environment = [
            ("SYSTEMD_IN_INITRD", OsStr::new("1")),
            ("SYSTEMD_FSTAB", OsStr::new("/nonexistent")),
            ("SYSTEMD_SYSROOT_FSTAB", fstab.as_os_str()),
        ];
        let theirs = fstab_generator(&case, &environment);
        assert!(theirs.contains_key(Path::new("normal/sysroot.mount")));
        assert_eq!(
            theirs.contains_key(Path::new("normal/sysroot-usr.mount")),
            sysroot_usr
        );
        let units = Units::new(&theirs);
        // As both initramfs generators link them.
        for (target, unit) in [
            ("initrd-root-fs.target", "usr-policy-early.service"),
            ("initrd-fs.target", "usr-policy-late.service"),
        ] {
            let wants = units.path("normal").join(format!("{target}.wants"));
            fs::create_dir_all(&wants).unwrap();
            symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(unit)).unwrap();
        }
        let names = [
            "initrd.target",
            "initrd-root-fs.target",
            "initrd-fs.target",
            "initrd-switch-root.target",
            "usr-policy-early.service",
            "usr-policy-late.service",
        ];
        assert_eq!(units.verify(&names), "", "{name}");

        // The order that makes sense of them is one that systemd can see.
        let late = units.path("early").join("usr-policy-late.service.d");
        fs::create_dir_all(&late).unwrap();
        fs::write(late.join("cycle.conf"), "[Unit]\nAfter=initrd.target\n").unwrap();
        let said = units.verify(&names);
        assert!(said.contains("ordering cycle"), "{name}: {said}");
    }
}

fn the_real_generator_writes() {
    for (name, unit) in [
        ("var-tmp-in-fstab-is-left-to-fstab", "normal/var-tmp.mount"),
        (
            "the-database-on-a-disk-of-its-own-is-locked-once-it-is-mounted",
            "normal/var-lib-pacman.mount",
        ),
        (
            "usr-in-fstab-gets-a-drop-in-and-an-fstab-without-it",
            "normal/usr.mount",
        ),
    ] {
        let theirs = in_the_real_root(&Case::named(name));
        assert!(
            matches!(theirs.get(Path::new(unit)), Some(Entry::File(_))),
            "{name}: {theirs:?}"
        );
    }
}

fn unit_names() {
    let mut compared = BTreeSet::new();
    for case in verified_cases() {
        for (path, entry) in case.recorded().output {
            let (Some(name), Entry::File(bytes)) =
                (path.file_name().and_then(OsStr::to_str), entry)
            else {
                continue;
            };
            if !name.ends_with(".mount") || !compared.insert(name.to_owned()) {
                continue;
            }
            let text = String::from_utf8(bytes).unwrap();
            let mount_point = text
                .lines()
                .find_map(|line| line.strip_prefix("Where="))
                .unwrap();
            let ran = Command::new("systemd-escape")
                .args(["--path", "--suffix=mount", "--"])
                .arg(mount_point.replace("%%", "%"))
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&ran.stdout).trim_end(),
                name,
                "{mount_point}"
            );
        }
    }
    assert!(compared.len() > 10, "{compared:?}");
}
