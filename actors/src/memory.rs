//! How much memory and how many files the process has now, as Linux tells it.

use std::fs;

/// Memory in RAM, in bytes; nothing where the system does not tell.
pub(crate) fn resident() -> Option<usize> {
    status("VmRSS:")
}

/// The most that was in RAM at any moment, in bytes.
pub(crate) fn peak() -> Option<usize> {
    status("VmHWM:")
}

/// Open files and sockets.
pub(crate) fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

fn status(field: &str) -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_memory_and_files() {
        let (now, peak) = (super::resident().unwrap(), super::peak().unwrap());
        assert!(now > 100_000 && peak >= now, "{now} {peak}");
        assert!(super::open_files().unwrap() >= 3);
    }
}
