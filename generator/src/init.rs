//! The init role, pre-init: the first process of a machine that starts without an initramfs. It mounts `/usr`, makes it
//! read-only, and becomes the real init, whatever went wrong before.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use usr_policy_plan::mount_options::Options;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::plan::{Facts, Plan, Stage, Step};
use usr_policy_plan::pre_init::{API_FILE_SYSTEMS, Checked, Order, SHELL, Source, real_inits};
use usr_policy_plan::text::Shown;
use usr_policy_plan::verify::Done;
use usr_policy_system::block;
use usr_policy_system::facts::{gather_to_act, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::fsck::fsck;
use usr_policy_system::kmsg;
use usr_policy_system::mount::{How, NewMount, mount_new, set_writable};
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;

use crate::apply::{Planned, record, said};
use crate::problems::say_problems;
use crate::{Failed, IDENTIFIER};

/// What a person can do where the machine does not come up.
const WAY_OUT: &str = "pre-init could not do everything; the way out is usrpolicy=off on the kernel command line, with \
    mount.usr=DEVICE mount.usrflags=ro where /usr is missing, or an initramfs and no init= there";

/// How often a device that is not there yet is looked for.
const POLL: Duration = Duration::from_millis(100);

/// After this time a person is told what is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Runs as the first process; the words are its name, and the arguments that are the real init's. It returns only where
/// nothing can be started, and where the kernel then does what the machine's owner asked for.
pub(crate) fn run(words: &[OsString]) -> u8 {
    survive(words, None);
    let missing = mount_api_file_systems();
    // Only now: before there was no /dev/kmsg.
    kmsg::init_with_console(IDENTIFIER);
    for failure in &missing {
        Failed::because(failure);
    }
    let mut real_init = None;
    let result = prepare(words, &mut real_init);
    if result.is_err() || !missing.is_empty() {
        warn!("{WAY_OUT}");
    }
    start(words, real_init.as_ref())
}

/// Does everything that comes before the real init; finds out first which one is asked for.
fn prepare(words: &[OsString], real_init: &mut Option<MountPoint>) -> Result<(), Failed> {
    let root = Root::open("/")?;
    // One that cannot be read may say off; what fstab wants on /usr is mounted all the same.
    let (cmdline, known) = match running_cmdline(&root) {
        Ok(cmdline) => (cmdline, Ok(())),
        Err(failure) => (b"usrpolicy=off".to_vec(), Err(Failed::from(failure))),
    };
    let (facts, failures) = gather_to_act(&root, &cmdline);
    let plan = Plan::new(&facts);
    // The generator says it again where there is a systemd to call it.
    for failure in &failures {
        Failed::because(failure);
    }
    say_problems(&plan);
    *real_init = plan.real_init;
    survive(words, real_init.as_ref());
    close(root, &cmdline, &facts).and(known)
}

/// A mistake in this program must not end in a kernel panic: the process becomes the real init instead.
fn survive(words: &[OsString], asked: Option<&MountPoint>) {
    let (words, asked) = (words.to_vec(), asked.cloned());
    std::panic::set_hook(Box::new(move |what| {
        error!("a mistake in usr-policy: {what}");
        warn!("{WAY_OUT}");
        start(&words, asked.as_ref());
    }));
}

/// Mounts what is missing of the file systems that every program expects.
fn mount_api_file_systems() -> Vec<Failure> {
    let mut failures = Vec::new();
    for fs in API_FILE_SYSTEMS {
        let mounted = Root::open(fs.mount_point).and_then(|directory| {
            // A kernel that cannot tell is asked to mount.
            if mount_of(&directory).is_ok_and(|mount| mount.is_its_root) {
                return Ok(());
            }
            let new = NewMount {
                source: fs.fs_type.as_bytes(),
                fs_type: fs.fs_type.as_bytes(),
                options: &Options::parse(fs.options),
            };
            mount_new(&new, &directory)
                .map(drop)
                .map_err(|failure| failure.at(fs.mount_point))
        });
        failures.extend(mounted.err());
    }
    failures
}

/// Sees to it that `/usr` is there, and that it is read-only under strict.
fn close(root: Root, cmdline: &[u8], facts: &Facts) -> Result<(), Failed> {
    let is_mounted = root
        .directory("/usr")
        .ok()
        .flatten()
        .is_some_and(|usr| mount_of(&usr).is_ok_and(|mount| mount.is_its_root));
    let order = match Order::new(facts) {
        Some(Ok(order)) if !is_mounted => order,
        Some(Err(unsupported)) if !is_mounted => return Err(Failed::because(&unsupported)),
        _ => return Planned::with(cmdline, root).close_usr(Stage::Init),
    };
    let (mount, options) = mount_usr(&root, &order)?;
    // Once more: some of the configuration is in /usr.
    keep_or_open(&Planned::with(cmdline, root), &mount, &options)
}

/// Mounts `/usr` read-only, whoever may want it otherwise; returns its mount, and the options that it is to have.
fn mount_usr(root: &Root, order: &Order) -> Result<(OwnedFd, Options), Failure> {
    let fail = |error| Failure::new(spec(order), "cannot mount on /usr", error);
    let directory = root.directory("/usr")?.ok_or_else(|| {
        fail(Error::other("there is no such directory")).with_remedy("make one, empty")
    })?;
    let source = match &order.source {
        Source::Share { .. } => spec(order),
        _ => wait_for(root, order)?,
    };
    let fs_type = match &order.fs_type {
        Some(fs_type) => fs_type.clone(),
        None => block::superblock(&source)
            .map_err(fail)?
            .ok_or_else(|| {
                fail(Error::other("its file system is not known"))
                    .with_remedy("write its type instead of auto")
            })?
            .fs_type
            .into(),
    };
    let asked = check(order, &fs_type, &source);
    let mount = |options: &Options| {
        let new = NewMount {
            source: source.as_os_str().as_bytes(),
            fs_type: &fs_type,
            options: &Options {
                read_only: true,
                ..options.clone()
            },
        };
        mount_new(&new, &directory)
    };
    let failure = match mount(&asked) {
        Ok(mount) => return Ok((mount, asked)),
        Err(failure) => failure,
    };
    let least = asked.least();
    // An option that is refused is no reason to have no /usr.
    if failure.error.kind() == ErrorKind::InvalidInput
        && least.settings != asked.settings
        && let Ok(mount) = mount(&least)
    {
        error!("{}", failure.with_remedy("/usr is mounted read-only without the options of its file system; correct them in fstab or mount.usrflags="));
        return Ok((mount, least));
    }
    Err(failure)
}

fn spec(order: &Order) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&order.spec))
}

