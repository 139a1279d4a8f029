//! What is shown: commands, and what was promised of each.

use usr_policy_tests::machine::base::EXTENSION;

/// A command in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is being done and why, in one line.
    pub why: &'static str,
    /// As root types it.
    pub command: String,
    /// What was promised, in one line.
    pub promise: &'static str,
    code: i32,
    says: Says,
}

/// What a command must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// These words, among others.
    Words(&'static [&'static str]),
    /// These lines and no other.
    Lines(&'static [&'static str]),
}

/// One boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// Short, for the directory of its logs.
    pub name: &'static str,
    /// What is added to the kernel command line.
    pub words: &'static str,
    /// What is shown there.
    pub steps: Vec<Step>,
}

impl Step {
    /// Says what is not as promised, if something is not.
    pub fn complaint(&self, code: i32, output: &[String]) -> Option<String> {
        if code != self.code {
            return Some(format!("it should have been {}", self.code));
        }
        let promised = match self.says {
            Says::Words(words) => words
                .iter()
                .find(|words| !output.iter().any(|line| line.contains(*words)))?
                .to_string(),
            Says::Lines(lines) if output == lines => return None,
            Says::Lines([]) => "nothing".to_owned(),
            Says::Lines(lines) => format!("only {}", lines.join(", ")),
        };
        Some(format!("it should have said: {promised}"))
    }
}

fn step(
    why: &'static str,
    command: impl Into<String>,
    (code, says): (i32, Says),
    promise: &'static str,
) -> Step {
    Step {
        why,
        command: command.into(),
        promise,
        code,
        says,
    }
}

const READ_ONLY: Says = Says::Words(&["Read-only file system"]);
const NOTHING: Says = Says::Lines(&[]);

/// What is tried in both boots.
const TOUCH: &str = "touch /usr/bin/x";
const INSTALL: &str = "pacman -S --noconfirm toy";
const QUERY: &str = "pacman -Q";
const MERGE: &str = "systemd-sysext merge";
const RUN_EXTENSION: &str = "hello-ext";
const UNMERGE: &str = "systemd-sysext unmerge";
const VERIFY: &str = "usr-policy verify";

/// Exit code of sh for a program that is not there.
const NOT_FOUND: i32 = 127;

/// The policy enforced.
pub fn strict() -> Scene {
    Scene {
        name: "strict",
        words: "usrpolicy=strict",
        steps: vec![
            running(),
            step(
                "One word on the kernel command line has turned the policy on:",
                WORDS,
                (0, Says::Lines(&["usrpolicy=strict"])),
                "it is the only one",
            ),
            step(
                "Write to /usr. It is the system image and changes only through systemd-sysext, so this must fail:",
                TOUCH,
                (1, READ_ONLY),
                "the kernel refuses",
            ),
            step(
                "Write to /etc, /var/lib and /home. The rest of the machine is nobody's business, so this must work:",
                "touch /etc/x /var/lib/x /home/x",
                (0, NOTHING),
                "they are writable as ever",
            ),
            step(
                "Install a package. It would change /usr, so pacman must stop before it has done anything:",
                INSTALL,
                (
                    1,
                    Says::Lines(&[
                        "error: failed to init transaction (unable to lock database)",
                        "error: could not lock database: Read-only file system",
                    ]),
                ),
                "it fails at once, and says why",
            ),
            step(
                "Ask the package manager. The database can be read, so it must answer, and know of no new package:",
                QUERY,
                (0, Says::Lines(&["oldtoy 1-1"])),
                "it answers, and nothing has changed",
            ),
            link_extension(),
            merge("Merge the extension. This is how software comes to a read-only /usr:"),
            run_extension(),
            step(
                "Write to /usr again, now that there is an overlay on it:",
                TOUCH,
                (1, READ_ONLY),
                "it is read-only with the extension too",
            ),
            unmerge(),
            step(
                "The program of the extension must be gone with it:",
                RUN_EXTENSION,
                (NOT_FOUND, Says::Words(&["hello-ext: not found"])),
                "/usr is what it was",
            ),
            step(
                "Ask usr-policy itself. It looks at the mounts, and asks the kernel about each path:",
                VERIFY,
                (
                    0,
                    Says::Words(&["usr-policy: strict", "Everything that is promised holds."]),
                ),
                "everything holds",
            ),
        ],
    }
}

