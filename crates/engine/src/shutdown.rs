//! How a process ends: first it drains, then it gives up waiting.

use tokio_util::sync::CancellationToken;

/// Two signals, the second more urgent than the first. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Shutdown {
    /// Asks for an end: take nothing new and let what runs finish, within its time.
    ///
    /// Asked again, it stops what runs at once.
    pub fn request(&self) {
        if self.drain.is_cancelled() {
            self.abort.cancel();
        }
        self.drain.cancel();
    }

    /// Says whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits until the end is asked for.
    pub async fn requested(&self) {
        self.drain.cancelled().await;
    }

    /// Returns what is cancelled when the end is asked for.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Waits until the end is asked for a second time.
    pub async fn urged(&self) {
        self.abort.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn second_request_urges() {
        let shutdown = Shutdown::default();
        shutdown.clone().request();
        shutdown.requested().await;
        assert!(!shutdown.abort.is_cancelled());
        shutdown.request();
        shutdown.urged().await;
    }
}
