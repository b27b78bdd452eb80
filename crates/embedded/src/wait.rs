//! Bounded waiting.

use std::thread;
use std::time::{Duration, Instant};

/// Short beside the 30 ms in which a server starts, long beside a look at a file.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer; `None` when there was none for `limit`.
pub(crate) fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        // Asked before the clock is read, so that even no time at all is one try.
        let answer = ask();
        if answer.is_some() || deadline <= Instant::now() {
            return answer;
        }
        thread::sleep(PAUSE);
    }
}
