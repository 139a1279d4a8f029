use std::string::ToString;
use std::vec;

use super::*;
use crate::cmdline::Cmdline;
use crate::config::ConfigFile;
use crate::lock::{Extensions, Manual};

const ROOT: &str = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda2 rw\n";
const USR: &str = "40 27 254:0 /usr /usr ro,relatime - ext4 /dev/vda2 rw\n";
const SYSEXT: &str = "50 40 0:40 / /usr ro,relatime - overlay sysext ro,lowerdir=/a:/b\n";
const TMPFS: &str = "60 27 0:50 / /var/tmp rw,nosuid,nodev - tmpfs tmpfs rw\n";

/// A machine, and what is asked of it.
struct Asking {
    cmdline: &'static str,
    configuration: &'static str,
    fstab: &'static str,
    looked: Looked,
}

fn point(path: &str) -> MountPoint {
    MountPoint::new(path.as_bytes()).unwrap()
}

/// A path that is there, on the last of these mounts.
fn asking(mounts: &[&str], path: &str) -> Asking {
    let mounts = MountTable::parse(mounts.concat().as_bytes());
    assert_eq!(mounts.bad_lines, []);
    Asking {
        cmdline: "usrpolicy=strict",
        configuration: "",
        fstab: "",
        looked: Looked {
            asked: point(path),
            path: point(path),
            nearest: point(path),
            is_directory: false,
            mount_id: None,
            access: Access::NoWitness,
            mounts,
            extensions: Vec::new(),
            packages: None,
            state: State::default(),
            is_guarded: true,
            now: 0,
            notes: Vec::new(),
        },
    }
}

fn extension(name: &str, ships: Ships) -> Extension {
    Extension {
        name: name.to_string(),
        source: Some(format!("/var/lib/extensions/{name}")),
        is_merged: true,
        ships,
    }
}

impl Asking {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn lines(&self) -> Vec<Line> {
        let facts = Facts {
            cmdline: Cmdline::parse(self.cmdline.as_bytes()),
            configuration: vec![ConfigFile {
                path: b"/etc/usr-policy.conf".to_vec(),
                text: self.configuration.into(),
            }],
            fstab: Some(self.fstab.into()),
            database: None,
        };
        explain(&facts, &Plan::new(&facts), &self.looked)
    }

    #[track_caller]
    fn says(&self, key: &str, what: &str) {
        let lines = self.lines();
        let found = lines.iter().find(|line| line.key == key);
        assert_eq!(
            found.map(|line| line.what.as_str()),
            Some(what),
            "{lines:#?}"
        );
    }

    #[track_caller]
    fn ends(&self, key: &str, what: &str) {
        let lines = self.lines();
        let found = lines.iter().find(|line| line.key == key).unwrap();
        assert!(found.what.ends_with(what), "not \"{what}\": {found:#?}");
    }

    #[track_caller]
    fn is_silent_about(&self, key: &str) {
        let lines = self.lines();
        assert!(lines.iter().all(|line| line.key != key), "{lines:#?}");
    }
}

#[test]
fn each_of_the_two_flags_is_told_from_the_other() {
    let told = |mount: &str, what: &str| {
        asking(&[ROOT, mount], "/usr/x").says("mount", what);
    };
    told(
        USR,
        "/usr: ext4 of /dev/vda2, a bind of the directory on itself, read-only by its own flag, on a writable file system (ro,relatime)",
    );
    told(
        "40 27 254:1 / /usr rw - erofs /dev/vda3 ro\n",
        "/usr: erofs of /dev/vda3, read-only by its file system (rw)",
    );
    told(
        "40 27 254:1 / /usr ro - ext4 /dev/vda3 ro,errors=remount-ro\n",
        "/usr: ext4 of /dev/vda3, read-only by its own flag and by its file system (ro)",
    );
    told(
        "40 27 254:1 / /usr rw - ext4 /dev/vda3 rw,errors=remount-ro\n",
        "/usr: ext4 of /dev/vda3, writable (rw)",
    );
}

#[test]
fn a_table_without_the_mount_is_said_and_nothing_is_made_up() {
    let asked = asking(&[], "/srv/x");
    asked.says("mount", "none in the mount table holds it");
    asked.says("rule", "none: usr-policy leaves it to others");
    asked.says("change", "see findmnt for what is mounted");
    asked.says(
        "write",
        "the mount is writable; whether you may, owner and mode decide",
    );
}

