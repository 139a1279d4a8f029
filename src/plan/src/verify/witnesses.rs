//! Which witnesses could not be asked.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::Judge;
use super::layers::some_of;
use super::{Access, Caller, Follower, Kind, Place, Topic, Verdict};
use crate::unit::FOLLOW_SERVICE;

impl Judge<'_> {
    /// The witnesses that could not be asked; `None` where all could.
    fn missing_witnesses(&self) -> Option<String> {
        let at = |is_missing: &dyn Fn(&Place) -> bool| {
            let places = self.observed.places.iter().filter(|place| {
                matches!(place.kind, Kind::Directory | Kind::Linked) && is_missing(place)
            });
            let mut paths: Vec<String> = places.map(|place| place.path.to_string()).collect();
            // A path can be that of two rules.
            paths.sort_unstable();
            paths.dedup();
            (!paths.is_empty()).then(|| some_of(&paths))
        };
        let access = at(&|place| place.access == Access::NoWitness);
        let statvfs = at(&|place| place.statvfs_read_only.is_none());
        let second = &self.observed.layers.second;
        let has_no_answer = self.observed.follower == Follower::Unknown
            && self.observed.system.runs_systemd == Some(true)
            && self.plan.database().is_some();
        let missing: Vec<String> = [
            access.map(|paths| format!("faccessat at {paths}")),
            statvfs.map(|paths| format!("statvfs at {paths}")),
            second
                .is_none()
                .then(|| "a second reading of the mount table".into()),
            has_no_answer.then(|| FOLLOW_SERVICE.into()),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// What was not seen although nothing is wrong with it. Fewer witnesses are no fault of the machine.
    pub(super) fn witnesses(&mut self) {
        let missing = self.missing_witnesses();
        if !self.observed.layers.has_unseen_processes {
            if let Some(missing) = missing {
                self.without(&missing);
            }
            return;
        }
        let what = match (self.observed.caller, &missing) {
            (Caller::Other, missing) => {
                let missing = missing.as_ref();
                let missing =
                    missing.map(|missing| format!(", nor was there an answer from {missing}"));
                format!(
                    "seen without the rights of root: processes with mounts of their own were not looked at{}",
                    missing.unwrap_or_default()
                )
            }
            (Caller::Root, _) => {
                "some processes with mounts of their own could not be looked at".into()
            }
        };
        self.find(
            Verdict::Warning,
            Topic::Witness,
            &"processes",
            what,
            self.observed.caller.way_to_see(),
        );
        if let (Caller::Root, Some(missing)) = (self.observed.caller, missing) {
            self.without(&missing);
        }
    }

    fn without(&mut self, missing: &str) {
        let what = format!("no answer from {missing}");
        self.find(
            Verdict::NotApplicable,
            Topic::Witness,
            &"witnesses",
            what,
            "",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan, says};
    use super::super::{Observed, Report, SecondReading, report};
    use super::*;

    fn judged(change: impl FnOnce(&mut Observed)) -> Report {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, "1 0 0:1 / / rw - ext4 a rw\n");
        for place in &mut seen.places {
            place.access = Access::Writable;
            place.statvfs_read_only = Some(false);
        }
        seen.layers.second = Some(SecondReading {
            unreadable: 1,
            ..SecondReading::default()
        });
        change(&mut seen);
        report(&plan, &seen)
    }

    #[test]
    fn where_every_witness_was_asked_none_is_missing() {
        let report = judged(|_| {});
        let mut findings = report.findings.iter();
        assert!(
            findings.all(|finding| finding.topic != Topic::Witness),
            "{report:#?}"
        );
    }

    #[test]
    fn each_witness_that_could_not_be_asked_is_named() {
        let no_answer = |what: &str, change: &dyn Fn(&mut Observed)| {
            says(&judged(change), Verdict::NotApplicable, "witnesses", what);
        };
        no_answer("no answer from faccessat at /usr", &|seen| {
            seen.places[0].access = Access::NoWitness;
        });
        no_answer("no answer from statvfs at /usr", &|seen| {
            seen.places[0].statvfs_read_only = None;
        });
        no_answer(
            "no answer from a second reading of the mount table",
            &|seen| seen.layers.second = None,
        );
        no_answer("no answer from faccessat at ", &|seen| {
            seen.layers.has_unseen_processes = true;
            seen.places[0].access = Access::NoWitness;
        });
        // What is not there was not to be asked.
        let report = judged(|seen| {
            seen.places[0].kind = Kind::Missing;
            seen.places[0].access = Access::NoWitness;
        });
        assert!(
            report
                .findings
                .iter()
                .all(|finding| finding.topic != Topic::Witness)
        );
    }

    #[test]
    fn without_root_it_is_said_in_one_line() {
        let report = judged(|seen| {
            seen.caller = Caller::Other;
            seen.layers.has_unseen_processes = true;
            for place in &mut seen.places {
                place.access = Access::NoWitness;
            }
        });
        let those = report.findings.iter();
        let those: Vec<_> = those
            .filter(|finding| finding.topic == Topic::Witness)
            .collect();
        assert_eq!(those.len(), 1, "{report:#?}");
        says(
            &report,
            Verdict::Warning,
            "processes",
            "processes with mounts of their own were not looked at, nor was there an answer from faccessat at /etc, /run, /usr and ",
        );
    }
}
