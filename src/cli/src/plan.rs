//! `usr-policy plan`: byte for byte what the generator would write, then what the initramfs stages would do; with `--diff`, what
//! of that is not so in the running system.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use usr_policy_plan::difference::{self, Running};
use usr_policy_plan::plan::{FSTAB, Plan, Seen, Stage, Step};
use usr_policy_plan::unit::{Directory, Entry, UnitTree, unit_tree};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;
use usr_policy_system::seen::installation;

use crate::container::in_container;
use crate::observe::hidden::Depth;
use crate::observe::observe;
use crate::{COULD_NOT_TELL, Outcome, Shown};

/// The first directory that systemd gives its generators; a drop-in names a file in it.
const NORMAL: &[u8] = b"/run/systemd/generator";

/// The three directories of systemd's generators, in the running system. Source: systemd.generator(7).
const RUNNING: [(Directory, &str); 3] = [
    (Directory::Normal, "/run/systemd/generator"),
    (Directory::Early, "/run/systemd/generator.early"),
    (Directory::Late, "/run/systemd/generator.late"),
];

pub(crate) fn run(root: PathBuf, cmdline: Option<OsString>) -> Outcome {
    let cmdline = match cmdline {
        Some(text) => text.as_bytes().to_vec(),
        None => running_cmdline(&Root::open("/")?)?,
    };
    let root = Root::open(root)?;
    let (facts, failures) = gather(&root, &cmdline);
    let plan = Plan::new(&facts);
    let tree = unit_tree(&plan, NORMAL);

    let mut complaints = complaints(&plan, &failures);
    let exit_code = u8::from(!complaints.is_empty());
    if plan.is_strict() {
        let bad_lines = plan.fstab_lines.iter();
        complaints.extend(bad_lines.map(|bad| format!("{FSTAB}:{}: {}", bad.line, bad.problem)));
        complaints.extend(plan.left_out.iter().map(ToString::to_string));
    }

    // Both stages are asked as if they found the root as it is now, and nothing read-only yet.
    let seen = Seen {
        root_mounted: true,
        usr_exists: true,
        installation: installation(&root),
        usr: None,
    };
    let steps =
        [Stage::Early, Stage::Late].map(|stage| (stage, plan.step(stage, &facts.cmdline, &seen)));
    let mut text = Vec::new();
    // Writing to a Vec does not fail.
    let _ = show(&mut text, &tree, &steps);
    Ok(Shown {
        text,
        complaints,
        exit_code,
    })
}

/// What could not be read or understood.
fn complaints(plan: &Plan, failures: &[Failure]) -> Vec<String> {
    let failures = failures.iter().map(ToString::to_string);
    let problems = plan.problems.iter().map(ToString::to_string);
    failures.chain(problems).collect()
}

/// What would change against the running system.
pub(crate) fn difference(cmdline: Option<OsString>) -> Outcome {
    if in_container() {
        return Ok(Shown {
            text: b"usr-policy: in a container: the generator writes nothing there\n".to_vec(),
            complaints: Vec::new(),
            exit_code: 0,
        });
    }
    let root = Root::open("/")?;
    let cmdline = match cmdline {
        Some(text) => text.as_bytes().to_vec(),
        None => running_cmdline(&root)?,
    };
    let (facts, failures) = gather(&root, &cmdline);
    let plan = Plan::new(&facts);
    let tree = unit_tree(&plan, NORMAL);
    let running = running(&root)?;
    let observed = observe(&plan, Depth::Shallow)?;

    let mut text = difference::units(&tree, &running);
    text.extend(difference::mounts(&plan, &running, &observed));
    let mut complaints = complaints(&plan, &failures);
    let is_different = !text.is_empty() || !complaints.is_empty();
    let unseen = observed.blind.iter();
    complaints
        .extend(unseen.map(|blind| format!("{}: {}; {}", blind.subject, blind.what, blind.remedy)));
    Ok(Shown {
        text,
        complaints,
        exit_code: match (observed.blind.is_empty(), is_different) {
            (false, _) => COULD_NOT_TELL,
            (true, is_different) => u8::from(is_different),
        },
    })
}

/// What generators have written; ours wrote a part of it.
fn running(root: &Root) -> Result<Running, Failure> {
    let mut running = Running::new();
    for (directory, path) in RUNNING {
        let mut rest = vec![String::new()];
        while let Some(below) = rest.pop() {
            for name in root.names(&format!("{path}/{below}"))? {
                // A name that is no text is none of a unit.
                let Some(name) = name.to_str() else {
                    continue;
                };
                let name = format!("{below}{name}");
                let whole = format!("{path}/{name}");
                let fail = |error| Failure::new(&whole, "cannot be looked at", error);
                let metadata = fs::symlink_metadata(&whole).map_err(fail)?;
                let entry = if metadata.is_symlink() {
                    let target = fs::read_link(&whole).map_err(fail)?;
                    Entry::Link(target.display().to_string())
                } else if metadata.is_dir() {
                    rest.push(format!("{name}/"));
                    continue;
                } else {
                    Entry::File(root.read(&whole)?.unwrap_or_default())
                };
                running.insert((directory, name), entry);
            }
        }
    }
    Ok(running)
}

fn show(out: &mut impl Write, tree: &UnitTree, steps: &[(Stage, Step)]) -> io::Result<()> {
    for (directory, name, entry) in tree.iter() {
        match entry {
            Entry::File(bytes) | Entry::FileNeeding(_, bytes) => {
                writeln!(out, "==> {directory}/{name} <==")?;
                out.write_all(bytes)?;
                // An fstab may end without a newline; the next head line starts a line all the same.
                if !bytes.ends_with(b"\n") {
                    writeln!(out)?;
                }
            }
            Entry::Link(target) => writeln!(out, "==> {directory}/{name} -> {target}")?,
        }
    }
    writeln!(out, "==> initramfs <==")?;
    for (stage, step) in steps {
        let what = match step {
            Step::Leave(why) | Step::Refuse(why) => format!("leaves /usr as it is: {why}"),
            Step::SetReadOnly | Step::LeavePeerGroup { .. } | Step::Bind { .. } => {
                "makes /usr read-only, if it is not yet".to_owned()
            }
        };
        writeln!(out, "{stage}: {what}")?;
    }
    Ok(())
}
