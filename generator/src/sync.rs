//! The sync role: closes what the policy wants closed, the package database first, then `/usr`. Where there is no systemd
//! it also mounts what units do elsewhere.
//!
//! It may be called at any time and any number of times; what is closed already stays as it is, and so does what is open on
//! purpose.

use std::os::unix::ffi::OsStrExt;

use log::{debug, error, info, warn};
use usr_policy_plan::lock::{Extensions, Manual, Now, State, Transaction, Wanted};
use usr_policy_plan::mount_options::Options;
use usr_policy_plan::package_manager::PACMAN;
use usr_policy_plan::plan::{PlannedMount, Stage};
use usr_policy_plan::policy::{Role, Rule, Treatment, may_be_database};
use usr_policy_plan::text::Shown;
use usr_policy_plan::verify::Done;
use usr_policy_system::covered;
use usr_policy_system::database::{self, Closed, Taken};
use usr_policy_system::events;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::{Below, NewMount, mount_new, read_only_bind, set_read_only};
use usr_policy_system::pacman::is_guarded;
use usr_policy_system::processes::OpenFile;
use usr_policy_system::root::Root;
use usr_policy_system::seen::{
    self, has_mounts_of_pid_1, mount_of, mounted_usr, path_of, runs_systemd,
};
use usr_policy_system::state::{self, Turn};
use usr_policy_system::writers::writers;

use crate::Failed;
use crate::apply::{Planned, is_left_to_manager, once_more, record, said};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Somebody, once: nothing is opened, for a refresh looks like an unmerge.
    Sync,
    /// The follower, which waits until an unmerge has settled.
    Follower,
}

/// What is left to be done.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// When the lock table says something else, `CLOCK_BOOTTIME` in microseconds.
    pub(crate) until: Option<u64>,
    /// A package manager at work, for whose end the lock waits.
    pub(crate) pending: Option<OpenFile>,
    /// What was written down as merged; `None` where nothing was.
    pub(crate) is_merged: Option<bool>,
}

pub(crate) fn run() -> Result<(), Failed> {
    let left = once(&Planned::read("/".into())?, By::Sync)?;
    if let Some(holder) = left.pending {
        say_pending(&holder);
    }
    Ok(())
}

/// Says for whom it is waited.
pub(crate) fn say_pending(holder: &OpenFile) {
    warn!(
        "{}: {holder} is changing packages; nothing is closed before it ends",
        Shown(holder.file.as_os_str().as_bytes())
    );
}

/// Brings everything to what the lock table says.
pub(crate) fn once(planned: &Planned, by: By) -> Result<Left, Failed> {
    if is_left_to_manager() {
        return Ok(Left::default());
    }
    if !planned.plan.is_strict() {
        return Ok(Left::default());
    }
    if has_mounts_of_pid_1() == Some(false) {
        return Err(Failed::because(
            &"/proc/self/ns/mnt: these are not the mounts of PID 1, and what is closed here stays open there; run nsenter -t 1 -m /usr/lib/usr-policy/usr-policy-generator sync",
        ));
    }
    // Closing waits for nobody in the end, and needs no record.
    let turn = Turn::take().unwrap_or_else(|failure| {
        warn!("{failure}");
        Turn::without()
    });
    let usr = mounted_usr(&planned.root).map_err(|failure| {
        let failed = Failed::from(failure);
        lock_unseen(planned, &turn);
        failed
    })?;
    let is_merged = usr.as_ref().is_some_and(|usr| usr.is_sysext);
    let usr_is_read_only = usr.is_some_and(|usr| usr.mount.is_read_only());
    let wanted = look(planned, &turn, is_merged, usr_is_read_only);
    let mut left = Left {
        until: wanted.until,
        pending: None,
        is_merged: Some(is_merged),
    };
    // Until /usr is closed.
    let mut _kept_out = None;
    let database = match planned.plan.database() {
        Some(rule) if wanted.is_locked => lock(&planned.root, &turn, rule).map(|holder| {
            left.pending = holder;
        }),
        rule => {
            let opened = match rule {
                Some(rule) if by == By::Follower => unlock(&planned.root, &turn, rule),
                _ => Ok(()),
            };
            match who_is_at_work(planned, &turn, &wanted, usr_is_read_only) {
                Some(Taken::Held(holder)) => left.pending = Some(holder),
                Some(taken) => _kept_out = Some(taken),
                None => remove_leftover(planned, &turn, rule),
            }
            opened
        }
    };
    // What was unpacked under extensions may be written down after the unmerge: the end is the transaction's own.
    if let Some(rule) = planned.plan.database()
        && (is_merged || left.pending.is_none())
    {
        let at_work = left.pending.is_some();
        watch_transaction(&planned.root, &turn, &rule.mount_point.to_string(), at_work);
    }
    let transaction = match left.pending {
        Some(_) => Transaction::AtWork,
        None => Transaction::Nobody,
    };
    match wanted.now(transaction) {
        Now::Open | Now::Wait => return database.map(|()| left),
        Now::CloseUsr | Now::CloseBoth => {}
    }
    if !usr_is_read_only {
        warn_of_writers(planned, &turn);
    }
    // All are tried: one that fails is no reason to leave the others open.
    let usr = close_usr(planned, &turn);
    let others = close_others(planned, &turn, is_merged);
    database.and(usr).and(others).map(|()| left)
}

