//! The machine that was measured on.

use std::path::Path;

use dacapo::world::{Clock, SystemClock};

use crate::bench::Done;

/// How many processes were running or waiting in the last minute.
pub(crate) fn load() -> Done<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

/// What the figures depend on, in a line each. `load` is that of others, from before the run.
pub(crate) fn facts(dir: &Path, date: Option<String>, load: String) -> Done<Vec<(&'static str, String)>> {
    let today = || -> Done<String> {
        let now = jiff::Timestamp::from_microsecond(SystemClock.now().micros())?;
        Ok(now.strftime("%Y-%m-%d").to_string())
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?.to_string();
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    Ok(vec![
        ("date", date.map_or_else(today, Ok)?),
        ("cores", format!("{cores} ({})", model.trim_start_matches([' ', '\t', ':']))),
        ("kernel", format!("Linux {}", kernel.trim())),
        ("file system", file_system(dir)?),
        ("load of the machine before the run", load),
    ])
}

/// The type of the file system that a directory is on: that of the longest mount point above it.
fn file_system(dir: &Path) -> Done<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let of_mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        dir.starts_with(&point).then_some((point.len(), kind))
    };
    let found = mounts.lines().filter_map(of_mount).max();
    Ok(found.map_or_else(|| "unknown".into(), |(_, kind)| kind))
}