/// Runs fsck where that is asked for; returns the options, read-only where the file system is not clean.
fn check(order: &Order, fs_type: &[u8], device: &Path) -> Options {
    let mut options = order.options.clone();
    let unchecked = |why: &dyn fmt::Display| {
        warn!(
            "/sbin/fsck.{}: {why}; /usr is mounted unchecked, as without a helper on the root file system",
            Shown(fs_type)
        );
    };
    match fsck(fs_type, device, order.check) {
        Ok(None | Some(Checked::Clean)) => {}
        Ok(Some(Checked::NotClean)) => {
            error!(
                "{}: fsck could not mend everything; /usr stays read-only, and fsck by hand from another system is needed",
                device.display()
            );
            options.read_only = true;
            options.read_only_file_system = true;
        }
        Ok(Some(Checked::NotAtAll(status))) => {
            unchecked(&format_args!("could not run (exit status {status})"));
        }
        Err(error) => unchecked(&error),
    }
    options
}

/// Looks for the device until it is there.
fn wait_for(root: &Root, order: &Order) -> Result<PathBuf, Failure> {
    let began = Instant::now();
    let mut has_said = false;
    loop {
        if let Some(device) = block::find(root, &order.source)? {
            return Ok(device);
        }
        let waited = began.elapsed();
        if order.patience.is_some_and(|patience| waited >= patience) {
            return Err(Failure::new(
                spec(order),
                "cannot mount on /usr",
                Error::other("there is no such device"),
            )
            .with_remedy(
                "encrypted devices, LVM, most RAID and ZFS need an initramfs; a slow disk needs x-systemd.device-timeout= in fstab",
            ));
        }
        if waited >= SILENCE && !has_said {
            warn!("/usr: waiting for {}", Shown(&order.spec));
            has_said = true;
        }
        std::thread::sleep(POLL);
    }
}

/// `/usr` was mounted read-only, and stays so where the policy is strict; else it becomes what was asked for, also where
/// nobody can tell.
fn keep_or_open(planned: &Planned, usr: &OwnedFd, asked: &Options) -> Result<(), Failed> {
    let result = if planned.plan.is_strict() {
        match planned.step(Stage::Init) {
            Ok((Step::Refuse(why), _)) => Err(Failed::because(&format_args!("/usr: {why}"))),
            Err(failure) => Err(failure.into()),
            Ok(_) => {
                said("/usr", How::Atomically);
                record(&Stage::Init.to_string(), "/usr", Done::ReadOnly);
                return Ok(());
            }
        }
    } else {
        Ok(())
    };
    if !asked.read_only {
        set_writable(usr).map_err(|error| Failure::new("/usr", "cannot make writable", error))?;
    }
    info!("/usr: mounted");
    result
}

/// Becomes the real init. It returns where there is none.
fn start(words: &[OsString], asked: Option<&MountPoint>) -> u8 {
    // Without /proc: the kernel calls an init by its path, and so do we.
    let this =
        fs::read("/proc/self/exe").or_else(|error| words.first().map_or(Err(error), fs::read));
    for path in real_inits(asked) {
        let path = Path::new(OsStr::from_bytes(path));
        if this.as_ref().is_ok_and(|this| is_copy(path, this)) {
            error!(
                "{}: is usr-policy itself, and not started again; name the real init with usrpolicy.init=",
                path.display()
            );
            continue;
        }
        let mut command = Command::new(path);
        if path != Path::new(SHELL) {
            command.args(words.iter().skip(1));
        }
        info!("starting {}", path.display());
        // Descriptors of ours are closed by it; signals and environment are as the kernel gave them.
        let error = command.exec();
        let is_asked = asked.is_some_and(|asked| asked.as_bytes() == path.as_os_str().as_bytes());
        if error.kind() == ErrorKind::NotFound && !is_asked {
            debug!("{}: {error}", path.display());
        } else {
            error!(
                "{}",
                Failure::new(path, "cannot start", error).with_remedy("trying the next init")
            );
        }
    }
    nothing_to_start()
}

/// Whether a file has the same contents as a program: two copies would start each other for ever.
fn is_copy(path: &Path, program: &[u8]) -> bool {
    // A pipe or a device may have no end.
    let is_candidate = fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && usize::try_from(meta.len()) == Ok(program.len()));
    is_candidate && fs::read(path).is_ok_and(|text| text == program)
}

/// The kernel's own answer to a missing init is a panic, after which it restarts where `panic=` says so: then that is what
/// the owner wants. Else the message stays to be read.
fn nothing_to_start() -> u8 {
    error!(
        "no init could be started; press Ctrl-Alt-Delete, and boot with an initramfs or name an init with usrpolicy.init="
    );
    if fs::read("/proc/sys/kernel/panic").is_ok_and(|seconds| seconds.trim_ascii() != b"0") {
        return 1;
    }
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}
