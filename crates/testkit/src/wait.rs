//! Bounded waits for a state, in place of sleeps.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Pause between two looks; short, since most states come within a few.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `reached` is true, looking again and again.
///
/// A look that hangs counts against the same `deadline`.
///
/// # Panics
///
/// If the state does not come within `deadline`, naming `what` and the line of the caller.
#[track_caller]
pub fn eventually<F>(deadline: Duration, what: &str, mut reached: F) -> impl Future<Output = ()>
where
    F: AsyncFnMut() -> bool,
{
    let caller = Location::caller();
    async move {
        let looking = async {
            while !reached().await {
                sleep(PAUSE).await;
            }
        };
        let came = timeout(deadline, looking).await.is_ok();
        assert!(came, "{caller}: within {deadline:?} this did not come: {what}");
    }
}
