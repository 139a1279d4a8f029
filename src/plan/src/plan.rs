//! [`Plan`]: what will be mounted, by whom, and what is left out and why.
//!
//! The generator writes units from it, the initramfs stages take their step from it, and `usr-policy verify` reads it
//! backwards; what was asked for and what is checked cannot drift apart.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::iter::successors;

use crate::cmdline::Cmdline;
use crate::config::{ConfigFile, boolean};
use crate::fstab::{self, Arrival, Fstab};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::package_manager::NamedDatabase;
use crate::policy::{Lock, Mode, Origin, Policy, Problem, Role, Rule, Treatment};

/// What the plan is made from. Everything else is decided by units' conditions at the moment when they start.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// The configuration files, in the order in which they apply.
    pub configuration: Vec<ConfigFile>,
    /// The text of fstab(5); `None` where there is no such file.
    pub fstab: Option<Vec<u8>>,
    /// The package database, where the configuration of the package manager says where it is.
    pub database: Option<NamedDatabase>,
}

/// Who makes the mount at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A unit of ours.
    UsrPolicy,
    /// systemd-fstab-generator(8), from this line of fstab.
    Fstab {
        /// Line number, from 1.
        line: u32,
    },
    /// systemd-fstab-generator(8), from `mount.usr=` or `systemd.mount-extra=` on the kernel command line.
    CommandLine,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::UsrPolicy => f.write_str("usr-policy"),
            Owner::Fstab { line } => write!(f, "{FSTAB}:{line}"),
            Owner::CommandLine => f.write_str(crate::policy::CMDLINE_FILE),
        }
    }
}

/// The file that fstab(5) describes, for messages.
pub const FSTAB: &str = "/etc/fstab";

/// A rule that strict enforces, and who mounts what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMount {
    /// The rule.
    pub rule: Rule,
    /// Who writes the path's `.mount` unit. `/usr` and the database are made read-only whoever it is.
    pub owner: Owner,
    /// When what it lies on is there.
    pub arrival: Arrival,
}

/// A rule that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The rule.
    pub rule: Rule,
    /// Why.
    pub reason: Reason,
}

/// Why a rule is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody else mounts something there, and knows better what it should be.
    Owned(Owner),
    /// It lies below this place, which nothing mounts at boot: a unit of ours there would.
    ByHand(Owner, MountPoint),
    /// It lies below a path that becomes a tmpfs itself.
    Covered(MountPoint),
    /// `usrpolicy.lock=off`.
    LockOff,
    /// It is the package database, and lies below `/usr`.
    BelowUsr,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.rule.mount_point;
        match &self.reason {
            Reason::Owned(owner @ Owner::Fstab { .. }) => {
                write!(
                    f,
                    "{owner}: {path} is already mounted there; leaving it to fstab"
                )
            }
            Reason::Owned(owner) => write!(
                f,
                "{owner}: {path} is already mounted there; leaving it as it is"
            ),
            Reason::ByHand(owner, place) => write!(
                f,
                "{owner}: {place} is not mounted at boot (noauto); leaving {path} below it as it is"
            ),
            Reason::Covered(by) => {
                write!(
                    f,
                    "{path}: lies below {by}, which is a tmpfs; leaving it out"
                )
            }
            Reason::LockOff => write!(f, "{path}: left writable, as usrpolicy.lock=off asks"),
            Reason::BelowUsr => write!(f, "{path}: lies below /usr and is locked with it"),
        }
    }
}

/// What strict does on this machine.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whether it is carried out at all.
    pub mode: Mode,
    /// Who said so.
    pub mode_origin: Origin,
    /// When the database is locked.
    pub lock: Lock,
    /// Whether systemd-sysext is pulled in at boot.
    pub sysext_at_boot: bool,
    /// The mounts, `/usr` first, then the database.
    pub mounts: Vec<PlannedMount>,
    /// Paths that the policy wants writable, and mounts nothing on.
    pub writable: Vec<Rule>,
    /// Rules that are not carried out.
    pub left_out: Vec<LeftOut>,
    /// The fstab for systemd-remount-fs.service, without its `/usr` lines; `None` where it has none.
    pub fstab_without_usr: Option<Vec<u8>>,
    /// Whether fstab mounts `/usr` without `ro`.
    pub usr_line_is_writable: bool,
    /// Lines of fstab that cannot be read.
    pub fstab_lines: Vec<fstab::BadLine>,
    /// What pre-init starts, where it is told.
    pub real_init: Option<MountPoint>,
    /// Words that could not be understood.
    pub problems: Vec<Problem>,
}

