//! Who does the columns of a frame: each is a summary of its own, so that the result does not depend on it.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Calls its last argument once, or more often at the same time: it does what is left of so many columns (the first) with so many cells in
/// them (the second).
pub type Spread = fn(usize, usize, &(dyn Fn() + Sync));

static OF_MONITORS: OnceLock<Spread> = OnceLock::new();

/// Lets all monitors of this process go about large frames in this way. Without it they stay with their caller: they work beside a model.
pub fn spread_monitors(how: Spread) {
    let _ = OF_MONITORS.set(how);
}

pub(crate) fn of_monitors() -> Spread {
    OF_MONITORS.get().copied().unwrap_or(|_, _, work| work())
}

/// Calls `each` once per column, in any order.
pub(crate) fn on_each<T: Send>(how: Spread, rows: usize, columns: &mut [T], each: impl Fn(&mut T) + Sync) {
    let number = columns.len();
    let queue = Mutex::new(columns.iter_mut());
    how(number, rows.saturating_mul(number), &|| {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            match next {
                Some(column) => each(column),
                None => break,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_is_done_once_however_often_it_is_begun() {
        let ways: [Spread; 2] = [
            |_, _, work| work(),
            |columns, cells, work| {
                assert_eq!((columns, cells), (100, 700));
                std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
            },
        ];
        for how in ways {
            let mut columns = [0; 100];
            on_each(how, 7, &mut columns, |column| *column += 1);
            assert_eq!(columns, [1; 100]);
        }
    }
}