#[test]
fn the_line_of_fstab_that_mounts_it_is_named() {
    let home = "70 27 254:3 / /home rw - ext4 /dev/vda4 rw\n";
    let asked = asking(&[ROOT, home], "/home/me").with(|asked| {
        asked.fstab = "# comment\n/dev/vda4 /home ext4 defaults 0 2\n";
        asked.looked.access = Access::Writable;
    });
    asked.says(
        "mount",
        "/home: ext4 of /dev/vda4, writable (rw), mounted by /etc/fstab:2",
    );
    asked.says("rule", "none: usr-policy leaves it to /etc/fstab:2");
    asked.says("change", "nothing of usr-policy is in the way");
    let asked = asked.with(|asked| asked.fstab = "");
    asked.says(
        "rule",
        "none: usr-policy leaves it to whoever mounts /home (home.mount)",
    );
}

#[test]
fn what_others_close_or_keep_in_memory_is_theirs() {
    let closed = asking(&["27 1 254:0 / / ro - ext4 /dev/vda2 ro\n"], "/srv/x");
    closed.says(
        "change",
        "not by usr-policy, which does not close it: what mounts the root file system decides",
    );
    let memory = asking(&[ROOT, "60 27 0:50 / /tmp rw - tmpfs tmpfs rw\n"], "/tmp/x");
    memory.says(
        "reboot",
        "what is written there is gone: tmpfs is in memory",
    );
    memory.says(
        "change",
        "to keep it, put it elsewhere; whoever mounts /tmp (tmp.mount) decides that this is in memory",
    );
    asking(&[ROOT, "60 27 0:50 / /proc rw - proc proc rw\n"], "/proc/x")
        .says("reboot", "nothing there is kept: the kernel makes it");
    asking(&[ROOT], "/srv/x").says(
        "change",
        "nothing of usr-policy is in the way; see ls -ld for owner and mode",
    );
}

#[test]
fn read_only_without_a_flag_is_not_taken_for_a_lock() {
    asking(&[ROOT], "/srv/x").with(|asked| asked.looked.access = Access::ReadOnly).says(
        "write",
        "no, not even by root: read-only although no flag of the mount says so, as a subvolume of btrfs can be",
    );
}

#[test]
fn a_rule_names_who_asked_for_it() {
    let asked = asking(&[ROOT, TMPFS], "/var/tmp/x");
    asked.says(
        "rule",
        "/var/tmp tmpfs mode=1777,size=25%,nosuid,nodev, by default under strict (/proc/cmdline): transient state",
    );
    asked.ends(
        "change",
        "from the next boot on: usrpolicy.path=/var/tmp:rw on the kernel command line, or Treatment=rw below [Path:/var/tmp] in /etc/usr-policy.conf",
    );
    let asked = asked.with(|asked| asked.configuration = "[Path:/var/tmp]\nSize=1g\n");
    asked.says(
        "rule",
        "/var/tmp tmpfs mode=1777,size=1g,nosuid,nodev, by /etc/usr-policy.conf:2: transient state",
    );
    asked.says(
        "change",
        "to keep it, put it elsewhere; or leave /var/tmp on the disk from the next boot on: Treatment=rw at /etc/usr-policy.conf:2",
    );
    let asked = asked.with(|asked| {
        asked.cmdline = "usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=2g";
    });
    asked.says(
        "rule",
        "/var/tmp tmpfs mode=1777,size=2g,nosuid,nodev, by usrpolicy.path= in /proc/cmdline: transient state",
    );
    asked.ends(
        "change",
        "usrpolicy.path=/var/tmp:rw on the kernel command line, in place of that word",
    );
}

#[test]
fn a_rule_that_is_not_carried_out_says_so() {
    let asked = |cmdline| {
        asking(&[ROOT], "/var/tmp/x").with(|asked| {
            asked.cmdline = cmdline;
            asked.fstab = "/dev/vda5 /var/tmp ext4 defaults 0 2\n";
            asked.looked.access = Access::Writable;
        })
    };
    asked("usrpolicy=audit").says(
        "rule",
        "/var/tmp tmpfs mode=1777,size=25%,nosuid,nodev, by default: transient state; not carried out: usrpolicy is audit (/proc/cmdline)",
    );
    let left_out = asked("usrpolicy=strict");
    left_out.ends(
        "rule",
        "transient state; /etc/fstab:1: /var/tmp is already mounted there; leaving it to fstab",
    );
    left_out.says("change", "nothing of usr-policy is in the way");
    left_out.is_silent_about("reboot");
}