impl Plan {
    /// Decides. A plan is made for every mode, so that `audit` can say what strict would do; only
    /// [`Plan::is_strict`] says that it is to be carried out.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        let policy = Policy::new(
            &facts.cmdline,
            &facts.configuration,
            facts.database.as_ref(),
        );
        let text = enabled_fstab(facts);
        let fstab = Fstab::parse(text);
        let owner = |path: &MountPoint| owner_of(path, &fstab, &facts.cmdline);
        let extra: Vec<fstab::Entry> = extra_entries(&facts.cmdline).collect();

        let mut plan = Plan {
            mode: policy.mode,
            mode_origin: policy.mode_origin,
            lock: policy.lock,
            sysext_at_boot: policy.sysext_at_boot,
            mounts: Vec::new(),
            writable: Vec::new(),
            left_out: Vec::new(),
            fstab_without_usr: None,
            usr_line_is_writable: false,
            fstab_lines: Vec::new(),
            real_init: policy.real_init,
            problems: policy.problems,
        };
        // A tmpfs that is left to somebody else is no tmpfs of ours, and may be none at all.
        let mut tmpfs: BTreeMap<MountPoint, usize> = BTreeMap::new();
        for (index, rule) in policy.rules.iter().enumerate() {
            if matches!(rule.treatment, Treatment::Tmpfs(_))
                && owner(&rule.mount_point) == Owner::UsrPolicy
            {
                tmpfs.entry(rule.mount_point.clone()).or_insert(index);
            }
        }
        let usr = policy
            .rules
            .iter()
            .find(|rule| rule.role == Role::Usr)
            .map(|rule| rule.mount_point.clone());
        let usr_line = usr.and_then(|usr| fstab.entry_at(&usr).map(|entry| (usr, entry)));
        for rule in policy.rules {
            let owner = owner(&rule.mount_point);
            let above = successors(rule.mount_point.parent(), MountPoint::parent);
            // The rule that was there first is the one to name.
            let covered = above
                .filter_map(|path| Some((*tmpfs.get(&path)?, path)))
                .min()
                .map(|(_, path)| path);
            let arrival = match rule.role {
                Role::Usr => Arrival::Local,
                _ => fstab::arrival(fstab.entries.iter().chain(&extra), &rule.mount_point),
            };
            let reason = match (rule.role, rule.treatment, owner) {
                (_, Treatment::ReadWrite, _) => {
                    plan.writable.push(rule);
                    continue;
                }
                (Role::Database, ..) if rule.mount_point.is_below_usr() => Some(Reason::BelowUsr),
                (Role::Database, ..) if policy.lock == Lock::Off => Some(Reason::LockOff),
                // Read-only is read-only, on whatever is mounted there.
                (Role::Usr | Role::Database, ..) => None,
                (.., Owner::Fstab { .. } | Owner::CommandLine) => Some(Reason::Owned(owner)),
                _ => match &arrival {
                    Arrival::ByHand(place) => Some(Reason::ByHand(
                        owner_of(place, &fstab, &facts.cmdline),
                        place.clone(),
                    )),
                    _ => covered.map(Reason::Covered),
                },
            };
            if let Some(reason) = reason {
                plan.left_out.push(LeftOut { rule, reason });
                continue;
            }
            plan.mounts.push(PlannedMount {
                rule,
                owner,
                arrival,
            });
        }
        if let Some((usr, entry)) = usr_line {
            plan.fstab_without_usr = Some(fstab::without(text, &usr));
            plan.usr_line_is_writable = !entry.has_option("ro");
        }
        plan.fstab_lines = fstab.bad_lines;
        plan
    }

    /// Whether the plan is to be carried out.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.mode == Mode::Strict
    }

    /// The rule for the package database, also where `usrpolicy.lock=off` leaves it writable until extensions are merged.
    #[must_use]
    pub fn database(&self) -> Option<&Rule> {
        let mounts = self.mounts.iter().map(|mount| &mount.rule);
        let left_out = self.left_out.iter();
        let unlocked = left_out.filter(|left_out| left_out.reason == Reason::LockOff);
        mounts
            .chain(unlocked.map(|left_out| &left_out.rule))
            .find(|rule| rule.role == Role::Database)
    }

    /// The rule for a package database below `/usr`, which is locked with that.
    #[must_use]
    pub fn database_below_usr(&self) -> Option<&Rule> {
        let mut left_out = self.left_out.iter();
        let found = left_out.find(|left_out| left_out.reason == Reason::BelowUsr);
        found.map(|left_out| &left_out.rule)
    }

    /// The mount with this role; there is at most one for `/usr`, the database and the cache.
    #[must_use]
    pub fn mount_of(&self, role: Role) -> Option<&PlannedMount> {
        self.mounts.iter().find(|mount| mount.rule.role == role)
    }
}