fn close_usr(planned: &Planned, turn: &Turn) -> Result<(), Failed> {
    let covered = cover_usr(planned, turn);
    covered.and(planned.close_usr(Stage::Sync))
}

/// Mounts again what was taken away on purpose, and where there are no units whatever they would mount; then nothing is open
/// on purpose any more.
fn close_others(planned: &Planned, turn: &Turn, is_merged: bool) -> Result<(), Failed> {
    // Where it cannot be seen whether there are units, nothing is mounted twice.
    let has_units = runs_systemd(&planned.root) != Some(false);
    let mut result = Ok(());
    for mount in &planned.plan.mounts {
        let unit = mount.rule.unit();
        let was_open = turn.has_opened(&unit);
        let done = match mount.rule.role {
            Role::Database => continue,
            // Under extensions it is not closed yet: only the mount over it is.
            Role::Usr if is_merged => continue,
            Role::Usr => Ok(()),
            _ if was_open || !has_units => mount_path(&planned.root, turn, mount),
            _ => Ok(()),
        };
        let closed = if was_open {
            turn.close_unit(&unit).map_err(Failed::from)
        } else {
            Ok(())
        };
        result = result.and(done).and(closed);
    }
    result
}

/// Brings the state up to date, and reads the lock table.
fn look(planned: &Planned, turn: &Turn, is_merged: bool, usr_is_read_only: bool) -> Wanted {
    // What cannot be read is locked, and written anew.
    let before = state::read().unwrap_or_else(|failure| {
        error!("{failure}");
        State::default()
    });
    let now = state::now();
    let mut state = before.after(is_merged, now);
    // It opens /usr first, and was killed before that: what would open now is the database alone.
    if usr_is_read_only && matches!(state.manual, Manual::Unlock { .. }) {
        warn!("/usr: is read-only, so what usr-policy unlock opened is closed; run it again");
        state.manual = Manual::Nothing;
    }
    if state != before
        && let Err(failure) = turn.write(&state)
    {
        warn!("{failure}");
        // It has ended, and must not be found again by whoever looks after the next unmerge.
        if matches!(before.manual, Manual::Unlock { .. })
            && let Err(failure) = turn.forget()
        {
            error!("{failure}");
        }
    }
    // Only then it makes a difference.
    let is_unmerged = matches!(state.extensions, Extensions::Unmerged { .. });
    let is_guarded = is_unmerged && is_guarded(&planned.root);
    state.wanted(planned.plan.lock, is_guarded, now)
}

/// The package database, also one that is closed with `/usr`.
pub(crate) fn database_of(planned: &Planned) -> Option<&Rule> {
    let plan = &planned.plan;
    plan.database().or(plan.database_below_usr())
}

