//! Gathers what a plan is made from, once; after that nothing asks the system what to do.

use std::io::ErrorKind;

use rustix::fs::OFlags;
use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::plan::{FSTAB, Facts};
use usr_policy_plan::policy::{Mode, Policy, is_off};

use crate::drop_ins::drop_ins;
use crate::failure::Failure;
use crate::pacman::pacman_conf;
use crate::root::Root;

/// The configuration file, and the directory of its drop-ins.
struct Place {
    file: &'static str,
    drop_ins: &'static str,
}

macro_rules! place {
    ($directory:literal) => {
        Place {
            file: concat!($directory, "/usr-policy.conf"),
            drop_ins: concat!($directory, "/usr-policy.conf.d"),
        }
    };
}

/// What a configuration file may hold, in bytes: a policy has some dozen lines, and whatever is read holds the boot.
const CONFIGURATION: u64 = 1 << 20;

/// Where configuration is looked for, first match wins. Source: UAPI.6, Configuration Files Specification.
const PLACES: [Place; 4] = [
    place!("/etc"),
    place!("/run"),
    place!("/usr/local/lib"),
    place!("/usr/lib"),
];

/// The text of the running kernel's command line.
///
/// # Errors
/// The kernel's, where /proc is not mounted or cannot be read.
pub fn running_cmdline(root: &Root) -> Result<Vec<u8>, Failure> {
    let not_there = || {
        Failure::new(
            usr_policy_plan::policy::CMDLINE_FILE,
            "cannot read",
            rustix::io::Errno::NOENT,
        )
    };
    root.read(usr_policy_plan::policy::CMDLINE_FILE)?
        .ok_or_else(|| not_there().with_remedy("mount proc on /proc"))
}

/// Reads configuration and fstab below a root. What cannot be read is left out, and said.
#[must_use]
pub fn gather(root: &Root, cmdline: &[u8]) -> (Facts, Vec<Failure>) {
    gather_from(root, Cmdline::parse(cmdline), true)
}

/// The same, for whoever acts: where the command line says off, no configuration is looked at. It is the way out, and works
/// whatever is wrong there.
#[must_use]
pub fn gather_to_act(root: &Root, cmdline: &[u8]) -> (Facts, Vec<Failure>) {
    let cmdline = Cmdline::parse(cmdline);
    let counts = !is_off(&cmdline);
    gather_from(root, cmdline, counts)
}

fn gather_from(root: &Root, cmdline: Cmdline, reads_configuration: bool) -> (Facts, Vec<Failure>) {
    let mut failures = Vec::new();
    let mut failed = |failure| failures.push(failure);
    let mut configuration = Vec::new();
    let paths = if reads_configuration {
        config_paths(root, &mut failed)
    } else {
        Vec::new()
    };
    for path in paths {
        match root.read_at_most(&path, CONFIGURATION) {
            Ok(Some(text)) => configuration.push(ConfigFile {
                path: path.into(),
                text,
            }),
            Ok(None) => {}
            Err(failure) if failure.error.kind() == ErrorKind::FileTooLarge => {
                let remedy =
                    "a configuration file may hold 1 MiB; remove what does not belong there";
                failed(failure.with_remedy(remedy));
            }
            Err(failure) => failed(failure),
        }
    }
    let fstab = root.read(FSTAB).unwrap_or_else(|failure| {
        failed(failure);
        None
    });
    let mut facts = Facts {
        cmdline,
        configuration,
        fstab,
        database: None,
    };
    // What is off reads nothing that somebody else may have got wrong.
    if Policy::new(&facts.cmdline, &facts.configuration, None).mode != Mode::Off {
        facts.database = pacman_conf(root).database();
    }
    (facts, failures)
}

/// The configuration files, in the order in which they apply: the first main file, then the drop-ins by name.
fn config_paths(root: &Root, failed: &mut dyn FnMut(Failure)) -> Vec<String> {
    // The name counts, wherever it leads: a link to /dev/null masks the rest, also below a root without a /dev.
    let is_there = |place: &&Place| {
        root.open_at(place.file, OFlags::PATH | OFlags::NOFOLLOW)
            .is_ok()
    };
    let mut paths = Vec::from_iter(
        PLACES
            .iter()
            .find(is_there)
            .map(|place| place.file.to_owned()),
    );
    let directories = PLACES.iter().map(|place| place.drop_ins);
    paths.extend(drop_ins(root, directories, failed));
    paths
}
