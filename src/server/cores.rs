//! How many executors there are, on which CPUs, and how much memory the broker may hold.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// `--memory` without a value: a quarter of what there is, but no more than this.
const DEFAULT_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The least that a broker can work with, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// What `--cores` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreChoice {
    /// The number of executors.
    Count(usize),
    /// One executor on each of these CPUs: `0,2` or `0-3,8`.
    List(Vec<usize>),
}

/// The most executors; more than any machine for which the cross-core mesh was thought out.
const CORES_MAX: usize = 256;

impl FromStr for CoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is neither a number of cores (1 to {CORES_MAX}) nor a list like 0,2 or 0-3");
        if let Ok(count) = text.parse() {
            return if (1..=CORES_MAX).contains(&count) { Ok(Self::Count(count)) } else { Err(bad()) };
        }
        let mut list = parse_cpu_list(text).ok_or_else(bad)?;
        list.sort_unstable();
        list.dedup();
        Ok(Self::List(list))
    }
}

fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last - first >= CORES_MAX || list.len() >= CORES_MAX {
            return None;
        }
        list.extend(first..=last);
    }
    (!list.is_empty()).then_some(list)
}

/// The executors: one entry each, with the CPU that it is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan(pub Vec<Option<usize>>);

/// Plans the executors for a process that may run on the CPUs of `mask`, for at most `quota` CPUs' worth of time.
/// # Errors  One sentence on what cannot be.
pub fn plan(choice: Option<&CoreChoice>, mask: &[usize], quota: Option<f64>) -> Result<CorePlan, String> {
    let pinned = |cpus: &[usize]| CorePlan(cpus.iter().copied().map(Some).collect());
    match choice {
        None => {
            // A quota of 1.5 CPUs would throttle two busy executors a quarter of the time: one is better.
            let quota = quota.map_or(usize::MAX, |quota| (quota.floor() as usize).max(1));
            Ok(pinned(&mask[..mask.len().min(quota).min(CORES_MAX)]))
        }
        Some(CoreChoice::Count(count)) if *count <= mask.len() => Ok(pinned(&mask[..*count])),
        // More executors than CPUs is for tests: the kernel spreads them.
        Some(CoreChoice::Count(count)) => Ok(CorePlan(vec![None; *count])),
        Some(CoreChoice::List(list)) => match list.iter().find(|cpu| !mask.contains(cpu)) {
            Some(cpu) => {
                Err(format!("--cores names CPU {cpu}, but this process may run on {mask:?} only (see taskset)"))
            }
            None => Ok(pinned(list)),
        },
    }
}

/// The CPUs that this process may run on.
#[must_use]
pub fn affinity_mask() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// The CPU time that the cgroup allows, in CPUs.
#[must_use]
pub fn cpu_quota() -> Option<f64> {
    let v2 = groups("").into_iter().filter_map(|group| quota_v2(&fs::read_to_string(group.join("cpu.max")).ok()?));
    let v1 = groups("cpu").into_iter().filter_map(|group| {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<f64>().ok();
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    });
    v2.chain(v1).reduce(f64::min)
}

fn quota_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The memory of the machine or of the cgroup, whichever is less, in bytes.
#[must_use]
pub fn memory_limit() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    let read = |group: PathBuf, name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let v2 = groups("").into_iter().filter_map(|group| read(group, "memory.max"));
    let v1 = groups("memory").into_iter().filter_map(|group| read(group, "memory.limit_in_bytes"));
    v2.chain(v1).chain(machine).min().unwrap_or(DEFAULT_MEMORY_BYTES_MAX)
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The default of `--memory`, in bytes.
#[must_use]
pub fn default_memory(limit: u64) -> u64 {
    (limit / 4).clamp(MEMORY_BYTES_MIN, DEFAULT_MEMORY_BYTES_MAX)
}

/// The directories of this process' cgroup for a controller ("" is version 2's one tree), from the innermost outwards:
/// each of them limits.
fn groups(controller: &str) -> Vec<PathBuf> {
    let of_process = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup").join(controller);
    let Some(group) = group_of(&of_process, controller) else { return Vec::new() };
    root.join(group.trim_start_matches('/'))
        .ancestors()
        .take_while(|path| path.starts_with(&root))
        .map(Path::to_owned)
        .collect()
}

fn group_of<'a>(of_process: &'a str, controller: &str) -> Option<&'a str> {
    of_process.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(group)
    })
}

/// A number of bytes as people write it: `512M`, `2GiB`, `1073741824`. Units are powers of 1024.
/// # Errors  One sentence on what is allowed.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no amount of memory: write 512M, 2G or a number of bytes");
    let digits = text.trim().trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(bad()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(choice: Option<&str>, mask: &[usize], quota: Option<f64>) -> Result<Vec<Option<usize>>, String> {
        let choice = choice.map(|text| text.parse().expect("a valid choice"));
        plan(choice.as_ref(), mask, quota).map(|plan| plan.0)
    }

    #[test]
    fn executors_follow_mask_quota_and_choice() {
        let mask = [2, 3, 5];
        assert_eq!(planned(None, &mask, None), Ok(vec![Some(2), Some(3), Some(5)]));
        assert_eq!(planned(None, &mask, Some(2.5)), Ok(vec![Some(2), Some(3)]));
        assert_eq!(planned(None, &mask, Some(0.3)), Ok(vec![Some(2)]));
        assert_eq!(planned(Some("2"), &mask, Some(1.0)), Ok(vec![Some(2), Some(3)]));
        assert_eq!(planned(Some("8"), &mask, None), Ok(vec![None; 8]));
        assert_eq!(planned(Some("5,3"), &mask, None), Ok(vec![Some(3), Some(5)]));
        assert_eq!(planned(Some("2-3"), &mask, None), Ok(vec![Some(2), Some(3)]));
        assert!(planned(Some("4,5"), &mask, None).is_err_and(|error| error.contains("CPU 4")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "-1", "257", "3-1", "a", "1,,b", "0-100000", ","] {
            assert!(text.parse::<CoreChoice>().is_err(), "{text:?}");
        }
        for text in ["", "M", "1T", "1.5G", "99999999999G", "-1"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes(" 2 GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("1000"), Ok(1000));
    }

    #[test]
    fn kernel_files_are_understood() {
        assert_eq!(quota_v2("150000 100000\n"), Some(1.5));
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(machine_memory("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24000 * 1024));
        let text = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(group_of(text, "memory"), Some("/a/b"));
        assert_eq!(group_of(text, "cpu"), Some("/c"));
        assert_eq!(group_of(text, ""), Some("/d"));
        assert_eq!(group_of(text, "blkio"), None);
    }

    #[test]
    fn the_default_memory_is_a_quarter_within_bounds() {
        assert_eq!(default_memory(2 << 30), 512 << 20);
        assert_eq!(default_memory(64 << 30), 1 << 30);
        assert_eq!(default_memory(1 << 20), MEMORY_BYTES_MIN);
    }
}