/// Who changes packages where the database is not locked first: while `/usr` is still to be closed, or until it is known what
/// was changed under extensions. While `/usr` is closed nobody may begin: what has asked the guard before would write to it.
fn who_is_at_work(
    planned: &Planned,
    turn: &Turn,
    wanted: &Wanted,
    usr_is_read_only: bool,
) -> Option<Taken> {
    let is_to_be_closed = !wanted.usr_is_open && !usr_is_read_only;
    if !is_to_be_closed && !covered::has_begun() {
        return None;
    }
    let path = database_of(planned)?.mount_point.to_string();
    // In a database below /usr the file would be closed in.
    let taken = if is_to_be_closed && planned.plan.database().is_some() {
        database::keep_out(turn, &planned.root, &path).map(Some)
    } else {
        database::holder(&planned.root, &path).map(|holder| holder.map(Taken::Held))
    };
    taken.unwrap_or_else(|failure| {
        // Who cannot be seen is not waited for: it may be nobody, for ever.
        warn!("{failure}");
        None
    })
}

/// One of us may have been killed while no package manager was to begin.
fn remove_leftover(planned: &Planned, turn: &Turn, rule: Option<&Rule>) {
    let path = rule.map(|rule| rule.mount_point.to_string());
    let removed = path.map(|path| database::remove_leftover(turn, &planned.root, &path));
    if let Some(Err(failure)) = removed {
        warn!("{failure}");
    }
}

/// Locks the database where nobody knows what is mounted, unless it may be open as far as is known.
fn lock_unseen(planned: &Planned, turn: &Turn) {
    let state = state::read().unwrap_or_default();
    let wanted = state.wanted(planned.plan.lock, is_guarded(&planned.root), state::now());
    if let Some(rule) = planned.plan.database().filter(|_| wanted.is_locked) {
        // What fails is logged there, and this run has failed anyway.
        drop(lock(&planned.root, turn, rule));
    }
}

/// Says who goes on writing below `/usr` after it is closed. At boot nobody pays for that: there everything is closed before
/// anything is started.
fn warn_of_writers(planned: &Planned, turn: &Turn) {
    let usr = planned.plan.mount_of(Role::Usr);
    let was_opened = usr.is_some_and(|usr| turn.has_opened(&usr.rule.unit()));
    if !was_opened && !events::has_start() {
        return;
    }
    match writers(&planned.root) {
        Ok(writers) => {
            for writer in writers {
                let file = Shown(writer.file.as_os_str().as_bytes());
                warn!("/usr: {writer} has {file} open for writing, and can go on until it ends");
            }
        }
        Err(failure) => warn!("{failure}"),
    }
}

/// Finds out what a transaction changes while extensions cover `/usr`.
fn watch_transaction(root: &Root, turn: &Turn, database: &str, at_work: bool) {
    let changed = if at_work {
        covered::begin(turn, root, database).map(|()| (Vec::new(), Ok(())))
    } else {
        covered::end(turn, root, database)
    };
    match changed {
        Ok((names, _)) if names.is_empty() => {}
        Ok((names, written)) => {
            let names = names.join(", ");
            error!(
                "{database}: changed while extensions covered /usr, so their files there may be missing or left over: {names}; run usr-policy unlock and install them again"
            );
            record("sync", database, Done::ChangedUnderExtensions);
            if let Err(failure) = written {
                warn!("{failure}");
            }
        }
        Err(failure) => warn!("{failure}"),
    }
}

