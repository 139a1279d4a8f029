//! The log's share of what is wrong in a file: a file of nothing but mistakes must neither hold the boot nor fill the log.

use std::fmt;

use log::{Level, error, log};
use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::Origin;
use usr_policy_plan::text::Shown;

/// How many problems of one file are said.
const SAID: usize = 20;

/// Says what could not be understood; returns how much that is.
pub(crate) fn say_problems(plan: &Plan) -> usize {
    // Those of one file do not always come one after the other.
    let mut files: Vec<(&[u8], usize)> = Vec::new();
    for problem in &plan.problems {
        if let Origin::File { path, .. } = &problem.origin {
            let known = files.iter().rposition(|(file, _)| file == path);
            let index = known.unwrap_or_else(|| {
                files.push((path, 0));
                files.len() - 1
            });
            let said = &mut files[index].1;
            *said += 1;
            if *said > SAID {
                continue;
            }
        }
        error!("{problem}");
    }
    for (path, number) in files {
        say_more(Level::Error, &Shown(path), number);
    }
    plan.problems.len()
}

/// Says the first of what is to be said of one file.
pub(crate) fn say_first(
    level: Level,
    file: &dyn fmt::Display,
    lines: &mut dyn Iterator<Item = String>,
) {
    let mut number = 0;
    for line in lines {
        number += 1;
        if number <= SAID {
            log!(level, "{line}");
        }
    }
    say_more(level, file, number);
}

fn say_more(level: Level, file: &dyn fmt::Display, number: usize) {
    if let Some(more) = number.checked_sub(SAID).filter(|&more| more > 0) {
        log!(
            level,
            "{file}: and {more} more; usr-policy plan shows all of them"
        );
    }
}
