//! Packages that a package manager changed while extensions covered `/usr`: what it unpacks then meets the read-only overlay,
//! and its database says all the same that it is there.
//!
//! [`begin`] remembers what the database says when a merge finds a transaction at work, [`end`] compares when that is over.
//! What is found outlives the boot, as the damage does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::pacman::packages_in_usr;
use crate::root::Root;
use crate::state::{Turn, replace};

/// The packages when the merge was seen; goes with the machine.
const BEFORE: &str = "/run/usr-policy/state/covered";

/// The packages that were changed since, each with what the database said when that was found.
const COVERED: &str = "/var/lib/usr-policy/covered";

/// What stands for a package that the database no longer has.
const GONE: &str = "-";

/// Packages by name and version, with a stamp that is another one when they are installed again.
type Packages = BTreeMap<String, String>;

/// The names of packages, and whether they could be written down.
pub type Found = (Vec<String>, Result<(), Failure>);

/// Remembers the packages of a database, unless that was done at an earlier look at the same transaction.
///
/// # Errors
/// The kernel's.
pub fn begin(_turn: &Turn, root: &Root, database: &str) -> Result<(), Failure> {
    if root.read(BEFORE)?.is_some() {
        return Ok(());
    }
    write(BEFORE, &packages_in_usr(root, database)?)
}

/// Whether a transaction was found at work at a merge, and its end was not seen yet.
#[must_use]
pub fn has_begun() -> bool {
    Path::new(BEFORE).exists()
}

/// Finds the packages with files below `/usr` that were changed since [`begin`]; none where that was not called.
///
/// # Errors
/// The kernel's; then the next call finds them. That they could not be written down is told beside them.
pub fn end(_turn: &Turn, root: &Root, database: &str) -> Result<Found, Failure> {
    let Some(before) = root.read(BEFORE)? else {
        return Ok((Vec::new(), Ok(())));
    };
    let (before, now) = (parse(&before), packages_in_usr(root, database)?);
    let either = before.keys().chain(now.keys());
    let changed: Packages = either
        .filter(|name| before.get(*name) != now.get(*name) && !is_replaced(&now, name))
        .map(|name| (name.clone(), stamp(&now, name).to_owned()))
        .collect();
    // First: what is installed after this is no part of that transaction, whether or not it can be written down.
    fs::remove_file(BEFORE).map_err(|error| Failure::new(BEFORE, "cannot remove", error))?;
    let mut written = Ok(());
    if !changed.is_empty() {
        let mut all = still_covered(root, &now).unwrap_or_default();
        all.extend(changed.clone());
        written = write(COVERED, &all);
    }
    Ok((changed.into_keys().collect(), written))
}

/// The packages that were changed under extensions, and not again since.
///
/// # Errors
/// The kernel's, where the record or the database cannot be read.
pub fn covered(root: &Root, database: &str) -> Result<Vec<String>, Failure> {
    if root.read(COVERED)?.is_none() {
        return Ok(Vec::new());
    }
    let now = packages_in_usr(root, database)?;
    Ok(still_covered(root, &now)?.into_keys().collect())
}

fn still_covered(root: &Root, now: &Packages) -> Result<Packages, Failure> {
    let mut packages = parse(&root.read(COVERED)?.unwrap_or_default());
    packages.retain(|name, found| stamp(now, name) == found && !is_replaced(now, name));
    Ok(packages)
}

/// Whether a package is gone, and another version of it is there: who installs that again has mended both.
fn is_replaced(now: &Packages, name: &str) -> bool {
    !now.contains_key(name)
        && now
            .keys()
            .any(|other| without_version(other) == without_version(name))
}

/// NAME of NAME-VERSION-RELEASE. Source: pacman lib/libalpm/util.c (`_alpm_splitname`).
fn without_version(package: &str) -> &str {
    package.rsplitn(3, '-').nth(2).unwrap_or(package)
}

fn stamp<'a>(packages: &'a Packages, name: &str) -> &'a str {
    packages.get(name).map_or(GONE, String::as_str)
}

fn write(path: &str, packages: &Packages) -> Result<(), Failure> {
    let lines = packages
        .iter()
        .map(|(name, stamp)| [name, " ", stamp, "\n"].concat());
    replace(path, &lines.collect::<String>())
}

fn parse(text: &[u8]) -> Packages {
    let text = String::from_utf8_lossy(text);
    let words = text.lines().filter_map(|line| line.split_once(' '));
    words
        .map(|(name, stamp)| (name.to_owned(), stamp.to_owned()))
        .collect()
}
