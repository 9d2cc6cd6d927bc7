//! What the container's control group says, where either version of control groups has it.

/// How many processes and threads the container may have; none if nobody limits them.
pub(crate) fn processes_max() -> Option<u64> {
    let files = ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"];
    files
        .iter()
        .find_map(|path| read(path)?.trim().parse().ok())
}

/// How often the kernel has ended a process of the container because memory ran out, as far as it says so.
pub(crate) fn memory_ran_out() -> u64 {
    let files = [
        "/sys/fs/cgroup/memory.events",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ];
    let count = |path: &&str| -> Option<u64> {
        let text = read(path)?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    };
    files.iter().filter_map(count).sum()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