/// Puts a bind over a `/usr` of its own that was open: a service that was started meanwhile, with mounts of its own, keeps a
/// writable copy that no flag reaches.
fn cover_usr(planned: &Planned, turn: &Turn) -> Result<(), Failed> {
    let usr = planned.plan.mount_of(Role::Usr);
    if !usr.is_some_and(|usr| turn.has_opened(&usr.rule.unit())) {
        return Ok(());
    }
    let fail = |error| Failure::new("/usr", "cannot make read-only", error);
    let bound = once_more(|| {
        let (seen, directory) = seen::look(&planned.root)?;
        let (Some(usr), Some(directory)) = (seen.usr, directory) else {
            return Ok(None);
        };
        let is_bound = || database::self_bind(&planned.root, "/usr");
        if !usr.is_usr_itself || usr.is_sysext || is_bound()?.is_some() {
            return Ok(None);
        }
        let below = if usr.has_submounts {
            Below::AsItIs
        } else {
            Below::Nothing
        };
        let how = read_only_bind(&directory, below).map_err(fail)?;
        Ok(Some((how, directory)))
    });
    let Some((how, directory)) = bound? else {
        return Ok(());
    };
    said("/usr", how);
    record("sync", "/usr", Done::ReadOnly);
    // Below the bind, for whoever takes that away. The bind closes it for everybody but those who write already.
    set_read_only(&directory).map(drop).map_err(|error| {
        let remedy =
            "see fuser -vm /usr for who has a file open for writing; it can go on until it ends";
        fail(error).with_remedy(remedy).into()
    })
}

/// Does what a unit does elsewhere.
fn mount_path(root: &Root, turn: &Turn, mount: &PlannedMount) -> Result<(), Failed> {
    let Treatment::Tmpfs(options) = mount.rule.treatment else {
        return lock(root, turn, &mount.rule).map(drop);
    };
    let path = mount.rule.mount_point.to_string();
    let Some(directory) = root.directory_itself(&path)? else {
        debug!("{path}: there is no such directory");
        return Ok(());
    };
    if mount_of(&directory)?.is_its_root {
        return Ok(());
    }
    let new = NewMount {
        source: b"tmpfs",
        fs_type: b"tmpfs",
        options: &Options::parse(&options.to_string()),
    };
    mount_new(&new, &directory).map_err(|failure| failure.at(&path))?;
    info!("{path}: made a tmpfs");
    record("sync", &path, Done::Tmpfs);
    Ok(())
}

/// Locks a directory that is there; returns who must end first.
fn lock(root: &Root, turn: &Turn, rule: &Rule) -> Result<Option<OpenFile>, Failed> {
    let path = rule.mount_point.to_string();
    // A database is followed to where it lies. A path of somebody's own is not: a link may lead to what is never touched.
    let directory = || match rule.role {
        Role::Database => root.directory(&path),
        _ => root.directory_itself(&path),
    };
    // What a link leads to is held to the same rule as what pacman.conf names.
    if rule.role == Role::Database
        && let Some(real) = directory()?.as_ref().and_then(path_of)
        && let Err(why) = may_be_database(&real)
    {
        return Err(Failed::because(&format_args!(
            "{path}: leads to {real}, and is not locked: it {why}"
        )));
    }
    let closed = once_more(|| database::close(turn, directory()?, &path)).map_err(|failure| {
        failure.with_remedy(
            "let the package manager end, then run /usr/lib/usr-policy/usr-policy-generator sync",
        )
    });
    match closed {
        Ok(Closed::NoDatabase) => {
            debug!("{path}: there is no such directory");
            return Ok(None);
        }
        Ok(Closed::Already) => {}
        Ok(Closed::Pending(holder)) => return Ok(Some(holder)),
        Ok(Closed::Made(how)) => {
            said(&path, how);
            record("sync", &path, Done::ReadOnly);
        }
        Ok(Closed::OverStaleLock(how)) => {
            said(&path, how);
            warn!("{}", PACMAN.stale_lock(&path));
            record("sync", &path, Done::ReadOnly);
        }
        Err(failure) => {
            record("sync", &path, Done::Failed);
            return Err(failure.into());
        }
    }
    turn.close_unit(&rule.unit())?;
    Ok(None)
}

/// Opens the database.
fn unlock(root: &Root, turn: &Turn, rule: &Rule) -> Result<(), Failed> {
    let path = rule.mount_point.to_string();
    if database::self_bind(root, &path)?.is_none() {
        return Ok(());
    }
    turn.open_unit(&rule.unit())?;
    database::open(turn, root, &path)?;
    info!("{path}: opened");
    record("follow", &path, Done::Unlocked);
    Ok(())
}
