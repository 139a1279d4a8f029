//! The apply role: makes `/usr` of a root read-only, in the initramfs or in the real root.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use log::{debug, error, info, warn};
use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::plan::{Plan, Stage, Step, UsrMount, Why};
use usr_policy_plan::policy::Role;
use usr_policy_plan::verify::Done;
use usr_policy_system::container::in_container;
use usr_policy_system::events;
use usr_policy_system::facts::{gather_to_act, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::{
    Below, How, detach_seen, leave_peer_group, read_only_bind, set_read_only,
};
use usr_policy_system::root::Root;
use usr_policy_system::seen::{look, mounted_usr};
use usr_policy_system::state::{self, Turn};

use crate::Failed;

pub(crate) fn run(root: PathBuf, stage: Stage) -> Result<(), Failed> {
    if stage == Stage::Host && is_left_to_manager() {
        return Ok(());
    }
    let planned = Planned::read(root)?;
    // An unlock at this moment would have its /usr closed again, and its database open. Closing waits for nobody in the end.
    let _turn = (stage == Stage::Host && planned.plan.is_strict()).then(|| {
        Turn::take().unwrap_or_else(|failure| {
            warn!("{failure}");
            Turn::without()
        })
    });
    // systemd-remount-fs.service calls this as well.
    if stage == Stage::Host && planned.is_open_on_purpose() {
        info!("/usr: left open, as usr-policy unlock asked");
        return Ok(());
    }
    if stage != Stage::Host || !planned.plan.is_strict() {
        return planned.close_usr(stage);
    }
    let is_first = events::is_first_since_start().unwrap_or_else(|failure| {
        warn!("{failure}");
        false
    });
    // What was recorded before a soft-reboot stays in /run.
    let unmerged = if is_first && events::has_start() {
        planned.unmerge_what_outlived()
    } else {
        Ok(())
    };
    planned.close_usr(stage).and(unmerged)?;
    if is_first {
        record(&stage.to_string(), "-", Done::Start);
    }
    Ok(())
}

/// Whether the mounts of this real root are a container manager's; then it is said.
pub(crate) fn is_left_to_manager() -> bool {
    let is_left = in_container();
    if is_left {
        info!("in a container: its mounts are its manager's, and stay as they are");
    }
    is_left
}

/// A root, and what is to be done with it.
pub(crate) struct Planned {
    pub(crate) root: Root,
    pub(crate) plan: Plan,
    cmdline: Cmdline,
}

impl Planned {
    /// Reads command line, configuration and fstab.
    pub(crate) fn read(root: PathBuf) -> Result<Self, Failure> {
        let cmdline = running_cmdline(&Root::open("/")?)?;
        Ok(Planned::with(&cmdline, Root::open(root)?))
    }

    /// Reads configuration and fstab. What cannot be read is the generator's to report.
    pub(crate) fn with(cmdline: &[u8], root: Root) -> Self {
        let (facts, _) = gather_to_act(&root, cmdline);
        Planned {
            plan: Plan::new(&facts),
            cmdline: facts.cmdline,
            root,
        }
    }

    /// What is to be done with `/usr` as it is now, and its directory.
    pub(crate) fn step(&self, stage: Stage) -> Result<(Step, Option<OwnedFd>), Failure> {
        let (seen, directory) = look(&self.root)?;
        Ok((self.plan.step(stage, &self.cmdline, &seen), directory))
    }

    /// A merge over a `/usr` that was open survives a soft-reboot, and nothing could close what lies beneath. What is to be
    /// merged at boot is merged again after this.
    fn unmerge_what_outlived(&self) -> Result<(), Failed> {
        let merged = mounted_usr(&self.root)?.filter(UsrMount::is_open_beneath);
        let (Some(merged), Some(usr)) = (merged, self.plan.mount_of(Role::Usr)) else {
            return Ok(());
        };
        warn!(
            "/usr: extensions were merged while it was open, before the soft-reboot; unmerging them, to close it"
        );
        Ok(detach_seen(&usr.rule.mount_point, merged.mount.mount_id)?)
    }

    fn is_open_on_purpose(&self) -> bool {
        let state = state::read().unwrap_or_default();
        state
            .wanted(self.plan.lock, false, state::now())
            .usr_is_open
    }

    /// Makes `/usr` read-only, if it is to be and is not.
    pub(crate) fn close_usr(&self, stage: Stage) -> Result<(), Failed> {
        if !self.plan.is_strict() {
            return Ok(());
        }
        let path = self.root.join("/usr");
        let result = once_more(|| {
            self.step(stage).and_then(|(step, directory)| {
                take(step, directory).map_err(|error| {
                    let is_busy = error.kind() == ErrorKind::ResourceBusy;
                    let failure = Failure::new(&path, "cannot make read-only", error);
                    if !is_busy {
                        return failure;
                    }
                    failure.with_remedy("stop what has a file there open for writing, then run /usr/lib/usr-policy/usr-policy-generator sync")
                })
            })
        });
        match result {
            Ok(Taken::Nothing(Step::Refuse(why))) => {
                error!("{}: {why}", path.display());
                Err(Failed)
            }
            Ok(Taken::Nothing(Step::Leave(why @ Why::OverlayRoot))) => {
                warn!("{}: {why}", path.display());
                Ok(())
            }
            Ok(Taken::Nothing(step)) => {
                if let Step::Leave(why) = step {
                    debug!("{}: {why}", path.display());
                }
                Ok(())
            }
            Ok(Taken::OwnPeerGroup) => {
                info!("{}: given a peer group of its own", path.display());
                Ok(())
            }
            Ok(Taken::Made(how)) => {
                said(&path.display().to_string(), how);
                record(&stage.to_string(), "/usr", Done::ReadOnly);
                Ok(())
            }
            Err(failure) => {
                error!("{failure}");
                record(&stage.to_string(), "/usr", Done::Failed);
                Err(Failed)
            }
        }
    }
}

/// Tries again where somebody has mounted there at the same moment: what it is will be seen now.
pub(crate) fn once_more<T>(attempt: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    match attempt() {
        Err(failure) if failure.error.kind() == ErrorKind::WouldBlock => attempt(),
        result => result,
    }
}

enum Taken {
    Nothing(Step),
    Made(How),
    /// It was read-only before.
    OwnPeerGroup,
}

fn take(step: Step, directory: Option<OwnedFd>) -> std::io::Result<Taken> {
    let Some(directory) = directory else {
        return Ok(Taken::Nothing(step));
    };
    match step {
        Step::Leave(_) | Step::Refuse(_) => Ok(Taken::Nothing(step)),
        Step::SetReadOnly => set_read_only(&directory).map(Taken::Made),
        Step::LeavePeerGroup { is_read_only: true } => {
            leave_peer_group(&directory).map(|()| Taken::OwnPeerGroup)
        }
        Step::LeavePeerGroup {
            is_read_only: false,
        } => {
            let how = set_read_only(&directory)?;
            leave_peer_group(&directory).map(|()| Taken::Made(how))
        }
        Step::Bind { recursive } => {
            let below = if recursive {
                Below::AsItIs
            } else {
                Below::Nothing
            };
            read_only_bind(&directory, below).map(Taken::Made)
        }
    }
}

/// One line for each mount.
pub(crate) fn said(path: &str, how: How) {
    match how {
        How::Atomically => info!("{path}: made read-only"),
        How::InTwoSteps => warn!(
            "{path}: made read-only in two steps; this kernel is older than 5.12 and cannot do it in one"
        ),
    }
}

/// The record only explains; a line that cannot be added breaks nothing.
pub(crate) fn record(stage: &str, path: &str, result: Done) {
    if let Err(failure) = events::record(stage, path, result) {
        warn!("{failure}");
    }
}
