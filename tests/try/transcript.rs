//! What the guest says, as `guest/run` writes it to the second serial port.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// What begins a mark.
const MARK: u8 = 0x1e;

/// Something that the guest has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A step begins.
    Begin(usize),
    /// A line of its output.
    Line(String),
    /// It has ended with this exit code.
    End(usize, i32),
    /// There is no further step.
    Over,
}

/// A file that grows while the guest runs.
pub struct Transcript {
    file: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Transcript {
    /// The file need not be there yet.
    pub fn of(file: PathBuf) -> Self {
        Self {
            file,
            read: 0,
            rest: Vec::new(),
        }
    }

    /// What was said since it was asked last; a line that is not finished comes when it is.
    pub fn news(&mut self) -> Vec<Said> {
        let mut bytes = Vec::new();
        // What cannot be read is not written yet; a guest that says nothing at all is seen in the end.
        let Ok(mut file) = File::open(&self.file) else {
            return Vec::new();
        };
        if file
            .seek(SeekFrom::Start(self.read))
            .and_then(|_| file.read_to_end(&mut bytes))
            .is_err()
        {
            return Vec::new();
        }
        self.read += bytes.len() as u64;
        self.feed(&bytes)
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let text = std::mem::replace(&mut self.rest, rest);
        let mut said = Vec::new();
        for line in text[..end].split(|byte| *byte == b'\n') {
            // Output that does not end with a line break has the mark on its last line.
            let at = line.iter().position(|byte| *byte == MARK);
            let (output, mark) = line.split_at(at.unwrap_or(line.len()));
            if at.is_none() || !output.is_empty() {
                said.push(Said::Line(printable(output)));
            }
            said.extend(mark.get(1..).and_then(parse));
        }
        said
    }
}

fn parse(mark: &[u8]) -> Option<Said> {
    let text = String::from_utf8_lossy(mark);
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["begin", step] => Some(Said::Begin(step.parse().ok()?)),
        ["end", step, code] => Some(Said::End(step.parse().ok()?, code.parse().ok()?)),
        ["over"] => Some(Said::Over),
        _ => None,
    }
}

/// Text that cannot do anything to a terminal, without the carriage return that a serial line adds.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| if character == '\t' { ' ' } else { character })
        .filter(|character| !character.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_pieces_is_read_as_what_comes_at_once() {
        let text = b"\x1ebegin 03\r\ntouch: no\r\nhalf a line\x1eend 03 1\r\n\r\n\x1eover\r\n";
        let wanted = vec![
            Said::Begin(3),
            Said::Line("touch: no".to_owned()),
            Said::Line("half a line".to_owned()),
            Said::End(3, 1),
            Said::Line(String::new()),
            Said::Over,
        ];
        let mut transcript = Transcript::of(PathBuf::new());
        assert_eq!(transcript.feed(text), wanted);
        let mut transcript = Transcript::of(PathBuf::new());
        let said: Vec<_> = text
            .chunks(1)
            .flat_map(|byte| transcript.feed(byte))
            .collect();
        assert_eq!(said, wanted);
    }

    #[test]
    fn output_of_the_guest_cannot_do_anything_to_the_terminal() {
        assert_eq!(printable(b"\x1b[2Jred\x07\ttext\r"), "[2Jred text");
    }
}
