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
    UNMERGE,
    Step {
        name: "merge-again",
        script: MERGE,
    },
    Step {
        name: "unmerge-again",
        ..UNMERGE
    },
];

const MERGE: &str =
    "ln -sfn /opt/extensions/hello /run/extensions/hello && systemd-sysext merge && hello-ext";

/// The extension is unmerged, and its program is gone.
pub const UNMERGE: Step = Step {
    name: "unmerge",
    script: "systemd-sysext unmerge && ! test -e /usr/bin/hello-ext",
};

/// With the guard an unmerge opens the database once it has settled, which only a follower does that knows of the merge.
pub const OPENS: Step = Step {
    name: "opens",
    script: ". input/lock && becomes '/var/lib/pacman takes writes'",
};

/// What the program of the extension says.
pub const HELLO: &str = "hello from the extension";

/// What a running system does to itself, and must not move anything: each step ends with the list of units that a
/// policy may have, and the first one is that list alone.
pub const STIR: [Step; 5] = [
    Step {
        name: "untouched",
        script: UNITS,
    },
    Step {
        name: "daemon-reload",
        script: concat!("systemctl daemon-reload && ", include_str!("guest/units")),
    },
    Step {
        name: "daemon-reexec",
        script: concat!("systemctl daemon-reexec && ", include_str!("guest/units")),
    },
    Step {
        name: "isolate-and-back",
        script: concat!(
            "systemctl isolate rescue.target && systemctl isolate multi-user.target && ",
            include_str!("guest/units")
        ),
    },
    Step {
        name: "remount-fs-again",
        script: concat!(
            "systemctl restart systemd-remount-fs.service && ",
            include_str!("guest/units")
        ),
    },
];

const UNITS: &str = include_str!("guest/units");