#[test]
fn a_rule_that_does_not_hold_now_sends_to_verify() {
    let asked = asking(&[ROOT], "/var/tmp/x");
    asked.ends("rule", "; it is not so now, and usr-policy verify says why");
    asked.says(
        "reboot",
        "a tmpfs covers it from the next boot on; what is there stays on the disk, hidden",
    );
    asking(&[ROOT], "/usr/x").ends("rule", "; it is not so now, and usr-policy verify says why");
}

#[test]
fn a_mount_below_usr_has_flags_of_its_own() {
    let local = "45 40 254:4 / /usr/local rw - ext4 /dev/vda5 rw\n";
    let asked = asking(&[ROOT, USR, local], "/usr/local/bin").with(|asked| {
        asked.looked.access = Access::Writable;
    });
    asked.ends(
        "rule",
        "; /usr/local is a mount of its own below it, and its own flags count",
    );
    asked.says("change", "nothing of usr-policy is in the way");
}

#[test]
fn the_way_to_change_usr_depends_on_what_it_is() {
    let asked = asking(&[ROOT, USR], "/usr/bin/x");
    asked.says(
        "change",
        "put it in an extension, as /var/lib/extensions/NAME/usr/bin/x, then run systemd-sysext merge; or usr-policy unlock, change it, and usr-policy lock",
    );
    let owned = asked.with(|asked| asked.looked.packages = Some(vec!["x-1.0-1".to_string()]));
    owned.says("package", "x-1.0-1 of pacman");
    owned.says(
        "change",
        "usr-policy unlock, let pacman change x-1.0-1, and usr-policy lock",
    );
    owned
        .with(|asked| asked.cmdline = "usrpolicy=strict usrpolicy.lock=always")
        .says(
            "change",
            "boot with usrpolicy=off and let pacman change x-1.0-1: usrpolicy.lock=always opens nothing",
        );
    asking(&[ROOT, USR], "/usr/local/bin").says(
        "change",
        "give /usr/local a line in /etc/fstab that mounts a file system or a directory of /var there: its own flags count; or usr-policy unlock, change it, and usr-policy lock",
    );
    let erofs = "40 27 254:1 / /usr ro - erofs /dev/vda3 ro\n";
    asking(&[ROOT, erofs], "/usr/bin/x").says(
        "change",
        "put it in an extension, as /var/lib/extensions/NAME/usr/bin/x, then run systemd-sysext merge; or make the image of the base anew: nothing writes to erofs",
    );
}

#[test]
fn while_everything_is_open_nothing_is_in_the_way() {
    let writable = "40 27 254:0 /usr /usr rw,relatime - ext4 /dev/vda2 rw\n";
    let asked = asking(&[ROOT, writable], "/usr/bin/x").with(|asked| {
        asked.looked.access = Access::Writable;
        asked.looked.state.manual = Manual::Unlock { until: None };
    });
    asked.ends("rule", "; open now: unlocked by hand");
    asked.says("change", "nothing of usr-policy is in the way");
}

#[test]
fn the_database_says_in_which_row_of_the_table_it_is() {
    let database = "41 27 254:0 /var/lib/pacman /var/lib/pacman ro - ext4 /dev/vda2 rw\n";
    let asked = asking(&[ROOT, database], "/var/lib/pacman/local");
    asked.ends(
        "rule",
        "; locked: locked from boot until extensions were merged and unmerged",
    );
    asked.says(
        "change",
        "usr-policy unlock, run pacman, and usr-policy lock",
    );
    // As long as nobody has followed the merge, only the mount table tells of it.
    let merged = asking(&[ROOT, USR, SYSEXT, database], "/var/lib/pacman/local")
        .with(|asked| asked.looked.nearest = point("/var/lib/pacman"));
    merged.ends("rule", "; locked: extensions are merged");
    merged.says(
        "change",
        "systemd-sysext unmerge, then usr-policy unlock, run pacman, and usr-policy lock",
    );
    let open = asking(&[ROOT], "/var/lib/pacman/local").with(|asked| {
        asked.looked.state.extensions = Extensions::Unmerged { since: 0 };
        asked.looked.now = 3_000_000;
        asked.looked.access = Access::Writable;
    });
    open.ends(
        "rule",
        "; open: no extension is merged, and the guard hook stops what would change /usr",
    );
    open.says("change", "nothing of usr-policy is in the way");
}

#[test]
fn a_path_that_was_asked_to_be_read_only_is_changed_where_it_was_asked() {
    let own = "42 27 254:0 /var/opt /var/opt ro - ext4 /dev/vda2 rw\n";
    asking(&[ROOT, own], "/var/opt/x")
        .with(|asked| asked.configuration = "[Path:/var/opt]\nTreatment=ro\n")
        .says(
            "change",
            "/var/opt is read-only because that was asked for: change it there (/etc/usr-policy.conf:2), and reboot",
        );
}

