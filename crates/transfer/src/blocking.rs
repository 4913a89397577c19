//! Work that may wait for a disk, on threads where nothing else waits for it.

use tokio::task::JoinError;

/// Runs `work` on a thread of its own. A panic of `work` continues in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work)).await
}

/// Returns the result of a task, and continues its panic.
///
/// The task must not be aborted by anybody but a runtime that shuts down. Then this future stays
/// pending: the caller is about to be dropped too, and must not panic on the way.
pub async fn joined<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}
