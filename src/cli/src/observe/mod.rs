//! What `verify` sees: the mount namespace of PID 1, whoever calls. It changes nothing.

mod beneath;
mod fill;
pub(crate) mod hidden;
mod initramfs;
mod layers;
pub(crate) mod sysext;
mod system;
mod units;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{OFlags, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use usr_policy_plan::lock::{STATE, State};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::pre_init::PRE_INIT;
use usr_policy_plan::unit::BOOT_PROGRAM;
use usr_policy_plan::verify::{
    Access, Blind, Caller, Event, Follower, Kind, Observed, Place, PreInit, Sysext, paths,
};
use usr_policy_system::covered;
use usr_policy_system::database;
use usr_policy_system::events::EVENTS;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::may_write;
use usr_policy_system::pacman::is_guarded;
use usr_policy_system::root::Root;
use usr_policy_system::seen::{mount_of, path_of, runs_systemd};
use usr_policy_system::state;

use crate::contents::are_same;
use hidden::Depth;
use sysext::observe_sysext;
use system::observe_system;

/// The mount table of PID 1.
const TABLE: &str = "/proc/1/mountinfo";

/// That of this process.
const OWN_TABLE: &str = "/proc/self/mountinfo";

/// The root directory of PID 1; only root may look through it.
pub(crate) const ROOT: &str = "/proc/1/root";

/// How often it is looked again where mounts or the state were changed meanwhile.
const LOOKS: u32 = 5;

/// How long a file system may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long whoever changes them may take.
const PAUSE: Duration = Duration::from_millis(100);

/// The root of PID 1; `None` where the caller may not look through it. Without root, the caller's own view is PID 1's where
/// both have the same mounts.
pub(crate) fn root_of_pid_1() -> Result<Option<Root>, Failure> {
    match Root::open(ROOT) {
        Ok(root) => Ok(Some(root)),
        Err(_) if has_table_of_pid_1()? => Root::open("/").map(Some),
        Err(_) => Ok(None),
    }
}

/// Whether the tables are the same: anybody may compare those, and only root the namespaces.
pub(crate) fn has_table_of_pid_1() -> Result<bool, Failure> {
    Ok(read(OWN_TABLE)? == read(TABLE)?)
}

/// The root whose files say what is promised: what the machine was asked for, and not the chroot of a caller.
pub(crate) fn root_of_the_promise() -> Result<Root, Failure> {
    match root_of_pid_1() {
        Ok(Some(root)) => Ok(root),
        // Whoever looks at mounts says that /proc does not show them.
        Ok(None) | Err(_) => Root::open("/"),
    }
}

fn read(path: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::new(path, "cannot read", error).with_remedy("mount proc on /proc")
    })
}

/// Looks until nothing was changed between the first look and the last: what is said of a machine is of one moment.
pub(crate) fn observe(plan: &Plan, depth: Depth) -> Result<Observed, Failure> {
    let root = root_of_pid_1()?;
    let of_now = || {
        Ok((
            read(TABLE)?,
            root.as_ref().and_then(|root| root.read(STATE).ok()),
        ))
    };
    let mut before = of_now()?;
    for _ in 1..LOOKS {
        let observed = observe_once(plan, depth, root.as_ref())?;
        let after = of_now()?;
        if after == before {
            return Ok(observed);
        }
        before = after;
        sleep(PAUSE);
    }
    observe_once(plan, depth, root.as_ref())
}

fn observe_once(plan: &Plan, depth: Depth, root: Option<&Root>) -> Result<Observed, Failure> {
    let text = read(TABLE)?;
    let mounts = MountTable::parse(&text);
    // Anybody may read the table: a line that is none is no matter of rights.
    let mut blind: Vec<Blind> = mounts
        .bad_lines
        .iter()
        .map(|bad| Blind {
            subject: format!("{TABLE}:{}", bad.line),
            what: bad.what(),
            remedy: "report this line of the table".to_owned(),
        })
        .collect();
    let caller = caller();
    let mut cannot = |subject: &str, what: String| {
        blind.push(Blind {
            subject: subject.to_owned(),
            what,
            remedy: caller.way_to_see().to_owned(),
        });
    };
    if root.is_none() {
        let what = "this process has mounts of its own, and may not look at those of PID 1";
        cannot(ROOT, what.to_owned());
    }
    let extensions = root.map(|_| extensions(plan, &mounts));
    let database_at = root.and_then(|root| database_at(root, plan));
    let at = database_at.as_ref();
    // Side by side: the one reads of each process, the other of each unit.
    let (layers, beside) = scope(|scope| {
        let layers = scope.spawn(|| layers::layers(plan, root, caller, (&text, &mounts), at));
        let beside = root.map(|root| observe_system(root, plan, &mounts, depth));
        (layers.join(), beside)
    });
    let layers = layers.unwrap_or_else(|panic| resume_unwind(panic));
    let places = paths(plan)
        .into_iter()
        .map(|path| look(root, path))
        .collect();
    let system = rustix::system::sysinfo();
    let database = plan.database().map(|rule| rule.mount_point.to_string());
    let (mut at_work, mut covered) = (None, Vec::new());
    let below_usr = plan.database_below_usr();
    let below_usr = below_usr.map(|rule| rule.mount_point.to_string());
    if let (Some(root), Some(database)) = (root, database.as_ref().or(below_usr.as_ref())) {
        match database::holder(root, database) {
            Ok(holder) => at_work = holder.map(|holder| holder.to_string()),
            Err(failure) => cannot("packages", failure.to_string()),
        }
    }
    if let (Some(root), Some(database)) = (root, &database) {
        match covered::covered(root, database) {
            Ok(packages) => covered = packages,
            Err(failure) => cannot("packages", failure.to_string()),
        }
    }
    let mut record = |path: &str| match root.map(|root| root.read(path)) {
        Some(Ok(text)) => Ok(text.unwrap_or_default()),
        // Whatever is open on purpose would look as if nobody had asked for it.
        Some(Err(failure))
            if path == STATE && failure.error.kind() == ErrorKind::PermissionDenied =>
        {
            Err(failure
                .at(STATE)
                .with_remedy("without it nobody can tell what is open on purpose: run it as root"))
        }
        Some(Err(failure)) => {
            cannot(path, failure.to_string());
            Ok(Vec::new())
        }
        // That is told already.
        None => Ok(Vec::new()),
    };
    // No record: nothing of ours acted at this boot.
    let events = Event::parse(&record(EVENTS)?);
    let state = State::parse(&record(STATE)?);
    // Between the two looks at the table and the state: whoever had it before has changed one of them.
    let is_changing = root.is_some_and(|root| state::is_taken(root) != Some(false));
    Ok(Observed {
        mounts,
        database_at,
        places,
        memory: u64::from(system.mem_unit).checked_mul(system.totalram),
        fills: root.map_or(Vec::new(), |root| fill::fills(plan, root)),
        events,
        caller,
        unread: Vec::new(),
        state,
        now: state::now(),
        clock: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|time| u64::try_from(time.as_micros()).ok()),
        is_changing,
        is_guarded: root.is_some_and(is_guarded),
        follower: root.map_or(Follower::Unknown, follower),
        at_work,
        covered,
        pre_init: root.map_or(PreInit::Missing, pre_init),
        layers,
        blind,
        sysext: extensions.as_ref().map(answered).unwrap_or_default(),
        system: beside.unwrap_or_default(),
    })
}

