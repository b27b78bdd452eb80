//! Waits are bounded and name what they wait for.

use std::time::Duration;

use musterbeat_testkit::eventually;

#[tokio::test(start_paused = true)]
async fn a_state_that_comes_ends_the_wait() {
    let mut looks = 0;
    eventually(Duration::from_secs(1), "three looks", async || {
        looks += 1;
        looks == 3
    })
    .await;
    assert_eq!(looks, 3);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "this did not come: the end of time")]
async fn a_look_that_hangs_counts_against_the_deadline() {
    eventually(Duration::from_secs(1), "the end of time", std::future::pending::<bool>).await;
}
