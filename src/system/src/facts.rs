//! Gathers what a plan is made from, once; after that nothing asks the system what to do.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;
use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::plan::{FSTAB, Facts};
use usr_policy_plan::policy::{Mode, Policy};

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
    let mut failures = Vec::new();
    let mut or_none = |result: Result<Option<Vec<u8>>, Failure>| {
        result.unwrap_or_else(|failure| {
            failures.push(failure);
            None
        })
    };
    let mut configuration = Vec::new();
    for path in config_paths(root, &mut or_none) {
        if let Some(text) = or_none(root.read(&path)) {
            configuration.push(ConfigFile {
                path: path.into(),
                text,
            });
        }
    }
    let fstab = or_none(root.read(FSTAB));
    let mut facts = Facts {
        cmdline: Cmdline::parse(cmdline),
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
fn config_paths(
    root: &Root,
    or_none: &mut impl FnMut(Result<Option<Vec<u8>>, Failure>) -> Option<Vec<u8>>,
) -> Vec<String> {
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
    // A name in a directory that is searched earlier masks the same name in a later one.
    let mut drop_ins = BTreeMap::new();
    for Place {
        drop_ins: directory,
        ..
    } in &PLACES
    {
        match root.names(directory) {
            Ok(names) => {
                for name in names {
                    // A file whose name is no text cannot be ours, and could not be named in a message.
                    if let Some(name) = name
                        .to_str()
                        .filter(|_| name.as_bytes().ends_with(b".conf"))
                    {
                        drop_ins
                            .entry(name.to_owned())
                            .or_insert_with(|| format!("{directory}/{name}"));
                    }
                }
            }
            Err(failure) => drop(or_none(Err(failure))),
        }
    }
    paths.extend(drop_ins.into_values());
    paths
}
