//! Systems that others lay out, made of real mounts: what verify says of each, and what a write says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use serde_json::Value;
use usr_policy_tests::golden::chroot;
use usr_policy_tests::privilege::{bind, in_own_mounts, tmpfs};
use usr_policy_tests::system::{Scratch, installed};
use usr_policy_tests::verdict;

use crate::STRICT;

/// A root that a process of its own is PID 1 of.
struct Layout {
    scratch: Scratch,
}

/// What verify says of it.
struct Said {
    exit: i32,
    text: String,
    object: Value,
}

impl Layout {
    /// Calls a function with one, in a mount namespace of its own.
    fn with(function: impl FnOnce(&Layout) + Send) {
        in_own_mounts(|| {
            let scratch = Scratch::new();
            let layout = Layout { scratch };
            for name in ["root", "image", "etc", "var", "run"] {
                fs::create_dir(layout.base(name)).unwrap();
            }
            fs::write(layout.base("etc/fstab"), "").unwrap();
            for path in ["tmp", "log", "lib/systemd"] {
                fs::create_dir_all(layout.base("var").join(path)).unwrap();
            }
            // sd_booted(3)
            fs::create_dir_all(layout.base("run/systemd/system")).unwrap();
            fs::write(layout.base("run/cmdline"), format!("{STRICT}\n")).unwrap();
            function(&layout);
        });
    }

