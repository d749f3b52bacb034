//! What a run was made on.

use std::fs;

/// The processor, the cores that this process may use, and the kernel's version, in a line for reports.
pub fn in_a_line() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |text| text.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // What a distributor adds to the version says nothing of what was measured.
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{model}, {cores} cores, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_many_cores_there_are() {
        let line = in_a_line();
        assert!(line.contains(" cores, Linux ") && !line.contains('\n'), "{line}");
    }
}
