//! Keeps a panic of one runner from ending the worker.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Waits for `work`; a panic becomes an error that carries its text.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    // The runner's state is not looked at again after a panic, so it cannot be seen broken.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| text(&*payload))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let said = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text");
    format!("the runner panicked: {said}")
}
