//! Threads with a runtime each: nothing on the hot path is shared between them.

use std::io;
use std::thread::JoinHandle;

use tokio::task::LocalSet;

/// Starts a thread with a current-thread runtime, and runs on it the future that `make` makes there, until it ends.
///
/// `make` runs on the new thread, inside the runtime, so the future need not be `Send`. `guard` is dropped when the thread ends,
/// also when it panics.
pub(super) fn spawn<F, T>(
    name: &str,
    guard: impl Send + 'static,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<T>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    // Made here, so that a want of file descriptors is an error of the start, not a panic of the thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name(name).build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = guard;
        let local = LocalSet::new();
        local.block_on(&runtime, async move { make().await })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    #[test]
    fn a_thread_that_panics_lets_go_of_its_guard() {
        let guard = Arc::new(());
        let thread =
            super::spawn("test", guard.clone(), || async { assert!(std::hint::black_box(false), "on purpose") });
        assert!(thread.expect("a thread").join().is_err());
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
