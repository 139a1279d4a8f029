//! What could have undone a rule: files of units that are not the vendor's, and the configuration of systemd-sysext.

use std::collections::BTreeMap;

use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::plan::{Installation, Plan};
use usr_policy_plan::verify::{Undoers, UnitFile, units};
use usr_policy_system::root::Root;
use usr_policy_system::seen::installation;

/// Where units are, but for those of vendors; the first file of a name wins. Source: systemd.unit(5).
const UNIT_DIRECTORIES: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
];

/// Where the configuration of systemd-sysext is, the last one that has a name wins. Source: sysext.conf(5).
const SYSEXT_CONF: [&str; 4] = [
    "/usr/lib/systemd",
    "/usr/local/lib/systemd",
    "/run/systemd",
    "/etc/systemd",
];

// What cannot be read is no evidence, and there may be other.
pub(super) fn undoers(plan: &Plan, root: &Root) -> Undoers {
    let has_generator = match installation(root) {
        Installation::NoGenerator => Some(false),
        Installation::Whole | Installation::NobodyToLock => Some(true),
        Installation::NoBootProgram => None,
    };
    Undoers {
        units: unit_files(root, &units(plan)),
        sysext_conf: sysext_conf(root),
        has_generator,
    }
}

fn unit_files(root: &Root, units: &[String]) -> Vec<UnitFile> {
    let mut files = Vec::new();
    for directory in UNIT_DIRECTORIES {
        let names = root.names(directory).unwrap_or_default();
        for name in names.iter().filter_map(|name| name.to_str()) {
            let unit = name.strip_suffix(".d").unwrap_or(name);
            if !units.iter().any(|one| one == unit) {
                continue;
            }
            let path = format!("{directory}/{name}");
            if unit == name {
                files.extend(unit_file(root, unit, path, false));
            } else {
                for path in drop_ins(root, &path) {
                    files.extend(unit_file(root, unit, path, true));
                }
            }
        }
    }
    files
}

fn unit_file(root: &Root, unit: &str, path: String, is_drop_in: bool) -> Option<UnitFile> {
    let text = root.read(&path).ok()??;
    Some(UnitFile {
        unit: unit.to_owned(),
        path,
        is_drop_in,
        text,
    })
}

/// The drop-ins in a directory, by name.
fn drop_ins(root: &Root, directory: &str) -> Vec<String> {
    let names = root.names(directory).unwrap_or_default();
    let names = names.iter().filter_map(|name| name.to_str());
    let mut paths: Vec<String> = names
        .filter(|name| name.strip_suffix(".conf").is_some())
        .map(|name| format!("{directory}/{name}"))
        .collect();
    paths.sort_unstable();
    paths
}

/// `sysext.conf` first, then its drop-ins by name.
fn sysext_conf(root: &Root) -> Vec<ConfigFile> {
    let mut main = None;
    let mut by_name = BTreeMap::new();
    for directory in SYSEXT_CONF {
        let path = format!("{directory}/sysext.conf");
        if let Ok(Some(text)) = root.read(&path) {
            main = Some((path, text));
        }
        for path in drop_ins(root, &format!("{directory}/sysext.conf.d")) {
            if let Ok(Some(text)) = root.read(&path) {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                by_name.insert(name, (path, text));
            }
        }
    }
    let files = main.into_iter().chain(by_name.into_values());
    files
        .map(|(path, text)| ConfigFile {
            path: path.into_bytes(),
            text,
        })
        .collect()
}
