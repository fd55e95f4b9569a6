//! Processor time, as the system counts it.

use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanoseconds(time: Timespec) -> u64 {
    (time.tv_sec.max(0) as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.max(0) as u64)
}

/// Nanoseconds that this thread has taken since it began.
pub fn of_thread() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Nanoseconds that all threads of this process have taken since it began.
pub fn of_process() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_the_process_takes_at_least_that_of_its_thread() {
        let (thread, process) = (of_thread(), of_process());
        let mut sum = 0u64;
        while of_thread() - thread < 5_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(of_process() - process >= 5_000_000);
    }
}
