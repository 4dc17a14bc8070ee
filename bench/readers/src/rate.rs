//! How much work a core does in a second. Part of several programs.

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// Pieces of work in a second of CPU time, measured for about `time` on the clock: all `items`, again and again.
pub fn rate<T>(items: &[T], work: fn(&T) -> bool, time: Duration) -> io::Result<f64> {
    let (began, on_cpu) = (Instant::now(), cpu_time()?);
    let mut done = 0_usize;
    while began.elapsed() < time {
        for item in items {
            done += usize::from(work(std::hint::black_box(item)));
        }
    }
    Ok(done as f64 / (cpu_time()? - on_cpu).as_secs_f64())
}

/// How long this thread has been on a CPU. Linux only.
fn cpu_time() -> io::Result<Duration> {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedule.split(' ').next().and_then(|text| text.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::Error::other("an unknown schedstat"))
}
