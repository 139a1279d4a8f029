//! Killed at any moment: whatever of ours or of systemd-sysext(8) ends in the middle of its work, the next sync brings
//! everything to what the lock table says.

use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::time::{ClockId, clock_gettime};
use usr_policy_tests::privilege::tmpfs;
use usr_policy_tests::system::{Follower, GENERATOR, Line, System, becomes};

use crate::STRICT;
use crate::lock::{CACHE, DATABASE, STATE, is_closed, sync};

/// How many processes are killed while they are at work, in all three modes of the lock together.
pub(crate) const KILLS: &str = "USR_POLICY_KILLS";

/// Repeats what a run has done that had printed this number, as far as the scheduler does.
pub(crate) const SEED: &str = "USR_POLICY_SEED";

/// Who is killed in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Follower,
    Sync,
    Lock,
    Unlock,
    Merge,
    Unmerge,
    Refresh,
}

use Victim::{Follower as TheFollower, Lock, Merge, Refresh, Sync, Unlock, Unmerge};

const VICTIMS: [Victim; 7] = [TheFollower, Sync, Lock, Unlock, Merge, Unmerge, Refresh];

/// What gives the follower something to do.
const FOLLOWED: [Victim; 4] = [Lock, Unlock, Merge, Unmerge];

/// So often in a row a kill may come too early or too late.
const MISSES: u32 = 200;

impl Victim {
    /// The command; that of the follower is the test's own.
    fn words(self) -> &'static [&'static str] {
        match self {
            TheFollower => &[],
            Sync => &[GENERATOR, "sync"],
            Lock => &["usr-policy", "lock"],
            Unlock => &["usr-policy", "unlock"],
            Merge => &["systemd-sysext", "merge"],
            Unmerge => &["systemd-sysext", "unmerge"],
            Refresh => &["systemd-sysext", "refresh"],
        }
    }
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "whatever is killed in the middle of its work, sync brings back what the lock table says",
        || kills("merged", 1, 2),
    ),
    (
        "whatever is killed while the lock is always there, sync brings it back",
        || kills("always", 1, 4),
    ),
    (
        "whatever is killed while the lock is off, sync brings back what the lock table says",
        || kills("off", 1, 4),
    ),
    (
        "killed at any of the system calls that change something, nothing is left that sync does not set right",
        || {
            System::with(STRICT, |system| {
                let mut machine = Machine::new(system, "merged", Random(0));
                let complaints: Vec<_> = [
                    (Before::Closed, &["usr-policy", "unlock"][..]),
                    (Before::Open, &["usr-policy", "lock"]),
                    (Before::Start, &[GENERATOR, "sync"]),
                ]
                .into_iter()
                .flat_map(|(before, command)| {
                    CALLS.into_iter().map(move |call| (call, before, command))
                })
                .flat_map(|(call, before, command)| machine.kill_at_each(call, before, command))
                .collect();
                assert!(complaints.is_empty(), "{}", complaints.join("\n"));
                machine.ends_as_it_began();
            });
        },
    ),
    (
        "whichever of ours begin at the same moment, everything is as the lock table says afterwards",
        || {
            System::with(STRICT, |system| {
                let mut machine = Machine::new(system, "merged", Random(0));
                for round in 1..=20 {
                    machine.follower = None;
                    let mut children: Vec<_> = [
                        &["usr-policy", "unlock"][..],
                        &["usr-policy", "lock"],
                        &[GENERATOR, "sync"],
                        &["usr-policy", "unlock"],
                        &[GENERATOR, "sync"],
                    ]
                    .into_iter()
                    .map(|words| {
                        let mut command = system.command(words);
                        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
                        quiet.spawn().unwrap()
                    })
                    .collect();
                    machine.follower = Some(Follower::start(system));
                    for child in &mut children {
                        assert!(child.wait().unwrap().code().is_some());
                    }
                    let complaint = machine.complaint();
                    assert!(complaint.is_none(), "round {round}: {complaint:?}");
                }
                machine.ends_as_it_began();
            });
        },
    ),
    (
        "unlock opens usr before the database, and at no moment the database alone",
        || {
            System::with(STRICT, |system| {
                sync(system);
                for (when, closed) in [(1, [true, true]), (2, [true, false])] {
                    let kill = format!("signal=KILL:when={when}");
                    let words = ["usr-policy", "unlock"];
                    let mut command = system.with_call("umount2", &kill, &words);
                    let ran = command.output().unwrap();
                    assert!(!ran.status.success(), "{ran:?}");
                    // Before anybody has set it right.
                    assert_eq!(is_closed(system), closed, "killed at {when}");
                    system.does(&["usr-policy", "lock"]);
                    assert_eq!(is_closed(system), [true, true]);
                }
                system.does(&["usr-policy", "unlock"]);
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                let opened: Vec<&str> = events
                    .lines()
                    .filter_map(|line| line.split_once(" unlock ")?.1.strip_suffix(" open"))
                    .collect();
                // The one that was killed in between has opened the first alone.
                assert_eq!(opened, ["/usr", "/usr", DATABASE]);
            });
        },
    ),
];