/// The way back, as README says: the word is added at the end of the line.
pub fn off() -> Scene {
    Scene {
        name: "off",
        words: "usrpolicy=strict usrpolicy=off",
        steps: vec![
            running(),
            step(
                "The way back: usrpolicy=off at the end of the line, as one adds it in the boot loader's menu:",
                WORDS,
                (0, Says::Lines(&["usrpolicy=strict", "usrpolicy=off"])),
                "off beats every other word",
            ),
            step(
                "Write to /usr. Nothing is enforced, so this must work:",
                TOUCH,
                (0, NOTHING),
                "/usr is writable",
            ),
            step(
                "Install the package:",
                INSTALL,
                (0, Says::Words(&["installing toy"])),
                "it is installed",
            ),
            step(
                "Its program must run:",
                "toy",
                (0, Says::Lines(&["toy"])),
                "it is there",
            ),
            step(
                "Ask the package manager; now it must know of the new package:",
                QUERY,
                (0, Says::Lines(&["oldtoy 1-1", "toy 1-1"])),
                "the database has followed",
            ),
            link_extension(),
            merge("Merge the extension. systemd-sysext works without the policy as with it:"),
            run_extension(),
            unmerge(),
            step(
                "Ask usr-policy itself:",
                VERIFY,
                (0, Says::Words(&["usr-policy: off", "Nothing is promised."])),
                "it promises nothing",
            ),
        ],
    }
}

const WORDS: &str = "grep -o 'usrpolicy=[a-z]*' /proc/cmdline";

fn running() -> Step {
    step(
        "Has everything started?",
        "systemctl is-system-running --wait",
        (0, Says::Lines(&["running"])),
        "no unit has failed",
    )
}

fn link_extension() -> Step {
    step(
        "Make a directory extension known to systemd-sysext; /run must be writable for it:",
        format!("mkdir -p /run/extensions && ln -s {EXTENSION} /run/extensions/"),
        (0, NOTHING),
        "it is writable",
    )
}

fn merge(why: &'static str) -> Step {
    step(
        why,
        MERGE,
        (0, Says::Words(&["Merged extensions into '/usr'."])),
        "it is merged",
    )
}

fn run_extension() -> Step {
    step(
        "Its program must run from the merged /usr:",
        format!("command -v {RUN_EXTENSION} && {RUN_EXTENSION}"),
        (
            0,
            Says::Lines(&["/usr/bin/hello-ext", "hello from the extension"]),
        ),
        "it does",
    )
}

fn unmerge() -> Step {
    step(
        "Take the extension away again:",
        UNMERGE,
        (0, Says::Words(&["Unmerged '/usr'."])),
        "it is unmerged",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_step_that_ends_otherwise_or_says_something_else_is_not_as_promised() {
        let step = step("", "touch /usr/bin/x", (1, READ_ONLY), "");
        let refused = lines("touch: cannot touch '/usr/bin/x': Read-only file system");
        assert_eq!(step.complaint(1, &refused), None);
        assert!(step.complaint(0, &refused).is_some());
        assert!(step.complaint(1, &[]).is_some());
        assert!(
            step.complaint(1, &lines("No space left on device"))
                .is_some()
        );
    }

    #[test]
    fn a_line_that_was_not_promised_is_not_as_promised() {
        let step = step("", "pacman -Q", (0, Says::Lines(&["oldtoy 1-1"])), "");
        assert_eq!(step.complaint(0, &lines("oldtoy 1-1")), None);
        assert!(step.complaint(0, &lines("oldtoy 1-1\ntoy 1-1")).is_some());
    }
}
