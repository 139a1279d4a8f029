//! The judge's own reading of proc_pid_mountinfo(5): it shares none with the product.

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    pub root: String,
    pub point: String,
    pub options: Vec<String>,
    pub peer_group: Option<String>,
    pub fs_type: String,
    pub source: String,
    pub super_options: Vec<String>,
}

/// A mount table, in the order of its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(Vec<Mount>);

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        Some(Self {
            id: mount.first()?.parse().ok()?,
            parent: mount.get(1)?.parse().ok()?,
            root: unescape(mount.get(3)?),
            point: unescape(mount.get(4)?),
            options: list(mount.get(5)?),
            peer_group: mount
                .iter()
                .skip(6)
                .find_map(|field| field.strip_prefix("shared:"))
                .map(str::to_owned),
            fs_type: (*file_system.first()?).to_owned(),
            source: unescape(file_system.get(1)?),
            super_options: list(file_system.get(2)?),
        })
    }

    /// Whether the mount has an option, as a whole word.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// Whether a write here is refused: by the mount or by its file system.
    pub fn is_read_only(&self) -> bool {
        self.has("ro") || self.super_options.iter().any(|have| have == "ro")
    }

    /// The value of an option of the file system.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.super_options
            .iter()
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// A line is no mount.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.lines()
            .map(|line| {
                Mount::parse(line).ok_or_else(|| format!("not a line of mountinfo: {line}"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Every mount at a path: most paths have none, and a policy's path shall have one.
    pub fn at(&self, point: &str) -> Vec<&Mount> {
        self.0.iter().filter(|mount| mount.point == point).collect()
    }

    /// The only mount at a path.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn only(&self, point: &str) -> Result<&Mount, String> {
        match self.at(point)[..] {
            [mount] => Ok(mount),
            [] => Err(format!("{point} is no mount of its own")),
            ref more => Err(format!("{point} is mounted {} times: {more:?}", more.len())),
        }
    }

    /// Every mount at a path or below it.
    pub fn below<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a Mount> {
        self.0.iter().filter(move |mount| {
            mount
                .point
                .strip_prefix(dir)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Undoes `\040` and its like. What is no such escape stays as it is.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