    fn base(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A path of the root, as the test sees it.
    fn path(&self, path: &str) -> PathBuf {
        self.base("root").join(path.trim_start_matches('/'))
    }

    /// Makes directories of the image, before it is mounted.
    fn has(&self, directories: &[&str]) {
        for path in directories {
            fs::create_dir_all(self.base("image").join(path)).unwrap();
        }
    }

    /// Mounts this machine's root, with the installed tree and the image's own directories over it; with an upper layer it
    /// can be written.
    fn overlay(&self, source: &str, at: &str, has_upper: bool) {
        let mut options = format!(
            "lowerdir={}:{}:/",
            self.base("image").display(),
            installed().display()
        );
        if has_upper {
            for name in ["upper", "work"] {
                fs::create_dir(self.base(name)).unwrap();
            }
            options += &format!(
                ",upperdir={},workdir={}",
                self.base("upper").display(),
                self.base("work").display()
            );
        }
        let flags = if has_upper {
            MsFlags::empty()
        } else {
            MsFlags::MS_RDONLY
        };
        let at = self.path(at);
        mount(
            Some(source),
            &at,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
    }

    /// What every one of them has beside its root: its state, what is there from boot to boot, and what is in memory.
    fn has_state(&self) {
        bind(&self.base("var"), &self.path("/var"));
        bind(&self.base("run"), &self.path("/run"));
        bind(Path::new("/dev"), &self.path("/dev"));
        // As the unit of the policy does.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = Some("mode=1777,size=25%");
        let at = self.path("/var/tmp");
        mount(Some("tmpfs"), &at, Some("tmpfs"), flags, options).unwrap();
    }

    fn binds_etc(&self) {
        bind(&self.base("etc"), &self.path("/etc"));
    }

    /// A deployment of ostree, of a disk of its own, as the root: what `/usr` needs to start the programs is copied there.
    fn deploys(&self) {
        let deployment = self.base("ostree/deploy/fedora/deploy/0a1b.0");
        for name in ["etc", "var", "run", "dev", "proc", "usr/lib/usr-policy"] {
            fs::create_dir_all(deployment.join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(deployment.join("usr").join(name)).unwrap();
            symlink(Path::new("usr").join(name), deployment.join(name)).unwrap();
        }
        let copy = |from: &Path, to: &str| {
            let to = deployment.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        copy(
            &installed().join("usr/bin/usr-policy"),
            "usr/bin/usr-policy",
        );
        for name in ["sh", "mount", "umount"] {
            let path = format!("/usr/bin/{name}");
            copy(Path::new(&path), &path);
        }
        let mut ldd = Command::new("ldd");
        ldd.arg(installed().join("usr/bin/usr-policy"));
        let ran = ldd.args(["/usr/bin/sh", "/usr/bin/mount", "/usr/bin/umount"]);
        let libraries = String::from_utf8(ran.output().unwrap().stdout).unwrap();
        let mut libraries: Vec<&str> = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/') && !word.ends_with(':'))
            .collect();
        libraries.sort_unstable();
        libraries.dedup();
        assert!(libraries.len() > 2, "{libraries:?}");
        for library in libraries {
            // Through the links of the root.
            copy(Path::new(library), library);
        }
        bind(&deployment, &self.path("/"));
        bind(&self.path("/usr"), &self.path("/usr"));
        self.remount("/usr", MsFlags::MS_RDONLY);
    }

    /// `/etc` as an overlay with its upper layer in `/var`, over what the image has.
    fn overlays_etc(&self) {
        let state = self.base("var/lib/overlay");
        for name in ["upper", "work"] {
            fs::create_dir_all(state.join(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={state}/upper,workdir={state}/work",
            self.base("etc").display(),
            state = state.display()
        );
        mount(
            Some("overlay"),
            &self.path("/etc"),
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
    }

    /// Changes the flags of a mount alone.
    fn remount(&self, path: &str, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        let path = self.path(path);
        mount(None::<&str>, &path, None::<&str>, flags, None::<&str>).unwrap();
    }

    /// Asks verify in every form; PID 1 is a shell with this root.
    fn verify(&self) -> Said {
        let ask = |form: &str| {
            let script =
                "mount -t proc proc /proc && mount --bind /run/cmdline /proc/cmdline || exit 99
                usr-policy verify \"$0\"; exit=$?; umount --recursive /proc; exit $exit";
            let mut unshared = chroot(&self.base("root"));
            unshared.args(["--pid", "--fork", "sh", "-c", script, form]);
            unshared.env_clear().env("PATH", "/usr/sbin:/usr/bin");
            let ran = unshared.output().unwrap();
            assert!(ran.stderr.is_empty(), "{ran:?}");
            let text = String::from_utf8(ran.stdout).unwrap();
            (ran.status.code().unwrap(), text)
        };
        let (exit, text) = ask("--all");
        let (exit_of_json, json) = ask("--json");
        let object = verdict::object(&json).unwrap();
        assert_eq!(exit_of_json, exit, "{json}");
        assert_eq!(object["exit_code"], exit, "{json}");
        let (exit_of_metrics, metrics) = ask("--format=metrics");
        assert_eq!(exit_of_metrics, exit);
        verdict::metrics(&metrics).unwrap();
        Said { exit, text, object }
    }

    /// Whether a write meets a read-only file system.
    fn is_read_only(&self, directory: &str) -> bool {
        let probe = self.path(directory).join(".probe");
        match fs::write(&probe, "") {
            Ok(()) => {
                fs::remove_file(probe).unwrap();
                false
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS), "{directory}");
                true
            }
        }
    }

    /// Where verify says that something holds or is broken, a write says the same.
    fn agrees(&self, said: &Said) {
        let mut tried = 0;
        for finding in said.object["findings"].as_array().unwrap() {
            let text = |key: &str| finding[key].as_str().unwrap();
            let is_claimed = match text("what") {
                what if what.starts_with("read-only") => true,
                what if what.starts_with("outside /usr, and read-only") => true,
                what if what.starts_with("outside /usr, and can be written") => false,
                what if what.starts_with("writable") || what.starts_with("a writable") => false,
                _ => continue,
            };
            for path in text("subject").split(", ") {
                assert_eq!(self.is_read_only(path), is_claimed, "{finding}");
                tried += 1;
            }
        }
        assert!(tried > 3, "{tried} claims are too few: {}", said.text);
    }
}

impl Said {
    #[track_caller]
    fn says(&self, subject: &str, verdict: &str, what: &str) {
        let mut findings = self.object["findings"].as_array().unwrap().iter();
        let is_said = findings.any(|finding| {
            finding["subject"] == subject
                && finding["verdict"] == verdict
                && finding["what"].as_str().unwrap().starts_with(what)
        });
        assert!(is_said, "not {verdict} {subject}: {what}\n{}", self.text);
    }

    #[track_caller]
    fn exits(&self, exit: i32) {
        assert_eq!(self.exit, exit, "{}", self.text);
    }
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "ostree and bootc: usr is read-only by the composefs that is the root",
        || {
            Layout::with(|layout| {
                layout.has(&["sysroot", "ostree"]);
                layout.overlay("composefs", "/", false);
                layout.has_state();
                layout.binds_etc();
                // The disk, read-only as ostree has it.
                fs::create_dir_all(layout.base("disk/ostree/repo")).unwrap();
                bind(&layout.base("disk"), &layout.path("/sysroot"));
                layout.remount("/sysroot", MsFlags::MS_RDONLY);
                bind(&layout.base("disk/ostree"), &layout.path("/ostree"));
                let said = layout.verify();
                said.exits(0);
                said.says("/usr", "holds", "read-only by its file system, composefs");
                for path in ["/etc", "/run", "/var/log"] {
                    said.says(path, "holds", "writable");
                }
                layout.agrees(&said);

                // ostree admin unlock, bootc usr-overlay: the upper layer is in memory.
                for name in ["usr-upper", "usr-work"] {
                    fs::create_dir(layout.base(name)).unwrap();
                }
                let options = format!(
                    "lowerdir={}:/usr,upperdir={},workdir={}",
                    installed().join("usr").display(),
                    layout.base("usr-upper").display(),
                    layout.base("usr-work").display()
                );
                mount(
                    Some("overlay"),
                    &layout.path("/usr"),
                    Some("overlay"),
                    MsFlags::empty(),
                    Some(options.as_str()),
                )
                .unwrap();
                let said = layout.verify();
                said.exits(1);
                said.says("/usr", "broken", "writable");
                layout.agrees(&said);
            });
        },
    ),
    (
        "ostree without composefs: usr is a bind of the deployment, mounted read-only",
        || {
            Layout::with(|layout| {
                layout.deploys();
                layout.has_state();
                let said = layout.verify();
                said.exits(0);
                let by = "read-only by ostree, of a deployment that is mounted so";
                said.says("/usr", "holds", by);
                layout.agrees(&said);

                layout.remount("/usr", MsFlags::empty());
                let said = layout.verify();
                said.exits(1);
                said.says("/usr", "broken", "writable");
                layout.agrees(&said);
            });
        },
    ),
    (
        "SteamOS: a root that cannot be written, with etc as an overlay and var on a partition of its own",
        || {
            // The property of its btrfs subvolume is in the tables of src/plan: no btrfs is mounted here.
            Layout::with(|layout| {
                layout.overlay("root", "/", false);
                layout.has_state();
                layout.overlays_etc();
                tmpfs(&layout.path("/home"), "");
                layout.remount("/", MsFlags::empty());
                let said = layout.verify();
                said.exits(0);
                said.says("/usr", "holds", "read-only by its file system");
                said.says("/etc", "holds", "writable");
                layout.agrees(&said);
            });
        },
    ),
    (
        "openSUSE MicroOS: a root that is mounted read-only is named, and usr/local is a hole",
        || {
            Layout::with(|layout| {
                layout.overlay("root", "/", true);
                layout.has_state();
                layout.overlays_etc();
                tmpfs(&layout.path("/usr/local"), "");
                layout.remount("/", MsFlags::MS_RDONLY);
                let said = layout.verify();
                said.exits(0);
                let by = "read-only by the mount of its root, that is not usr-policy's";
                said.says("/usr", "holds", by);
                said.says(
                    "/usr/local",
                    "warning",
                    "a writable mount of its own below /usr",
                );
                layout.agrees(&said);

                // transactional-update opens a snapshot, not the running one; a remount of the root is told.
                layout.remount("/", MsFlags::empty());
                let said = layout.verify();
                said.exits(1);
                said.says("/usr", "broken", "writable");
                layout.agrees(&said);
            });
        },
    ),
    (
        "Gentoo with a usr of its own: the half that is not protected is named",
        || {
            Layout::with(|layout| {
                let own = ["bin", "sbin", "lib", "lib64"];
                layout.has(&own);
                for directory in own {
                    fs::write(layout.base("image").join(directory).join("own"), "").unwrap();
                }
                // What the programs below /usr are started by.
                let loader = "lib64/ld-linux-x86-64.so.2";
                let copied = layout.base("image").join(loader);
                fs::copy(Path::new("/").join(loader), copied).unwrap();
                layout.overlay("root", "/", true);
                layout.has_state();
                layout.binds_etc();
                bind(&layout.path("/usr"), &layout.path("/usr"));
                layout.remount("/usr", MsFlags::MS_RDONLY);
                let said = layout.verify();
                said.exits(0);
                said.says(
                    "/usr",
                    "holds",
                    "read-only by a mount that is not usr-policy's",
                );
                let halves = "/bin, /sbin, /lib, /lib64";
                said.says(halves, "warning", "outside /usr, and can be written");
                layout.agrees(&said);

                layout.remount("/", MsFlags::MS_RDONLY);
                let said = layout.verify();
                said.exits(0);
                said.says(halves, "holds", "outside /usr, and read-only as well");
                layout.agrees(&said);
            });
        },
    ),
    (
        "a container is promised nothing, and a root like one that says nothing of it is judged",
        || {
            Layout::with(|layout| {
                layout.overlay("overlay", "/", true);
                layout.has_state();
                layout.binds_etc();
                let said = layout.verify();
                said.exits(1);
                said.says("/usr", "broken", "writable");
                layout.agrees(&said);

                // What podman leaves on a host is no sign.
                fs::write(layout.base("run/.containerenv"), "").unwrap();
                layout.verify().exits(1);
                fs::write(layout.base("run/systemd/container"), "podman").unwrap();
                let said = layout.verify();
                said.exits(0);
                assert_eq!(
                    said.text,
                    "usr-policy: in a container: nothing is promised; its mounts are its manager's\n"
                );
                assert_eq!(said.object["findings"], Value::Array(Vec::new()));
            });
        },
    ),
];
