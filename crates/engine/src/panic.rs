//! Keeps a panic of somebody else's code from ending a loop.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Waits for the work of `whose`; a panic becomes an error that carries its text.
pub(crate) async fn caught<T>(whose: &str, work: impl Future<Output = T>) -> Result<T, String> {
    // Its state is not looked at again after a panic, so it cannot be seen broken.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| text(whose, &*payload))
}

fn text(whose: &str, payload: &(dyn Any + Send)) -> String {
    let said = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text");
    format!("{whose} panicked: {said}")
}