/// The text of fstab; empty under `fstab=no`, which makes systemd-fstab-generator(8) leave it alone.
pub(crate) fn enabled_fstab(facts: &Facts) -> &[u8] {
    facts
        .fstab
        .as_deref()
        .filter(|_| !is_switched_off(&facts.cmdline, "fstab"))
        .unwrap_or_default()
}

/// Whether the last word with this key on the command line says no.
pub(crate) fn is_switched_off(cmdline: &Cmdline, key: &str) -> bool {
    let last = cmdline.with_key(key).next_back();
    last.and_then(|word| boolean(word.value.as_deref()?)) == Some(false)
}

fn owner_of(path: &MountPoint, fstab: &Fstab, cmdline: &Cmdline) -> Owner {
    if let Some(entry) = fstab.entry_at(path) {
        return Owner::Fstab { line: entry.line };
    }
    let mount_usr = path.as_bytes() == b"/usr" && cmdline.with_key("mount.usr").next().is_some();
    let mut places = extra_mounts(cmdline).filter_map(|mut fields| fields.nth(1));
    if mount_usr || places.any(|place| MountPoint::new(place).as_ref() == Ok(path)) {
        return Owner::CommandLine;
    }
    Owner::UsrPolicy
}

/// The fields of `systemd.mount-extra=WHAT:WHERE[:FSTYPE[:OPTIONS]]`. Source: systemd-fstab-generator(8).
fn extra_mounts(cmdline: &Cmdline) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    cmdline
        .with_key("systemd.mount_extra")
        .filter_map(|word| word.value.as_deref())
        .map(|value| value.split(|&b| b == b':'))
}

/// The mounts of the kernel command line, as fstab would have them.
fn extra_entries(cmdline: &Cmdline) -> impl Iterator<Item = fstab::Entry> {
    extra_mounts(cmdline).filter_map(|mut fields| {
        Some(fstab::Entry {
            line: 0,
            spec: fields.next()?.to_vec(),
            file: MountPoint::new(fields.next()?).ok()?,
            vfstype: fields.next().unwrap_or_default().to_vec(),
            mntops: fstab::options(fields.next().unwrap_or_default()),
            passno: 0,
        })
    })
}

/// The moment at which `/usr` is made read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In the initramfs, as soon as the root file system is mounted.
    Early,
    /// In the initramfs, when everything that fstab wants there is mounted.
    Late,
    /// Where no initramfs ran, in the first process, before it becomes the real init.
    Init,
    /// In the real root, before the file systems of fstab are mounted.
    Host,
    /// In the real root, at any time after that.
    Sync,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Early => "early",
            Stage::Late => "late",
            Stage::Init => "init",
            Stage::Host => "host",
            Stage::Sync => "sync",
        })
    }
}

/// What is there to repair and lock the rest after the switch to the real root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installation {
    /// Boot program and generator are there.
    Whole,
    /// The root's `/usr` has no boot program.
    NoBootProgram,
    /// The generator is missing, or masked by an empty file or a link to /dev/null.
    NoGenerator,
    /// No systemd would run the generator, and no runlevel of OpenRC has our script.
    NobodyToLock,
}