/// How a machine is before somebody is killed in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Everything is closed.
    Closed,
    /// Everything was opened by hand.
    Open,
    /// As it starts: nothing is closed, and nobody has asked for anything.
    Start,
}

/// The system calls with which ours change something.
const CALLS: [&str; 9] = [
    "write",
    "rename",
    "unlink",
    "unlinkat",
    "umount2",
    "open_tree",
    "mount_setattr",
    "move_mount",
    "fsmount",
];

/// Kills so large a part of all.
fn kills(lock: &'static str, part: u64, of: u64) {
    let number = |name, otherwise| match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text}: not a number")),
        Err(_) => otherwise,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = number(SEED, u64::from(now.unwrap().subsec_nanos()));
    let times = (number(KILLS, 50) * part).div_ceil(of);
    eprintln!("namespace: {times} kills, usrpolicy.lock={lock}, {SEED}={seed}");
    System::with(&format!("{STRICT} usrpolicy.lock={lock}"), |system| {
        let mut machine = Machine::new(system, lock, Random(seed));
        // Nobody comes twice before everybody has come.
        let mut turns = Vec::new();
        for number in 1..=times {
            if turns.is_empty() {
                turns.extend(VICTIMS);
            }
            let turn = machine.random.below(turns.len() as u64) as usize;
            machine.kill_one(turns.swap_remove(turn));
            let complaint = machine.complaint();
            assert!(
                complaint.is_none(),
                "kill {number} of {times}, {SEED}={seed} usrpolicy.lock={lock}: {}\nstate: {:?}\n{}\n{:#?}",
                complaint.unwrap(),
                fs::read_to_string(system.path(STATE)),
                machine.done.join("\n"),
                system.mounts(),
            );
        }
        machine.ends_as_it_began();
        machine.has_killed_everybody(times, lock);
    });
}

struct Machine<'a> {
    system: &'a System,
    lock: &'static str,
    random: Random,
    follower: Option<Follower>,
    /// The mounts when everything was closed, and nothing merged.
    closed: Vec<String>,
    /// How long each command takes when nobody kills it, and it has something to do.
    times: [Duration; VICTIMS.len()],
    /// How many of each were killed at work.
    hits: [u64; VICTIMS.len()],
    /// How many had not begun yet, or had ended.
    misses: [u64; VICTIMS.len()],
    /// What was done, for the message of a failure.
    done: Vec<String>,
}