/// Where the database lies, where links lead there.
fn database_at(root: &Root, plan: &Plan) -> Option<MountPoint> {
    let path = &plan.database()?.mount_point;
    let directory = root.directory(&path.to_string()).ok()??;
    path_of(&directory).filter(|real| real != path)
}

/// What only explains must not hold the answer: an extension may lie on a file system that does not answer. It is looked at
/// beside the rest, and waited for with [`PATIENCE`].
pub(crate) fn beside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (told, answer) = channel();
    // Nobody listens any more where that has taken too long.
    spawn(move || drop(told.send(look())));
    answer
}

fn extensions(plan: &Plan, mounts: &MountTable) -> Receiver<Sysext> {
    let (plan, mounts) = (plan.clone(), mounts.clone());
    beside(move || {
        let root = root_of_pid_1().ok().flatten();
        let seen = root.map(|root| observe_sysext(&root, &mounts, &plan));
        seen.unwrap_or_default()
    })
}

/// Waits for [`extensions`].
fn answered(extensions: &Receiver<Sysext>) -> Sysext {
    let answer = extensions.recv_timeout(PATIENCE);
    answer.unwrap_or_else(|_| Sysext {
        has_no_answer: true,
        ..Sysext::default()
    })
}

/// Whether merges are followed: by a service, so nobody does without systemd.
fn follower(root: &Root) -> Follower {
    let has_systemd = runs_systemd(root) == Some(true);
    match state::is_followed(root).filter(|_| has_systemd) {
        Some(true) => Follower::Alive,
        Some(false) => Follower::Dead,
        None => Follower::Unknown,
    }
}

/// Whoever runs this.
pub(crate) fn caller() -> Caller {
    if geteuid().is_root() {
        Caller::Root
    } else {
        Caller::Other
    }
}

fn pre_init(root: &Root) -> PreInit {
    match are_same(root, [PRE_INIT, BOOT_PROGRAM]) {
        Some(true) => PreInit::Installed,
        Some(false) => PreInit::Different,
        // What cannot be read is no proof of anything.
        None => PreInit::Missing,
    }
}

pub(crate) fn look(root: Option<&Root>, path: MountPoint) -> Place {
    let unseen = |path, kind| Place {
        path,
        kind,
        mount_id: None,
        access: Access::NoWitness,
        statvfs_read_only: None,
    };
    let Some(root) = root else {
        return unseen(path, Kind::Unknown);
    };
    let name = path.to_string();
    match root.open_at(&name, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => {
            let kind = match root.directory_itself(&name) {
                Ok(None) => Kind::Linked,
                Ok(Some(_)) | Err(_) => Kind::Directory,
            };
            Place {
                path,
                kind,
                mount_id: mount_of(&directory).ok().map(|mount| mount.id),
                access: access(&directory),
                statvfs_read_only: fstatvfs(&directory)
                    .ok()
                    .map(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)),
            }
        }
        Err(Errno::NOENT) => unseen(path, Kind::Missing),
        Err(Errno::NOTDIR) => unseen(path, Kind::Other),
        Err(_) => unseen(path, Kind::Unknown),
    }
}

pub(crate) fn access(directory: impl AsFd) -> Access {
    access_of(may_write(directory))
}

/// What an answer to faccessat(2) says.
pub(crate) fn access_of(asked: Result<(), Errno>) -> Access {
    match asked {
        Ok(()) => Access::Writable,
        Err(Errno::ROFS) => Access::ReadOnly,
        // Without the right to write there, the question stays open.
        Err(_) => Access::NoWitness,
    }
}