/// What a stage finds.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whether a root file system is mounted at the root that the stage works on.
    pub root_mounted: bool,
    /// Whether there is a `/usr` directory in it.
    pub usr_exists: bool,
    /// The part of us that lives in the root itself.
    pub installation: Installation,
    /// The mount that holds `/usr`: its own, or the root's.
    pub usr: Option<UsrMount>,
}

/// The mount in which `/usr` lies.
#[derive(Debug, Clone)]
pub struct UsrMount {
    /// Its line in the mount table.
    pub mount: MountInfo,
    /// Whether `/usr` is where it is mounted, so that its flags are `/usr`'s alone.
    pub is_usr_itself: bool,
    /// Whether it is the overlay of systemd-sysext(8).
    pub is_sysext: bool,
    /// Whether something else is mounted below `/usr`.
    pub has_submounts: bool,
    /// The mount that it is attached to; beneath extensions that is what holds `/usr`.
    pub parent: Option<MountInfo>,
}

impl UsrMount {
    /// Whether extensions are merged over a `/usr` that was open.
    #[must_use]
    pub fn is_open_beneath(&self) -> bool {
        self.is_sysext && !self.parent.as_ref().is_some_and(MountInfo::is_read_only)
    }
}

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, and nothing is wrong.
    Leave(Why),
    /// Nothing, although strict was asked for; the log says it as an error.
    Refuse(Why),
    /// Set the read-only flag of the mount that is there.
    SetReadOnly,
    /// Set it, and give the mount a peer group of its own: in that of its parent an overlay of systemd-sysext(8) would
    /// appear twice, and one of the two would stay.
    LeavePeerGroup {
        /// Whether the flag is there already.
        is_read_only: bool,
    },
    /// Bind `/usr` on itself, read-only.
    Bind {
        /// Whether what is mounted below must be taken along, or the bind would hide it.
        recursive: bool,
    },
}

/// Why a stage leaves `/usr` as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The mode is not strict.
    NotStrict,
    /// No root file system is mounted yet.
    NoRoot,
    /// The root has no `/usr` directory.
    NoUsr,
    /// Something will still be mounted on `/usr`; a later stage does it.
    UsrComesLater,
    /// The root is an overlay that is unmounted and mounted again; a mount below it would be in the way.
    OverlayRoot,
    /// Its mount is read-only already.
    AlreadyReadOnly,
    /// Its file system cannot be written.
    ReadOnlyByNature,
    /// Extensions are merged over it; what lies beneath cannot be reached, and a bind on top would be unmerged.
    Merged,
    /// What fstab or the kernel command line mounts there is not, so that the directory is empty.
    NotMounted,
    /// The root has no boot program: nobody would lock the package database.
    NoBootProgram,
    /// The root's generator is missing or masked: nobody would lock the package database.
    NoGenerator,
    /// The root has no systemd, and our script is in no runlevel: nobody would lock the package database.
    NobodyToLock,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::NotStrict => "usrpolicy is not strict",
            Why::NoRoot => "no root file system is mounted here yet",
            Why::NoUsr => "there is no such directory",
            Why::UsrComesLater => "something is still to be mounted there; it becomes read-only after that",
            Why::OverlayRoot => "the root is an overlay that is mounted again later; it becomes read-only in the real root",
            Why::AlreadyReadOnly => "already read-only",
            Why::ReadOnlyByNature => "its file system cannot be written",
            Why::Merged => "extensions are merged over it",
            Why::NotMounted => {
                "not mounted, although fstab or the kernel command line wants a file system there; the log has the failed mount before this line"
            }
            Why::NoBootProgram => {
                "left writable: the root has no /usr/lib/usr-policy/usr-policy-generator, and nobody would lock the package database; install usr-policy there, or rebuild the initramfs without it"
            }
            Why::NobodyToLock => {
                "left writable: the root has no systemd, and no runlevel of OpenRC has the script usr-policy, so nobody would lock the package database; add it with rc-update add usr-policy boot"
            }
            Why::NoGenerator => {
                "left writable: usr-policy-generator is missing from the root's system-generators or masked there, and nobody would lock the package database; unmask it, or boot with usrpolicy=off"
            }
        })
    }
}

