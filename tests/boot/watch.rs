//! What the watch in the guest has seen at the paths of the policy.

/// One line of the watch about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// CLOCK_BOOTTIME in µs.
    pub at: u64,
    pub path: String,
    /// Whether a write would have been taken; `None` where the path did not exist.
    pub writable: Option<bool>,
    /// Where the mount that is seen at the path is mounted; empty where the path did not exist.
    pub mount_point: String,
    /// The type of that file system; empty where the path did not exist.
    pub fs_type: String,
    /// The line as it came.
    pub line: String,
}

/// The whole watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    changes: Vec<Change>,
    awake: Vec<u64>,
    longest_gap: u64,
}

impl Watch {
    /// Reads the lines of the watch.
    ///
    /// # Errors
    /// A line is not one of its.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut watch = Self::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let bad = || format!("not a line of the watch: {line}");
            let at = fields[0].parse().map_err(|_| bad())?;
            let mut change = |path: &str, writable, fs_type: &str, mount_point: &str| {
                watch.changes.push(Change {
                    at,
                    path: path.to_owned(),
                    writable,
                    mount_point: mount_point.to_owned(),
                    fs_type: fs_type.to_owned(),
                    line: line.to_owned(),
                });
            };
            match fields[1..] {
                ["awake", gap] => {
                    watch.awake.push(at);
                    watch.longest_gap = watch.longest_gap.max(gap.parse().map_err(|_| bad())?);
                }
                [path, "absent"] => change(path, None, "", ""),
                [path, _, "rw", fs_type, mount_point, ..] => {
                    change(path, Some(true), fs_type, mount_point)
                }
                [path, _, "ro", fs_type, mount_point, ..] => {
                    change(path, Some(false), fs_type, mount_point)
                }
                _ => return Err(bad()),
            }
        }
        Ok(watch)
    }

    /// Every change at a path, the first one being what was there when the watch began.
    pub fn of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Change> {
        self.changes
            .iter()
            .filter(move |change| change.path == path)
    }

    /// When the watch said last that it is awake, in µs.
    pub fn last_awake(&self) -> u64 {
        self.awake.last().copied().unwrap_or_default()
    }

    /// The longest time between two looks, in µs: what was shorter may have passed unseen.
    pub fn longest_gap(&self) -> u64 {
        self.longest_gap
    }
}
