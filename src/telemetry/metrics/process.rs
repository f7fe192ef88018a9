//! What the process takes of the machine, by the names that Prometheus has for it; read from Linux' `/proc` when
//! somebody asks. What cannot be read is not shown.

use std::fmt::Display;
use std::fmt::Write as _;
use std::fs;

/// Writes all of it in the text format.
pub(super) fn write(text: &mut String) {
    let mut show = |name: &str, kind: &str, help: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            let _ =
                writeln!(text, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}");
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program is the second field, in brackets, and may hold anything (proc(5)).
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks);
    let started = field(22).zip(booted()).map(|(after, booted)| booted as f64 + after as f64 / ticks);
    let memory = field(24).map(|pages| pages * rustix::param::page_size() as u64);
    let open = fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1));
    show("cpu_seconds_total", "counter", "Time of processors that was used.", shown(&cpu));
    show("start_time_seconds", "gauge", "When the process started, in seconds since 1970.", shown(&started));
    show("resident_memory_bytes", "gauge", "Memory that is in use.", shown(&memory));
    show("virtual_memory_bytes", "gauge", "Memory that was asked for.", shown(&field(23)));
    show("threads", "gauge", "Threads.", shown(&field(20)));
    show("open_fds", "gauge", "File descriptors that are open.", shown(&open));
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    show("max_fds", "gauge", "File descriptors that may be open.", shown(&most));
}

fn shown<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
    value.as_ref().map(|value| value as &dyn Display)
}

/// When the machine started, in seconds since 1970.
fn booted() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}
