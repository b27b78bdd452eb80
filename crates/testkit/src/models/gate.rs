//! What holds an answer until its test lets it go on.

use std::sync::Arc;

use tokio::sync::watch;

/// Holds answers until it is opened; clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_open: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl Gate {
    /// Makes one that is closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, from here on.
    pub fn open(&self) {
        self.0.is_open.send_replace(true);
    }

    /// Waits until it holds exactly `count` answers; one that its client gave up is not held.
    pub async fn holds(&self, count: usize) {
        let mut held = self.0.held.subscribe();
        // An error is impossible: the sender lives as long as this gate.
        let _ = held.wait_for(|&now| now == count).await;
    }

    pub(super) async fn pass(&self) {
        let mut is_open = self.0.is_open.subscribe();
        let _held = Held::new(&self.0.held);
        let _ = is_open.wait_for(|&is_open| is_open).await;
    }
}

/// One held answer in the count.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
