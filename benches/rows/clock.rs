//! The CPU time that another process spends, its own and the kernel's for it.
//!
//! `/proc/PID/stat` counts all of it, in ticks of 10 ms. `/proc/PID/task/TID/schedstat` counts nanoseconds, but only of
//! threads that still live. So the fine figure stands unless it falls behind the coarse one, which shows that a thread has
//! taken its time with it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Failed;

/// Ticks of `/proc/PID/stat`, the same on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// Reads what a process has spent.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    process: u32,
}

/// What a process had spent at a moment.
#[derive(Debug)]
pub struct Reading {
    coarse: Duration,
    fine: BTreeMap<String, Duration>,
}

impl Clock {
    /// Of this process.
    pub fn of(process: u32) -> Self {
        Self { process }
    }

    /// What it has spent so far.
    pub fn read(self) -> Result<Reading, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process))?;
        // Its name may have spaces in it; the 12th and 13th field after it are of the user and of the system.
        let (_, fields) = stat.rsplit_once(") ").ok_or("a line of another shape")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        let mut fine = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process))? {
            let task = task?;
            // A thread may end just now.
            let Ok(spent) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let spent = spent.split(' ').next().unwrap_or_default().parse()?;
            fine.insert(task.file_name().to_string_lossy().into_owned(), Duration::from_nanos(spent));
        }
        Ok(Reading { coarse: TICK * ticks, fine })
    }

    /// Bytes of memory that are its own or in use by it.
    pub fn resident(self) -> Result<u64, Failed> {
        self.memory("VmRSS:")
    }

    /// The most that those have been.
    pub fn peak(self) -> Result<u64, Failed> {
        self.memory("VmHWM:")
    }

    fn memory(self, which: &str) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let line = status.lines().find_map(|line| line.strip_prefix(which)).ok_or("a status of another shape")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }
}

impl Reading {
    /// What has been spent since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Duration {
        let coarse = self.coarse.saturating_sub(earlier.coarse);
        let of = |(thread, spent): (&String, &Duration)| {
            spent.saturating_sub(earlier.fine.get(thread).copied().unwrap_or_default())
        };
        let fine: Duration = self.fine.iter().map(of).sum();
        // Either reading may be a tick late.
        if fine + 2 * TICK < coarse { coarse } else { fine }
    }
}
