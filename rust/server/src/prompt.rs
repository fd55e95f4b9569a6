//! A connection that wakes itself goes on at once. With every part of a body it does: the runtime would put it behind all others, and wake
//! another thread to fetch it from there.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// So often it goes on before others have their turn.
const MOST: usize = 32;

const WAITS: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

/// Polls something again as long as it wakes itself.
pub struct Prompt {
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    state: AtomicU8,
    task: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // While it is polled, whoever polls it will see.
        if self.state.swap(WOKEN, Ordering::AcqRel) == WAITS {
            self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

impl Prompt {
    /// For one thing that is polled.
    pub fn new() -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(WAITS), task: Mutex::new(Waker::noop().clone()) });
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Calls `each` until it is ready, or has not woken itself.
    pub fn poll<T>(&self, context: &Context<'_>, mut each: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(context.waker());
        for _ in 0..MOST {
            // Swapped, not stored: whoever woke it last may have woken nobody, and what it is told of has to be seen here.
            self.bell.state.swap(POLLED, Ordering::AcqRel);
            if let ready @ Poll::Ready(_) = each(&mut Context::from_waker(&self.waker)) {
                return ready;
            }
            if self.bell.state.compare_exchange(POLLED, WAITS, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
            // What it waits for by turns it gets only in another turn.
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_wakes_itself_goes_on_without_the_runtime() {
        let (prompt, count) = (Prompt::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let mut turns = 0;
        let mut kept = None;
        let done = prompt.poll(&context, |inner| {
            turns += 1;
            kept = Some(inner.waker().clone());
            if turns < 5 {
                inner.waker().wake_by_ref();
            }
            if turns < 6 { Poll::Pending } else { Poll::Ready(()) }
        });
        assert_eq!((done, turns, count.0.load(Ordering::Relaxed)), (Poll::Pending, 5, 0));
        // From then on who wakes it wakes the task, and once is enough.
        let kept = kept.unwrap();
        kept.wake_by_ref();
        kept.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(prompt.poll(&context, |_| Poll::Ready(7)), Poll::Ready(7));
    }

    #[test]
    fn it_leaves_others_their_turn() {
        let (prompt, count) = (Prompt::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut turns = 0;
        let pending = prompt.poll(&Context::from_waker(&waker), |inner| {
            turns += 1;
            inner.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!((pending, turns, count.0.load(Ordering::Relaxed)), (Poll::Pending, MOST, 1));
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
            let sending = tokio::spawn(async move {
                for number in 0..100_000u32 {
                    sender.send(number).await.unwrap();
                }
            });
            let prompt = Prompt::new();
            let mut sum = 0u64;
            let all = poll_fn(|context| {
                prompt.poll(context, |inner| match receiver.poll_recv(inner) {
                    Poll::Ready(Some(number)) => {
                        sum += u64::from(number);
                        inner.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Ready(None) => Poll::Ready(()),
                    Poll::Pending => Poll::Pending,
                })
            });
            tokio::time::timeout(std::time::Duration::from_secs(60), all).await.unwrap();
            sending.await.unwrap();
            assert_eq!(sum, 99_999 * 100_000 / 2);
        });
    }
}
