//! The process itself, read from `/proc` at a scrape: memory, CPU, file descriptors, start.

use prometheus::{Counter, IntGauge};

use super::Registry;

/// Memory, CPU and descriptors of the daemon.
#[derive(Clone)]
pub struct ProcessMetrics {
    resident: IntGauge,
    virtual_size: IntGauge,
    cpu: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start: IntGauge,
}

/// The kernel's unit of CPU time in `/proc/self/stat`: USER_HZ is 100 on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

impl ProcessMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            resident: registry.gauge("process_resident_memory_bytes", "Memory that the process holds in RAM."),
            virtual_size: registry.gauge("process_virtual_memory_bytes", "Address space of the process."),
            cpu: registry.counter_f64("process_cpu_seconds_total", "CPU time, user and system."),
            open_fds: registry.gauge("process_open_fds", "Open file descriptors."),
            max_fds: registry.gauge("process_max_fds", "The most file descriptors that may be open (RLIMIT_NOFILE)."),
            threads: registry.gauge("process_threads", "Threads."),
            start: registry.gauge("process_start_time_seconds", "When the process started, in seconds since 1970."),
        }
    }

    /// Reads `/proc`; what can't be read keeps its value.
    pub fn refresh(&self) {
        if let Some(stat) = Stat::read() {
            self.resident.set(stat.resident.cast_signed());
            self.virtual_size.set(stat.virtual_size.cast_signed());
            self.threads.set(stat.threads.cast_signed());
            self.cpu.inc_by((stat.cpu_seconds - self.cpu.get()).max(0.0));
            if let Some(boot) = boot_time() {
                self.start.set(boot + stat.start_seconds as i64);
            }
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            self.open_fds.set(entries.count().saturating_sub(1) as i64);
        }
        if let Some(max) = max_fds() {
            self.max_fds.set(max);
        }
    }
}

/// Octets of memory that the process holds in RAM.
pub fn resident_bytes() -> Option<u64> {
    Stat::read().map(|stat| stat.resident)
}

/// What is needed of `/proc/self/stat` (proc(5)).
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    start_seconds: u64,
    virtual_size: u64,
    resident: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Self::parse(&stat, &status)
    }

    /// The command's name may hold blanks and parentheses: the fields begin after the last one.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Field 3 of proc(5), the state, is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
            threads: field(20)?,
            start_seconds: (field(22)? as f64 / TICKS_PER_SECOND) as u64,
            virtual_size: field(23)?,
            resident: kib.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024,
        })
    }
}

fn boot_time() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds() -> Option<i64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_whose_name_has_a_parenthesis() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 7 0 1000 8192 10 0";
        let got = Stat::parse(stat, "Name:\ta\nVmRSS:\t     12 kB\n").expect("well formed");
        assert_eq!((got.cpu_seconds, got.threads, got.start_seconds), (3.0, 7, 10));
        assert_eq!((got.virtual_size, got.resident), (8192, 12_288));
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let registry = Registry::new();
        let metrics = ProcessMetrics::register(&registry);
        metrics.refresh();
        assert!(metrics.resident.get() > 100_000);
        assert!(metrics.open_fds.get() >= 3);
        assert!(metrics.max_fds.get() >= metrics.open_fds.get());
        assert!(metrics.start.get() > 1_600_000_000);
    }
}
