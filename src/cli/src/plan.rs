//! `usr-policy plan`: byte for byte what the generator would write, then what the initramfs stages would do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use usr_policy_plan::plan::{FSTAB, Plan, Seen, Stage, Step};
use usr_policy_plan::unit::{Entry, UnitTree, unit_tree};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::root::Root;
use usr_policy_system::seen::installation;

use crate::{Outcome, Shown};

/// The first directory that systemd gives its generators; a drop-in names a file in it.
const NORMAL: &[u8] = b"/run/systemd/generator";

pub(crate) fn run(root: PathBuf, cmdline: Option<OsString>) -> Outcome {
    let cmdline = match cmdline {
        Some(text) => text.as_bytes().to_vec(),
        None => running_cmdline(&Root::open("/")?)?,
    };
    let root = Root::open(root)?;
    let (facts, failures) = gather(&root, &cmdline);
    let plan = Plan::new(&facts);
    let (tree, too_long) = unit_tree(&plan, NORMAL);

    let mut complaints: Vec<String> = failures.iter().map(ToString::to_string).collect();
    complaints.extend(plan.problems.iter().map(ToString::to_string));
    complaints.extend(too_long.iter().map(ToString::to_string));
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
    match show(&mut text, &tree, &steps) {
        Ok(()) => Ok(Shown {
            text,
            complaints,
            exit_code,
        }),
        Err(error) => Err(usr_policy_system::failure::Failure::new(
            "plan",
            "cannot be shown",
            error,
        )),
    }
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
