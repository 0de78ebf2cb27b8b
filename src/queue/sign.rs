//! Threads for work that would stall every session of the egress thread: RSA signatures (0.2 ms and more), and the
//! signing and re-encoding of what is large.
//!
//! 1. The egress thread waits for one of the places (twice the number of threads), so that the queue is bounded,
//! 2. hands over a closure, which the next free thread runs,
//! 3. and gets the result by a one-shot channel.
//!
//! A session that is dropped while it waits leaves its work to be done for nobody. The pool's end lets begun work finish.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

/// Places in the queue for each thread: one that is worked on and one that follows it at once.
const PLACES_PER_THREAD: usize = 2;

type Task = Box<dyn FnOnce() + Send>;

/// The pool has ended, or the work panicked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the signing threads have ended")]
pub struct PoolEnded;

/// A fixed number of threads behind a bounded queue.
pub struct SignPool {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    ended: bool,
}

impl SignPool {
    /// A pool of one thread a core.
    pub fn new() -> std::io::Result<Self> {
        Self::with_threads(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// A pool of so many threads, at least one.
    pub fn with_threads(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), work: Condvar::new() });
        let places = Arc::new(Semaphore::new(threads * PLACES_PER_THREAD));
        // The pool comes first: if a thread can't start, dropping it ends those that did.
        let mut pool = Self { shared, places, threads: Vec::with_capacity(threads) };
        for i in 0..threads {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("sign-{i}")).spawn(move || work(&shared))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Runs `task` on one of the threads; waits for a place, then for the result.
    pub async fn run<T, F>(&self, task: F) -> Result<T, PoolEnded>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // The place goes with the task, not with this future: work whose session is gone still takes time.
        let place = self.places.clone().acquire_owned().await.map_err(|_| PoolEnded)?;
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move || {
            let result = task();
            drop(place);
            // An error means that the session is gone; nobody else wants the result.
            let _ = reply.send(result);
        });
        {
            let mut state = self.shared.state.lock();
            if state.ended {
                return Err(PoolEnded);
            }
            state.tasks.push_back(task);
        }
        self.shared.work.notify_one();
        answer.await.map_err(|_| PoolEnded)
    }
}

impl Drop for SignPool {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let task = {
            let mut state = shared.state.lock();
            loop {
                if let Some(task) = state.tasks.pop_front() {
                    break task;
                }
                if state.ended {
                    return;
                }
                shared.work.wait(&mut state);
            }
        };
        // A panic ends this task only: its reply is dropped, and its caller told.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn runs_many_and_survives_a_panic() {
        let pool = SignPool::with_threads(2).expect("threads");
        assert_eq!(pool.run(|| -> u32 { panic!("a bug in a task") }).await, Err(PoolEnded));
        let results = futures_all((0..100_u32).map(|i| pool.run(move || i * 2)).collect()).await;
        assert_eq!(results, (0..100).map(|i| Ok(i * 2)).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_queue_is_bounded() {
        let pool = SignPool::with_threads(1).expect("a thread");
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let mut waiting: Vec<_> = Vec::new();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..5 {
            let held = held.clone();
            waiting.push(Box::pin(pool.run(move || held.lock().recv().is_ok())));
        }
        let waker = std::task::Waker::noop();
        for task in &mut waiting {
            assert!(task.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        }
        assert!(pool.shared.state.lock().tasks.len() <= PLACES_PER_THREAD);
        for _ in 0..5 {
            hold.send(()).expect("held");
        }
        for task in waiting {
            assert_eq!(task.await, Ok(true));
        }
    }

    async fn futures_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
        let mut results = Vec::new();
        for future in futures {
            results.push(future.await);
        }
        results
    }
}
