//! Steps that many cases take. A case and its twin take the same ones, so that each shows what the other must not.

use crate::case::Step;

/// A package manager's day: ask, install, remove, synchronise. `digest-before` and `digest-after` frame it.
pub const PACMAN: [Step; 6] = [
    Step {
        name: "digest-before",
        script: DIGEST,
    },
    Step {
        name: "pacman-query",
        script: "pacman -Q",
    },
    Step {
        name: "pacman-install",
        script: "pacman -S --noconfirm toy",
    },
    Step {
        name: "pacman-remove",
        script: "pacman -R --noconfirm oldtoy",
    },
    Step {
        name: "pacman-synchronise",
        script: "pacman -Syy",
    },
    Step {
        name: "digest-after",
        script: DIGEST,
    },
];

const DIGEST: &str = "sh input/digest";

/// An extension linked, merged by hand and unmerged again, twice.
pub const MERGE_BY_HAND: [Step; 4] = [
    Step {
        name: "merge",
        script: MERGE,
    },
    Step {
        name: "unmerge",
        script: UNMERGE,
    },
    Step {
        name: "merge-again",
        script: MERGE,
    },
    Step {
        name: "unmerge-again",
        script: UNMERGE,
    },
];

const MERGE: &str =
    "ln -sfn /opt/extensions/hello /run/extensions/hello && systemd-sysext merge && hello-ext";

const UNMERGE: &str = "systemd-sysext unmerge && ! test -e /usr/bin/hello-ext";

/// What the program of the extension says.
pub const HELLO: &str = "hello from the extension";
