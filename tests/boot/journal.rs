//! Records of the guest's journal, from journalctl's export format (systemd.io/JOURNAL_EXPORT_FORMATS).

use std::collections::{BTreeMap, BTreeSet};

/// The least urgent priority that counts as an error: `err` of syslog(3).
const ERROR: u8 = 3;

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// µs since the kernel started.
    pub monotonic: u64,
    fields: BTreeMap<String, String>,
}

impl Record {
    /// A field; empty where the record has none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Who says what, for a person.
    pub fn line(&self) -> String {
        format!(
            "{}: {}",
            self.field("SYSLOG_IDENTIFIER"),
            self.field("MESSAGE")
        )
    }

    /// Whether any field has this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.fields.values().any(|value| value.contains(text))
    }

    fn is_error(&self) -> bool {
        self.field("PRIORITY")
            .parse::<u8>()
            .is_ok_and(|priority| priority <= ERROR)
    }

    /// The same text for records that differ in numbers only: process ids, times, addresses.
    fn kind(&self) -> String {
        let mut kind = String::new();
        for character in self.line().chars() {
            match character {
                '0'..='9' if kind.ends_with('#') => {}
                '0'..='9' => kind.push('#'),
                other => kind.push(other),
            }
        }
        kind
    }
}

/// Reads the export format.
///
/// # Errors
/// The text ends in the middle of a field.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    let mut record = Record::default();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        bytes = rest;
        if line.is_empty() {
            records.push(std::mem::take(&mut record));
            continue;
        }
        let text = String::from_utf8_lossy(line).into_owned();
        let (name, value) = if let Some((name, value)) = text.split_once('=') {
            (name.to_owned(), value.to_owned())
        } else {
            // A value that is not one line of text: its size in 64 bits, the value, a line break.
            let (size, rest) = bytes
                .split_first_chunk()
                .ok_or("the journal ends in a field")?;
            let size = usize::try_from(u64::from_le_bytes(*size))
                .map_err(|_| "a field of the journal is too large")?;
            let value = rest.get(..size).ok_or("the journal ends in a field")?;
            bytes = rest.get(size + 1..).ok_or("the journal ends in a field")?;
            (text, String::from_utf8_lossy(value).into_owned())
        };
        if name == "__MONOTONIC_TIMESTAMP" {
            record.monotonic = value.parse().unwrap_or_default();
        }
        record.fields.insert(name, value);
    }
    if !record.fields.is_empty() {
        records.push(record);
    }
    Ok(records)
}

/// What the kernel says where the emulated timer came too late for its test, as it does on a machine with more to do. It goes on
/// with another one. Source: Linux arch/x86/kernel/apic/io_apic.c (`check_timer`).
const OF_THE_EMULATOR: &str = "kernel: ..MP-BIOS bug: 8254 timer not connected to IO-APIC";

/// The errors that a boot has and its twin has not.
pub fn new_errors<'a>(boot: &'a [Record], twin: &[Record]) -> Vec<&'a Record> {
    let known: BTreeSet<String> = twin
        .iter()
        .filter(|record| record.is_error())
        .map(Record::kind)
        .collect();
    boot.iter()
        .filter(|record| record.is_error() && !known.contains(&record.kind()))
        .filter(|record| record.line() != OF_THE_EMULATOR)
        .collect()
}
