//! The verdict as one record of the journal: what `usr-policy-verify.service` leaves behind.
//!
//! By hand, since the format is two lines of code; sd_journal_send(3) would be a library of systemd's in a program that also
//! runs where there is none. Source: systemd's "Native Journal Protocol", <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use usr_policy_plan::verify::{Finding, Report, Verdict};
use usr_policy_system::failure::Failure;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What all these records have in common, and no other; usr-policy(7) has it.
const MESSAGE_ID: &str = "36876bae71e64a5ea81a770b140c232c";

/// How many bytes findings may take. A larger datagram than the socket's buffer (net.core.wmem_default, 208 KiB) is refused,
/// and ten thousand mounts may be ten thousand findings.
const ROOM: usize = 48 << 10;

/// How long to wait where the socket's queue is full; a boot waits with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Priorities of syslog(3).
const ERROR: &str = "3";
const WARNING: &str = "4";
const INFO: &str = "6";

/// The fields of a record, in order. A name may come more than once.
pub(crate) struct Record(Vec<(&'static str, String)>);

/// Puts a report into a record, in its order: the worst comes first; `headline` is what it comes to.
pub(crate) fn record(headline: &str, report: &Report) -> Record {
    let told: Vec<_> = report
        .findings
        .iter()
        .filter_map(|finding| Some((field_of(finding.verdict)?, finding)))
        .collect();
    let priority = match told.first().map(|(_, finding)| finding.verdict) {
        Some(Verdict::Broken) => ERROR,
        Some(_) => WARNING,
        None => INFO,
    };
    let mut lines = vec![format!("{}: {headline}", report.mode)];
    let mut fields = Vec::new();
    let mut room = ROOM;
    for (number, (name, finding)) in told.iter().enumerate() {
        let (line, value) = (line(finding), value(finding));
        let Some(rest) = room.checked_sub(line.len() + value.len()) else {
            let more = told.len() - number;
            lines.push(format!("and {more} more: run usr-policy verify"));
            break;
        };
        room = rest;
        lines.push(line);
        fields.push((*name, value));
    }
    let mut record = vec![
        ("MESSAGE", lines.join("\n")),
        ("MESSAGE_ID", MESSAGE_ID.to_owned()),
        ("PRIORITY", priority.to_owned()),
        ("SYSLOG_IDENTIFIER", "usr-policy".to_owned()),
        ("USR_POLICY_MODE", report.mode.to_string()),
        ("USR_POLICY_EXIT", report.exit_code().to_string()),
    ];
    record.extend(fields);
    Record(record)
}

/// The field that findings of this verdict have; `None` where there is nothing to tell.
fn field_of(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Broken => Some("USR_POLICY_BROKEN"),
        Verdict::Unknown => Some("USR_POLICY_UNKNOWN"),
        Verdict::Warning => Some("USR_POLICY_WARNING"),
        Verdict::Holds | Verdict::NotApplicable => None,
    }
}

/// A finding for a person.
fn line(finding: &Finding) -> String {
    let Finding {
        verdict,
        subject,
        what,
        remedy,
        ..
    } = finding;
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("{verdict}: {subject}: {what}{separator}{remedy}")
}

/// A finding for a program.
fn value(finding: &Finding) -> String {
    format!("{} {}", finding.topic.id(), finding.subject)
}

impl Record {
    /// The bytes of one datagram: `NAME=value`, or the length before a value that has more than one line.
    fn datagram(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in &self.0 {
            bytes.extend_from_slice(name.as_bytes());
            if value.contains('\n') {
                bytes.push(b'\n');
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                bytes.push(b'=');
            }
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    /// Hands it to journald.
    ///
    /// # Errors
    /// Nobody listens there, or does not read what is there.
    pub(crate) fn send(&self) -> Result<(), Failure> {
        let send = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to(&self.datagram(), SOCKET)
        };
        send()
            .map(drop)
            .map_err(|error| Failure::new(SOCKET, "cannot write the verdict", error))
    }
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_ID, record};
    use usr_policy_plan::policy::Mode;
    use usr_policy_plan::verify::{Finding, Report, Topic, Verdict};

    fn finding(verdict: Verdict, topic: Topic, subject: &str, what: &str, remedy: &str) -> Finding {
        Finding {
            verdict,
            topic,
            subject: subject.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
            layers: None,
        }
    }

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            mode: Mode::Strict,
            findings,
        }
    }

    #[test]
    fn what_holds_is_one_line_of_little_importance() {
        let report = report(vec![finding(
            Verdict::Holds,
            Topic::Usr,
            "/usr",
            "read-only",
            "",
        )]);
        let record = record("Everything that is promised holds.", &report);
        let expected = format!(
            "MESSAGE=strict: Everything that is promised holds.\nMESSAGE_ID={MESSAGE_ID}\nPRIORITY=6\n\
             SYSLOG_IDENTIFIER=usr-policy\nUSR_POLICY_MODE=strict\nUSR_POLICY_EXIT=0\n"
        );
        assert_eq!(String::from_utf8(record.datagram()).unwrap(), expected);
    }

    #[test]
    fn the_worst_comes_first_and_the_length_stands_before_what_has_more_than_one_line() {
        let report = report(vec![
            finding(
                Verdict::Broken,
                Topic::Usr,
                "/usr",
                "writable",
                "usr-policy lock",
            ),
            finding(Verdict::Unknown, Topic::Witness, "/etc", "unseen", ""),
            finding(Verdict::Warning, Topic::NextBoot, "/etc/fstab:3", "rw", ""),
            finding(Verdict::Holds, Topic::Memory, "/var/tmp", "tmpfs", ""),
        ]);
        let message = "strict: Bad.\nBROKEN: /usr: writable; usr-policy lock\nunknown: /etc: unseen\n\
                       warning: /etc/fstab:3: rw";
        let mut expected = b"MESSAGE\n".to_vec();
        expected.extend_from_slice(&[u8::try_from(message.len()).unwrap(), 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(
            format!(
                "{message}\nMESSAGE_ID={MESSAGE_ID}\nPRIORITY=3\nSYSLOG_IDENTIFIER=usr-policy\nUSR_POLICY_MODE=strict\n\
                 USR_POLICY_EXIT=1\nUSR_POLICY_BROKEN=usr /usr\nUSR_POLICY_UNKNOWN=witness /etc\n\
                 USR_POLICY_WARNING=next-boot /etc/fstab:3\n"
            )
            .as_bytes(),
        );
        assert_eq!(record("Bad.", &report).datagram(), expected);
    }

    #[test]
    fn more_findings_than_a_datagram_holds_are_counted() {
        let hole = |number: u32| {
            let subject = format!("/usr/{number}/{}", "x".repeat(4096));
            finding(Verdict::Warning, Topic::Hole, &subject, "writable", "")
        };
        let datagram = record("Well.", &report((0..1000).map(hole).collect())).datagram();
        assert!(datagram.len() < 64 << 10, "{}", datagram.len());
        let text = String::from_utf8_lossy(&datagram);
        assert!(text.contains("\nPRIORITY=4\n"));
        let told = text.matches("USR_POLICY_WARNING=").count();
        let more = format!("\nand {} more: run usr-policy verify\n", 1000 - told);
        assert!(told > 0 && text.contains(&more), "{told}");
    }

    #[test]
    fn the_manual_has_the_message_id() {
        let manual = include_str!("../../../man/usr-policy.7");
        assert!(manual.contains(MESSAGE_ID));
    }
}
