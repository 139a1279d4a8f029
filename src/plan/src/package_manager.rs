//! What usr-policy knows of a package manager: a row, so that a second one is a second row.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Where a package manager keeps what must not change without `/usr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageManager {
    /// Its name, for messages.
    pub name: &'static str,
    /// The database of what is installed.
    pub database: &'static str,
    /// The cache of downloaded packages; losing it loses nothing.
    pub cache: &'static str,
    /// The file in its database that it has open for writing while it changes packages.
    pub lock_file: &'static str,
}

impl PackageManager {
    /// What is said of a lock file that nobody has open, wherever one is found.
    #[must_use]
    pub fn stale_lock(&self, database: &str) -> String {
        format!(
            "{database}/{}: no program has it open; where no package manager is at work, usr-policy lock --remove-stale removes it",
            self.lock_file
        )
    }
}

/// A database that the configuration of the package manager names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDatabase {
    /// The path as it is written there.
    pub path: Vec<u8>,
    /// The file.
    pub file: Vec<u8>,
    /// Its line, from 1.
    pub line: u32,
}

/// pacman(8), the package manager of Arch Linux, with the paths that it has where pacman.conf says nothing.
pub const PACMAN: PackageManager = PackageManager {
    name: "pacman",
    database: "/var/lib/pacman",
    cache: "/var/cache/pacman",
    lock_file: "db.lck",
};

/// The name of the hook that stops pacman from what a read-only `/usr` would break.
///
/// pacman runs hooks in the order of their names (alpm-hooks(5)), and mkinitcpio's `60-mkinitcpio-remove.hook` removes the
/// kernel from `/boot` before the transaction: ours comes first, or a removal that it stops has done that already.
pub const GUARD_NAME: &str = "00-usr-policy-guard.hook";

/// Its text, as it is installed: another one may let everything pass.
pub const GUARD_HOOK: &str = include_str!("../../../pacman/00-usr-policy-guard.hook");

/// The program that it runs.
pub const GUARD: &str = "/usr/bin/usr-policy";

#[cfg(test)]
mod tests {
    use super::GUARD_NAME;

    #[test]
    fn the_guard_runs_before_the_hook_that_removes_the_kernel() {
        assert!(GUARD_NAME < "60-mkinitcpio-remove.hook");
    }
}
