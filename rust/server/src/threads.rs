//! Work on all cores at once.

use std::sync::OnceLock;

/// Fewer cells than this are done before another thread has started.
const CELLS_PER_THREAD: usize = 1 << 15;

/// The cores that this process may use, or what `BAROGRAPH_THREADS` says if that is less.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        let wanted = std::env::var("BAROGRAPH_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        std::thread::available_parallelism().map_or(1, usize::from).min(wanted)
    })
}

/// Calls `work` on as many threads at once as there are cores, columns and enough to do. A thread that cannot be started is done without.
pub fn on_all_cores(columns: usize, cells: usize, work: &(dyn Fn() + Sync)) {
    let threads = cores().min(columns).min(cells / CELLS_PER_THREAD);
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn threads_are_as_many_as_are_worth_it() {
        for (columns, cells, expected) in [(9, 0, 1), (9, 2 * CELLS_PER_THREAD - 1, 1), (9, 2 * CELLS_PER_THREAD, 2), (1, usize::MAX, 1)] {
            let calls = AtomicUsize::new(0);
            on_all_cores(columns, cells, &|| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(calls.into_inner(), expected.min(cores().max(1)));
        }
    }
}
