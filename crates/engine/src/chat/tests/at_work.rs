//! Chats at work count as activity.

use musterbeat_core::port::{ChatContext, ChatTurn, MockActivityStore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::activity::{ACTIVITY_INTERVAL, ActivityOptions, ActivityTracker};

/// Takes two minutes and a half for each turn.
struct Slow;

#[async_trait]
impl ChatRunner for Slow {
    async fn turn(&self, _turn: ChatTurn, _context: Arc<dyn ChatContext>) -> TurnEnd {
        tokio::time::sleep(ACTIVITY_INTERVAL * 5 / 2).await;
        answer("done")
    }
}

#[tokio::test(start_paused = true)]
async fn chat_counts_each_minute_of_its_turns_and_once_after() {
    let mut activity = MockActivityStore::new();
    activity.expect_touch().times(6).returning(|seen| {
        assert_eq!(seen.chats.len(), 1);
        Ok(1)
    });
    let tracker = ActivityTracker::new(Arc::new(activity), ActivityOptions::DEFAULT);
    let end = CancellationToken::new();
    let tracking = tokio::spawn(tracker.clone().run(end.clone()));
    // Not on the same beat as the first turn.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let store = Store::answering([Ok(RunStatus::Running), Ok(RunStatus::Waiting)]);
    let runs = runs(&store, Arc::new(Slow)).with_activity(tracker);
    assert_eq!(worked(&runs, false, context(None)).await, Outcome::Settled);
    tokio::time::sleep(ACTIVITY_INTERVAL * 5).await;
    end.cancel();
    tracking.await.unwrap();
}
