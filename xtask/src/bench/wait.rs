//! Bounded waits for a state.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Pause between two looks, small beside the seconds that are measured.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until there is something to return, for at most `limit`.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if deadline < Instant::now() {
            bail!("within {limit:?} this did not come: {what}");
        }
        sleep(PAUSE).await;
    }
}