impl<'a> Machine<'a> {
    fn new(system: &'a System, lock: &'static str, random: Random) -> Self {
        system.extension("hello");
        tmpfs(&system.path(CACHE), "mode=0755");
        system.does(&[GENERATOR, "sync"]);
        let mut machine = Machine {
            system,
            lock,
            random,
            follower: None,
            closed: Vec::new(),
            times: [Duration::ZERO; VICTIMS.len()],
            hits: [0; VICTIMS.len()],
            misses: [0; VICTIMS.len()],
            done: Vec::new(),
        };
        for victim in &VICTIMS[1..] {
            machine.prepare(*victim);
            let began = Instant::now();
            // Under always an unlock is refused; that takes as long.
            let _ = system.command(victim.words()).output().unwrap();
            machine.times[*victim as usize] = began.elapsed();
        }
        machine.close();
        machine.closed = points(&system.mounts(), |_| true);
        machine
    }

    fn close(&mut self) {
        // It fails where nothing is merged.
        let _ = self.system.command(&["systemd-sysext", "unmerge"]).output();
        self.system.does(&["usr-policy", "lock"]);
        sync(self.system);
    }

    /// Brings the machine to where a victim has something to do.
    fn prepare(&mut self, victim: Victim) {
        let is_merged = self.system.mounts().iter().any(|it| it.source == "sysext");
        match victim {
            TheFollower if self.follower.is_none() => {
                self.follower = Some(Follower::start(self.system));
            }
            Merge | Unlock | Lock if is_merged => {
                self.system.does(Unmerge.words());
            }
            Unmerge | Refresh if !is_merged => self.system.does(Merge.words()),
            _ => {}
        }
        match victim {
            Unlock => self.system.does(Lock.words()),
            Lock if self.lock != "always" => self.system.does(Unlock.words()),
            // What it did not see happen; a follower would be there first.
            Sync => {
                self.follower = None;
                if is_closed(self.system)[0] {
                    self.system.does(&["umount", "--lazy", DATABASE]);
                } else if !is_merged {
                    self.system.does(Merge.words());
                }
            }
            _ => {}
        }
    }

    /// Kills somebody who is at work.
    fn kill_one(&mut self, victim: Victim) {
        let mut misses = 0;
        while !self.kill(victim) {
            misses += 1;
            self.misses[victim as usize] += 1;
            assert!(misses < MISSES, "{victim:?} was never at work");
        }
        self.hits[victim as usize] += 1;
        if self.follower.is_none() && self.random.below(4) != 0 {
            self.done.push("a follower".into());
            self.follower = Some(Follower::start(self.system));
        }
        // So that an unmerge settles, and the time of an unlock is over.
        if self.random.below(10) == 0 {
            self.done.push("two seconds and a half".into());
            sleep(Duration::from_millis(2_500));
        }
    }

    /// Starts a command and ends somebody at any time of its work; whether that hit anybody.
    fn kill(&mut self, victim: Victim) -> bool {
        self.prepare(victim);
        let at_work = match victim {
            TheFollower => {
                let at_work = FOLLOWED[self.random.below(FOLLOWED.len() as u64) as usize];
                self.prepare(at_work);
                at_work
            }
            _ => victim,
        };
        let mut words = at_work.words().to_vec();
        // Without a follower nobody would know when it is over.
        if at_work == Unlock && self.follower.is_some() && self.random.below(2) == 0 {
            words.extend(["--for", "1s"]);
        }
        let mut command = self.system.command(&words);
        // What it starts itself is in its group, and has its output open as long as it lives.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let time = self.times[at_work as usize];
        let delay = Duration::from_micros(self.random.below(time.as_micros() as u64));
        sleep(delay);
        let pid = Pid::from_child(&child);
        let (whom, is_hit) = if victim == TheFollower {
            let mut follower = self.follower.take().unwrap();
            ("the follower", !follower.has_ended())
        } else {
            let name = fs::read_to_string(format!("/proc/{}/comm", child.id()));
            // It is still what puts the command into the system's root.
            let has_begun = name.is_ok_and(|name| name != "unshare\n");
            if self.random.below(3) == 0 {
                let _ = kill_process_group(pid, Signal::KILL);
                ("it and what it had started", has_begun)
            } else {
                let _ = kill_process(pid, Signal::KILL);
                ("it alone", has_begun)
            }
        };
        let ended = wait(&mut child);
        // The machine is faster or slower than it was.
        let time = &mut self.times[at_work as usize];
        *time = match (is_hit, victim == TheFollower || ended.signal().is_some()) {
            (true, false) => *time * 9 / 10,
            (false, _) => *time * 11 / 10,
            (true, true) => *time,
        };
        let is_hit = is_hit && (victim == TheFollower || ended.signal().is_some());
        self.done.push(format!(
            "{words:?}, after {delay:?} killed: {whom}; {ended}"
        ));
        is_hit
    }

