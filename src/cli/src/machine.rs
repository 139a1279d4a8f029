//! The running machine, for the verbs that change it.

use std::process::Command;

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use usr_policy_plan::lock::State;
use usr_policy_plan::plan::{Plan, UsrMount};
use usr_policy_plan::unit::BOOT_PROGRAM;
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;
use usr_policy_system::seen::{has_mounts_of_pid_1, mounted_usr};
use usr_policy_system::state::{self, Turn};

use crate::Shown;
use crate::container::in_container;
use crate::observe::sysext::merged_over;

/// The root of the running system, and what the policy wants of it.
pub(crate) struct Machine {
    pub(crate) root: Root,
    pub(crate) plan: Plan,
}

impl Machine {
    /// Reads command line, configuration and fstab. What could not be understood is verify's to tell.
    pub(crate) fn read() -> Result<Self, Failure> {
        let root = Root::open("/")?;
        let (facts, _) = gather(&root, &running_cmdline(&root)?);
        Ok(Machine {
            plan: Plan::new(&facts),
            root,
        })
    }

    /// The same, for a caller that may change mounts, and that others see them changed.
    pub(crate) fn to_change(verb: &'static str) -> Result<Self, Failure> {
        if !geteuid().is_root() {
            return Err(Failure::new(verb, "cannot change mounts", Errno::PERM)
                .with_remedy("run it as root"));
        }
        state::set_umask();
        // Where that cannot be asked, nobody knows whose mounts would change. A container is told of later, in other words.
        if has_mounts_of_pid_1() != Some(true) && !in_container() {
            return Err(
                Failure::new(verb, "cannot change the mounts of PID 1", Errno::XDEV)
                    .with_remedy("this process has mounts of its own; run it with nsenter -t 1 -m"),
            );
        }
        Self::read()
    }

    /// Why there is nothing to lock or unlock here; `None` where there is.
    pub(crate) fn refusal(&self, verb: &str) -> Option<Shown> {
        let why = if in_container() {
            "in a container the mounts are its manager's".to_owned()
        } else if !self.plan.is_strict() {
            format!(
                "usrpolicy is not strict ({}), so nothing is opened or closed by hand; what was closed at boot stays so until the next one",
                self.plan.mode_origin
            )
        } else {
            return None;
        };
        Some(Shown::refused(vec![format!("{verb}: {why}")]))
    }

    /// The mount that holds `/usr`.
    pub(crate) fn usr(&self) -> Result<Option<UsrMount>, Failure> {
        mounted_usr(&self.root)
    }

    /// What is remembered, brought up to date by what is merged now: a merge or unmerge that nobody has seen yet must not
    /// end what is asked for after it.
    pub(crate) fn state(&self, _turn: &Turn) -> Result<State, Failure> {
        let is_merged = merged(&self.root)?.is_some();
        Ok(state::read()?.after(is_merged, state::now()))
    }
}

/// The extensions that are merged, by the name that systemd-sysext(8) has for them; `None` where none are.
pub(crate) fn merged(root: &Root) -> Result<Option<Vec<String>>, Failure> {
    if !mounted_usr(root)?.is_some_and(|usr| usr.is_sysext) {
        return Ok(None);
    }
    let names = merged_over(root, "/usr")?;
    Ok(Some(names.unwrap_or_default()))
}

/// Whether the file system of a directory is read-only, whatever its mount is.
pub(crate) fn is_read_only(root: &Root, path: &str) -> Result<bool, Failure> {
    let Some(directory) = root.directory(path)? else {
        return Ok(false);
    };
    fstatvfs(&directory)
        .map(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
        .map_err(|error| Failure::new(path, "cannot look at", error))
}

/// Closes what is to be closed, in the one way in which everything is; whether that was done.
pub(crate) fn sync() -> Result<bool, Failure> {
    let mut command = Command::new(BOOT_PROGRAM);
    // Who has it in his environment is not told by PID 1 that this is a container; see `in_container`.
    command.arg("sync").env_remove("SYSTEMD_VIRTUALIZATION");
    let status = command.status();
    status
        .map(|status| status.success())
        .map_err(|error| Failure::new(BOOT_PROGRAM, "cannot run", error))
}
