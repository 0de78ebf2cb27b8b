//! Threads with a runtime each: nothing on the hot path is shared between them.

use std::io;
use std::thread::JoinHandle;

use tokio::task::LocalSet;

/// Starts a thread with a current-thread runtime, and runs on it the future that `make` makes there, until it ends.
///
/// `make` runs on the new thread, inside the runtime, so the future need not be `Send`.
pub(super) fn spawn<F, T>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<T>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    // Made here, so that a want of file descriptors is an error of the start, not a panic of the thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name(name).build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move { make().await })
    })
}
