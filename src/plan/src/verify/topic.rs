//! [`Topic`]: what a finding is about, and why that matters.

use crate::policy::{Role, Rule, Treatment};

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A word or a line that could not be understood.
    Word,
    /// A file that could not be read.
    File,
    /// Something that could not be looked at, or witnesses that disagree.
    Witness,
    /// `/usr` itself.
    Usr,
    /// The package database.
    Database,
    /// `/usr` and the package database together.
    Pair,
    /// Packages whose files are not what the database says.
    Packages,
    /// A path that is to be in memory.
    Memory,
    /// Any other path with a treatment of its own.
    Path,
    /// A path that is to stay writable.
    Writable,
    /// A mount below `/usr` that can be written.
    Hole,
    /// Another way to the same files, by which they can be written.
    Way,
    /// A file attribute that no policy sets.
    Attribute,
    /// The copy of the boot program outside `/usr`.
    PreInit,
    /// What would undo the policy later.
    NextBoot,
    /// The extensions that systemd-sysext(8) merges over `/usr`.
    Sysext,
    /// What of the system lies outside `/usr`.
    Layout,
    /// What lies beneath a tmpfs.
    Hidden,
    /// How full a tmpfs is.
    Fill,
}

impl Topic {
    /// The topic of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        match (rule.role, rule.treatment) {
            (Role::Usr, _) => Topic::Usr,
            (Role::Database, _) => Topic::Database,
            (_, Treatment::Tmpfs(_)) => Topic::Memory,
            (_, Treatment::ReadWrite) => Topic::Writable,
            (_, Treatment::ReadOnly) => Topic::Path,
        }
    }

    /// Its name for programs, which does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Topic::Word => "word",
            Topic::File => "file",
            Topic::Witness => "witness",
            Topic::Usr => "usr",
            Topic::Database => "database",
            Topic::Pair => "pair",
            Topic::Packages => "packages",
            Topic::Memory => "memory",
            Topic::Path => "path",
            Topic::Writable => "writable",
            Topic::Hole => "hole",
            Topic::Way => "way",
            Topic::Attribute => "attribute",
            Topic::PreInit => "pre-init",
            Topic::NextBoot => "next-boot",
            Topic::Sysext => "sysext",
            Topic::Layout => "layout",
            Topic::Hidden => "hidden",
            Topic::Fill => "fill",
        }
    }

    /// Why it matters where it does not hold.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Topic::Word => "what is not understood is not enforced",
            Topic::File => "what it asks for is not known, and not enforced",
            Topic::Witness => "what cannot be seen cannot be told",
            Topic::Usr => "the system image can change, and nothing records how",
            Topic::Database => {
                "the package database can change without the files that it describes"
            }
            Topic::Pair => "pacman -R would report success, forget the package and leave its files",
            Topic::Packages => "the database and the files below /usr tell different things",
            Topic::Memory => "what is written there stays on the disk, or fills the memory",
            Topic::Path => "the policy asks for it",
            Topic::Writable => "programs keep configuration, state or logs there",
            Topic::Hole => "what is written there changes a part of /usr",
            Topic::Way => "what is written by that way changes what was to be closed",
            Topic::Attribute => {
                "chattr +i makes copies and upgrades fail, and systemd-sysext among them"
            }
            Topic::PreInit => "another program than the one that is installed starts the machine",
            Topic::NextBoot => "it holds now, and something may undo it later",
            Topic::Sysext => "extensions are a part of /usr as long as they are merged",
            Topic::Layout => "a read-only /usr protects nothing of the system that lies elsewhere",
            Topic::Hidden => "it takes room on the disk, and no program sees it",
            Topic::Fill => "a program that finds no room there fails",
        }
    }
}