    /// Kills a command at the first, the second and every other of its calls; what a sync, and then a follower, made of
    /// none of them.
    fn kill_at_each(&mut self, call: &str, before: Before, words: &[&str]) -> Vec<String> {
        let kill = |number| format!("signal=KILL:when={number}");
        let mut complaints = Vec::new();
        for number in 1.. {
            self.close();
            if before != Before::Closed {
                self.system.does(&["usr-policy", "unlock"]);
            }
            if before == Before::Start {
                fs::remove_file(self.system.path(STATE)).unwrap();
            }
            let mut command = self.system.with_call(call, &kill(number), words);
            let ran = command.output().unwrap();
            let mut complaint = self.complaint();
            if complaint.is_none() {
                self.follower = Some(Follower::start(self.system));
                complaint = self.complaint();
                self.follower = None;
            }
            complaints
                .extend(complaint.map(|it| format!("{words:?} killed at {call} {number}: {it}")));
            // Where the child of a command was killed, it says so itself.
            if ran.status.success() {
                break;
            }
        }
        complaints
    }

    /// What is not as it should be after a sync.
    fn complaint(&self) -> Option<String> {
        let (exit, log) = self.system.generator(&["sync"]);
        if exit != 0 {
            return Some(format!("sync: exit {exit}: {log}"));
        }
        if self.follower.is_none() {
            // Nobody else is there who could make it good.
            return self.difference();
        }
        let began = Instant::now();
        loop {
            let difference = self.difference();
            if difference.is_none() || began.elapsed() > Duration::from_secs(20) {
                return difference;
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn difference(&self) -> Option<String> {
        let state = fs::read_to_string(self.system.path(STATE)).unwrap_or_default();
        let mounts = self.system.mounts();
        let at = |point: &str| {
            mounts
                .iter()
                .filter(|line| line.mount_point == point)
                .count()
        };
        let merged = mounts.iter().filter(|line| line.source == "sysext").count();
        let is_closed = is_closed(self.system);
        let table = table(self.lock, &state, now());
        let is_wrong = |(is, wanted): (bool, bool)| match (is, wanted) {
            // Without a follower nobody opens what is closed.
            (true, false) => self.follower.is_some(),
            (false, true) => true,
            _ => false,
        };
        let is_unlocked = table == [false, false];
        // A merge covers what was open below it.
        let of_usr = if merged == 0 { 1..=1 } else { 0..=1 };
        let own = |point: &str| ["/usr", DATABASE, CACHE].contains(&point);
        let others = |line: &Line| !own(&line.mount_point);
        let others_before = self.closed.iter().filter(|point| !own(point));
        let opened = self.system.path("/run/usr-policy/open");
        let has_open = |unit| opened.join(unit).exists();
        for (is_so, complaint) in [
            (merged <= 1, "extensions are merged twice"),
            (
                state.contains("extensions merged\n") == (merged == 1),
                "the state does not know what is merged",
            ),
            (
                !is_wrong((is_closed[0], table[0])),
                "the database is not what the table says",
            ),
            (
                !is_wrong((is_closed[1], table[1])),
                "/usr is not what the table says",
            ),
            (
                is_closed != [false, true] || !is_unlocked,
                "the database is open as if /usr were",
            ),
            (
                at(DATABASE) == usize::from(is_closed[0]),
                "a mount of the database is left over or doubled",
            ),
            (
                if is_closed[1] {
                    of_usr.contains(&(at("/usr") - merged))
                } else {
                    at("/usr") == 0
                },
                "a mount of /usr is left over or doubled",
            ),
            (
                at(CACHE) == 1 || is_unlocked && at(CACHE) == 0,
                "the tmpfs of the package cache is not there once",
            ),
            (
                points(&mounts, others).iter().eq(others_before),
                "something else was mounted or unmounted",
            ),
            (
                !self.system.path(DATABASE).join("db.lck").exists(),
                "db.lck is left over",
            ),
            (
                !(table[0] && has_open("var-lib-pacman.mount")),
                "the database is on record as open",
            ),
            (
                // Under extensions it is not closed yet.
                is_unlocked || merged == 1 || !has_open("usr.mount"),
                "/usr is on record as open",
            ),
        ] {
            if !is_so {
                return Some(complaint.to_owned());
            }
        }
        None
    }

    /// A number that nobody can reach by killing who has ended.
    fn has_killed_everybody(&self, times: u64, lock: &str) {
        let each = VICTIMS.map(|victim| {
            let (hits, misses) = (self.hits[victim as usize], self.misses[victim as usize]);
            assert!(hits >= times / VICTIMS.len() as u64, "{victim:?}: {hits}");
            format!("{victim:?} {hits} ({misses} missed)").to_lowercase()
        });
        assert_eq!(self.hits.iter().sum::<u64>(), times);
        eprintln!(
            "namespace: killed at work, usrpolicy.lock={lock}: {}",
            each.join(", ")
        );
    }

    fn ends_as_it_began(&mut self) {
        drop(self.follower.take());
        self.close();
        assert_eq!(points(&self.system.mounts(), |_| true), self.closed);
        assert_eq!(is_closed(self.system), [true, true]);
        self.system.does(&["systemd-sysext", "merge"]);
        assert!(self.system.path("/usr/share/hello").exists());
        becomes("nothing of the extension stays", || {
            self.system.does(&["systemd-sysext", "unmerge"]);
            points(&self.system.mounts(), |_| true) == self.closed
        });
    }
}

/// What is to be closed, database and `/usr`: the lock table of usr-policy(7) once more, for a system with the guard.
fn table(lock: &str, state: &str, now: u64) -> [bool; 2] {
    let word = |key| state.lines().find_map(|line: &str| line.strip_prefix(key));
    let time = |word: &str| word.trim().parse::<u64>().unwrap();
    if state.contains("extensions merged\n") {
        return [true, true];
    }
    if lock != "always"
        && let Some(until) = word("manual unlock")
        && (until.is_empty() || now < time(until))
    {
        return [false, false];
    }
    let database = match (lock, word("extensions unmerged ")) {
        _ if word("manual lock").is_some() => true,
        ("off", None) => false,
        // It may be half of a refresh.
        ("off" | "merged", Some(since)) => now < time(since) + 2_000_000,
        _ => true,
    };
    [database, true]
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).unwrap()
}

/// Waits until the process and everything that it has started have ended; how it ended.
fn wait(child: &mut Child) -> ExitStatus {
    let mut output = child.stdout.take().unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
    child.wait().unwrap()
}

/// Where something is mounted, in an order of its own.
fn points(mounts: &[Line], is_wanted: impl Fn(&Line) -> bool) -> Vec<String> {
    let mut points: Vec<_> = mounts
        .iter()
        .filter(|line| is_wanted(line))
        .map(|line| line.mount_point.clone())
        .collect();
    points.sort();
    points
}

/// SplitMix64: the same numbers from the same seed, which is all that is needed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % limit.max(1)
    }
}
