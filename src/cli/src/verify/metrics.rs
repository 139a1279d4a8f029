//! A verdict for a fleet: the text format of Prometheus, for the textfile collector of its node exporter.
//!
//! Of several values of a label one has the number 1 and the others 0, so that an alert on one of them has a line to read when
//! all is well. Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format".

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::UNIX_EPOCH;

use usr_policy_plan::policy::Mode;
use usr_policy_plan::text::Shown as Escaped;
use usr_policy_plan::verify::{Fill, Verdict};

use super::Verified;

const MODES: [Mode; 3] = [Mode::Off, Mode::Audit, Mode::Strict];

pub(super) fn show(verified: &Verified) -> String {
    let report = &verified.report;
    let mut text = Text(String::new());
    text.family(
        "usr_policy_exit_code",
        "What usr-policy verify exits with: 0 everything holds, 1 something does not, 3 it could not be told.",
    );
    text.sample("usr_policy_exit_code", &[], u64::from(report.exit_code()));

    text.family(
        "usr_policy_mode",
        "The mode that the policy asks for; 0 in all of them where that could not be read.",
    );
    for mode in MODES {
        let is_it = verified.asked.mode() == Some(mode);
        let labels = [("mode", &mode as &dyn Display)];
        text.sample("usr_policy_mode", &labels, u64::from(is_it));
    }

    text.family(
        "usr_policy_verdict",
        "The most serious verdict of all findings.",
    );
    for verdict in Verdict::ALL {
        // Where nothing applies, nothing is broken: the whole never has this verdict.
        if verdict != Verdict::NotApplicable {
            let labels = [("verdict", &verdict.id() as &dyn Display)];
            let is_it = report.worst() == verdict;
            text.sample("usr_policy_verdict", &labels, u64::from(is_it));
        }
    }

    // Two findings may differ in nothing but their words, and no sample may come twice.
    let mut findings = BTreeMap::<_, u64>::new();
    for finding in &report.findings {
        let key = (finding.topic.id(), &finding.subject, finding.verdict.id());
        *findings.entry(key).or_default() += 1;
    }
    if !findings.is_empty() {
        text.family(
            "usr_policy_finding",
            "Findings by what they are about, and how that fares.",
        );
    }
    for ((topic, subject, verdict), count) in findings {
        let labels: [(&str, &dyn Display); 3] = [
            ("topic", &topic),
            ("subject", subject),
            ("verdict", &verdict),
        ];
        text.sample("usr_policy_finding", &labels, count);
    }

    tmpfs(
        &mut text,
        &verified.fills,
        "usr_policy_tmpfs_size_bytes",
        "What a tmpfs of the policy can hold, in bytes; 0 where it has no limit.",
        |fill| fill.size,
    );
    tmpfs(
        &mut text,
        &verified.fills,
        "usr_policy_tmpfs_used_bytes",
        "What of that is used.",
        |fill| fill.used,
    );

    let Some(lock) = &verified.lock else {
        return text.0;
    };
    text.family(
        "usr_policy_lock",
        "Whether the package database is to be locked now, and by which row of the lock table.",
    );
    let row = lock.wanted.why.id();
    text.sample(
        "usr_policy_lock",
        &[("row", &row)],
        u64::from(lock.wanted.is_locked),
    );
    text.family(
        "usr_policy_window",
        "Whether /usr is open on purpose, by usr-policy unlock.",
    );
    text.sample("usr_policy_window", &[], lock.wanted.usr_is_open.into());
    let end = lock
        .until
        .and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    if let Some(end) = end.filter(|_| lock.wanted.usr_is_open) {
        text.family(
            "usr_policy_window_end_timestamp_seconds",
            "When /usr is closed again, in seconds since 1970; missing where no time was given.",
        );
        text.sample(
            "usr_policy_window_end_timestamp_seconds",
            &[],
            end.as_secs(),
        );
    }
    text.0
}

/// A number of each tmpfs.
fn tmpfs(text: &mut Text, fills: &[Fill], name: &str, help: &str, number: fn(&Fill) -> u64) {
    if !fills.is_empty() {
        text.family(name, help);
    }
    for fill in fills {
        let path = Escaped(fill.path.as_bytes());
        text.sample(name, &[("path", &path as &dyn Display)], number(fill));
    }
}

/// Lines of the format. Writing to a String does not fail.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: u64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(
                self.0,
                "{before}{label}=\"{}\"",
                escaped(&value.to_string())
            );
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_label_with_every_special_character_stays_on_its_line_and_in_its_quotes() {
        assert_eq!(escaped("/a\\b \"c\"\nd"), "/a\\\\b \\\"c\\\"\\nd");
    }
}
