//! Drop-ins: the files of several directories that add to a configuration file or a unit.

use std::collections::BTreeMap;

use crate::failure::Failure;
use crate::root::Root;

/// The files `*.conf` of several directories, in the order in which they apply: by name, and a name in an earlier directory
/// hides it in a later one. A directory that cannot be read has none, and is told to `failed`.
///
/// Source: systemd.unit(5); UAPI.6, Configuration Files Specification.
pub fn drop_ins<S: AsRef<str>>(
    root: &Root,
    directories: impl IntoIterator<Item = S>,
    failed: &mut dyn FnMut(Failure),
) -> Vec<String> {
    let mut drop_ins = BTreeMap::new();
    for directory in directories {
        let directory = directory.as_ref();
        let names = root.names(directory).unwrap_or_else(|failure| {
            failed(failure);
            Vec::new()
        });
        for name in names {
            // A file whose name is no text could not be named in a message.
            if let Some(name) = name.to_str()
                && name.as_bytes().ends_with(b".conf")
            {
                drop_ins
                    .entry(name.to_owned())
                    .or_insert_with(|| format!("{directory}/{name}"));
            }
        }
    }
    drop_ins.into_values().collect()
}