/// File systems that no mount option makes writable.
const READ_ONLY_BY_NATURE: [&str; 4] = ["erofs", "squashfs", "cramfs", "iso9660"];

/// The type of a mount's file system, where nothing makes it writable.
#[must_use]
pub fn read_only_by_nature(mount: &MountInfo) -> Option<&'static str> {
    read_only_type(&mount.fs_type)
}

/// The name of a type of file systems, where nothing makes them writable.
#[must_use]
pub fn read_only_type(fs_type: &[u8]) -> Option<&'static str> {
    let mut names = READ_ONLY_BY_NATURE.into_iter();
    names.find(|name| fs_type == name.as_bytes())
}

impl Plan {
    /// Decides what a stage does with `/usr`.
    #[must_use]
    pub fn step(&self, stage: Stage, cmdline: &Cmdline, seen: &Seen) -> Step {
        if !self.is_strict() {
            return Step::Leave(Why::NotStrict);
        }
        if !seen.root_mounted {
            return Step::Leave(Why::NoRoot);
        }
        if matches!(stage, Stage::Early | Stage::Late) && is_overlay_root(cmdline) {
            return Step::Leave(Why::OverlayRoot);
        }
        let owner = self
            .mount_of(Role::Usr)
            .map_or(Owner::UsrPolicy, |usr| usr.owner);
        if stage == Stage::Early && owner != Owner::UsrPolicy {
            return Step::Leave(Why::UsrComesLater);
        }
        if !seen.usr_exists {
            return Step::Refuse(Why::NoUsr);
        }
        let is_missing =
            owner != Owner::UsrPolicy && !seen.usr.as_ref().is_some_and(|usr| usr.is_usr_itself);
        let missing = match seen.installation {
            Installation::Whole => None,
            Installation::NoBootProgram if is_missing => Some(Why::NotMounted),
            Installation::NoBootProgram => Some(Why::NoBootProgram),
            Installation::NoGenerator => Some(Why::NoGenerator),
            Installation::NobodyToLock => Some(Why::NobodyToLock),
        };
        match (stage, missing) {
            // In the real root we are the proof that the program is there.
            (Stage::Host | Stage::Sync, _) | (_, None) => {}
            // The late stage will see it too; an error is said once.
            (Stage::Early, Some(why)) => return Step::Leave(why),
            (_, Some(why)) => return Step::Refuse(why),
        }
        let Some(usr) = &seen.usr else {
            return Step::Bind { recursive: false };
        };
        if usr.is_sysext {
            return Step::Leave(Why::Merged);
        }
        if read_only_by_nature(&usr.mount).is_some() {
            return Step::Leave(Why::ReadOnlyByNature);
        }
        // A read-only superblock alone is not enough: systemd-remount-fs may open it later.
        let is_read_only = usr.mount.mount_options.has("ro");
        let group = usr.mount.peer_group;
        let is_peer_of_parent =
            group.is_some() && group == usr.parent.as_ref().and_then(|parent| parent.peer_group);
        match (usr.is_usr_itself, is_read_only) {
            // Somebody's bind in the real root, such as PID 1's own with ProtectSystem=yes. In the initramfs the switch
            // to the real root parts them.
            (true, _) if matches!(stage, Stage::Host | Stage::Sync) && is_peer_of_parent => {
                Step::LeavePeerGroup { is_read_only }
            }
            (true, true) => Step::Leave(Why::AlreadyReadOnly),
            (true, false) => Step::SetReadOnly,
            // A bind would be taken for the mount that is still to come, and hide it for good.
            (false, _) if owner != Owner::UsrPolicy && stage != Stage::Sync => {
                Step::Leave(Why::UsrComesLater)
            }
            (false, _) => Step::Bind {
                recursive: usr.has_submounts,
            },
        }
    }
}

/// Words with which dracut unmounts and mounts the root again after our stages.
fn is_overlay_root(cmdline: &Cmdline) -> bool {
    cmdline.words().any(|word| {
        let key = word.key.as_slice();
        key == b"rd.overlay" || key.starts_with(b"rd.overlay.") || key.starts_with(b"rd.live.")
    })
}
