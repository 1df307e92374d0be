use std::fs;
use std::time::Duration;

/// Clock ticks a second in `/proc`, on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// CPU time that the process `pid` and its children (nginx workers) have used, in user and kernel mode.
///
/// In steps of 10 ms: measure for seconds. Zero for a process that has gone.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Duration = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(own).sum();
    own(pid) + children
}

fn own(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// CPU time of the calling thread, in nanoseconds: from the scheduler's own accounts.
///
/// # Panics
///
/// There is no `/proc/thread-self/schedstat`: a kernel without scheduler statistics.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds");
    Duration::from_nanos(nanos)
}