#[test]
fn an_overlay_of_extensions_says_who_ships_what_and_what_is_beneath() {
    let asked = |extensions: Vec<Extension>| {
        asking(&[ROOT, USR, SYSEXT], "/usr/bin/x")
            .with(|asked| asked.looked.extensions = extensions)
    };
    let shipped = asked(vec![extension("a", Ships::No), extension("b", Ships::Yes)]);
    shipped.says(
        "beneath",
        "/usr: ext4 of /dev/vda2, read-only by its own flag, on a writable file system (ro,relatime)",
    );
    shipped.says("extension", "shipped by b (/var/lib/extensions/b)");
    shipped.says(
        "change",
        "change it in /var/lib/extensions/b, then run systemd-sysext refresh",
    );
    let of_the_base = "put it in an extension, as /var/lib/extensions/NAME/usr/bin/x, then run systemd-sysext refresh; or, for the base, systemd-sysext unmerge, usr-policy unlock, change it, and usr-policy lock, and systemd-sysext merge";
    // What is in a directory comes from the base too.
    shipped
        .with(|asked| asked.looked.is_directory = true)
        .says("change", of_the_base);
    let base = asked(vec![extension("a", Ships::No)]);
    base.says(
        "extension",
        "in none of those that are merged: a (/var/lib/extensions/a); it is of the base",
    );
    base.says("change", of_the_base);
    asked(vec![extension("a", Ships::Unseen)]).says(
        "extension",
        "may be shipped by a (/var/lib/extensions/a), into which this does not look; else it is of the base",
    );
    asked(vec![Extension {
        source: None,
        ..extension("a", Ships::Unseen)
    }])
    .with(|asked| asked.looked.path = point("/usr/bin/x/y"))
    .says(
        "extension",
        "may be shipped by a (its source is gone), into which this does not look",
    );
}

#[test]
fn an_extension_that_has_it_and_is_not_merged_is_named() {
    let there = Extension {
        is_merged: false,
        ..extension("a", Ships::Yes)
    };
    asking(&[ROOT, USR], "/usr/bin")
        .with(|asked| asked.looked.extensions = vec![there])
        .says(
            "extension",
            "a (/var/lib/extensions/a) has it, and is not merged here",
        );
    asking(&[ROOT, USR], "/usr/bin").is_silent_about("extension");
}

#[test]
fn extensions_over_opt_are_those_of_systemd_and_a_writable_layer_is_said() {
    let opt = "51 27 0:41 / /opt rw - overlay sysext rw,lowerdir=/a:/b,upperdir=/var/lib/extensions.mutable/opt\n";
    let asked = asking(&[ROOT, opt], "/opt/x").with(|asked| {
        asked.looked.access = Access::Writable;
    });
    asked.says("rule", "none: usr-policy leaves it to systemd-sysext");
    asked.says(
        "mount",
        "/opt: overlay of sysext, with a writable layer, /var/lib/extensions.mutable/opt, writable (rw)",
    );
    let closed = asking(&[ROOT, &opt.replace(" rw", " ro")], "/opt/x");
    closed.with(|asked| asked.cmdline = "").ends(
        "change",
        "or, for the base, systemd-sysext unmerge, change it, and systemd-sysext merge",
    );
}

#[test]
fn a_directory_of_many_packages_names_three() {
    let asked = |count: usize| {
        asking(&[ROOT], "/usr/bin").with(|asked| {
            let packages = (0..count).map(|number| format!("p{number}"));
            asked.looked.packages = Some(packages.collect());
        })
    };
    asked(0).says("package", "in the list of no package of pacman");
    asked(3).says("package", "p0, p1, p2 of pacman");
    asked(5).says("package", "p0, p1, p2 and 2 more of pacman");
    asking(&[ROOT], "/usr/bin").is_silent_about("package");
}

#[test]
fn links_and_what_does_not_exist_are_said() {
    let asked = asking(&[ROOT, USR], "/usr/bin").with(|asked| {
        asked.looked.asked = point("/bin/x");
        asked.looked.path = point("/usr/bin/x");
        asked.looked.notes = vec!["this is a note".to_string()];
    });
    asked.says(
        "path",
        "/bin/x leads to /usr/bin/x, which does not exist; /usr/bin does",
    );
    asked.says("note", "this is a note");
}
