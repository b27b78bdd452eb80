//! Look-ups that are held up and released by the test.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// Knows the squares of even numbers, as they stand at the moment.
struct Squares(Arc<Ground>);

struct Ground {
    asked: Mutex<Vec<Vec<u32>>>,
    /// What is added to each square.
    offset: Mutex<u32>,
    /// Each look-up waits for a permit after it has read.
    gate: Semaphore,
    fails: Mutex<Option<StoreError>>,
}

#[async_trait]
impl Load<u32, u32> for Squares {
    fn what(&self) -> &'static str {
        "square"
    }

    async fn load(&self, keys: &[u32]) -> Result<HashMap<u32, u32>, StoreError> {
        let ground = &*self.0;
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        ground.asked.lock().unwrap().push(sorted);
        let offset = *ground.offset.lock().unwrap();
        ground.gate.acquire().await.unwrap().forget();
        assert!(!keys.contains(&13), "13 brings bad luck");
        if let Some(error) = ground.fails.lock().unwrap().take() {
            return Err(error);
        }
        let even = keys.iter().filter(|key| *key % 2 == 0);
        Ok(even.map(|key| (*key, key * key + offset)).collect())
    }
}

struct Rig {
    ground: Arc<Ground>,
    lookup: Lookup<u32, u32>,
}

impl Rig {
    fn new(permits: usize) -> Self {
        let ground = Arc::new(Ground {
            asked: Mutex::default(),
            offset: Mutex::default(),
            gate: Semaphore::new(permits),
            fails: Mutex::default(),
        });
        let known_max = NonZeroUsize::new(3).unwrap();
        let lookup = Lookup::new(Squares(Arc::clone(&ground)), known_max);
        Self { ground, lookup }
    }

    /// Asks, and returns when the question has been heard.
    async fn ask(&self, key: u32) -> JoinHandle<Result<Option<u32>, StoreError>> {
        let lookup = self.lookup.clone();
        let asked = tokio::spawn(async move { lookup.get(&key).await });
        settle().await;
        asked
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        self.ground.asked.lock().unwrap().clone()
    }
}

/// Lets all tasks go as far as they can: under paused time this ends when all of them rest.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_meanwhile_is_looked_up_together_and_once() {
    let rig = Rig::new(0);
    let first = rig.ask(2).await;
    let others = [rig.ask(4).await, rig.ask(3).await, rig.ask(4).await];
    assert_eq!(rig.asked(), [vec![2]], "nobody waits for company");
    rig.ground.gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), Some(4));
    for (asked, expected) in others.into_iter().zip([Some(16), None, Some(16)]) {
        assert_eq!(asked.await.unwrap().unwrap(), expected);
    }
    assert_eq!(rig.asked(), [vec![2], vec![3, 4]]);
    assert_eq!(rig.lookup.get(&4).await.unwrap(), Some(16));
    assert_eq!(rig.asked().len(), 2, "it is remembered");
    assert_eq!((rig.lookup.known(&2), rig.lookup.known(&3)), (Some(4), None));
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_not_remembered_by_a_look_up_that_began_before() {
    for forget in [
        |lookup: &Lookup<u32, u32>| lookup.forget(&2),
        |lookup: &Lookup<u32, u32>| lookup.forget_if(|_| true),
    ] {
        let rig = Rig::new(0);
        let early = rig.ask(2).await;
        *rig.ground.offset.lock().unwrap() = 100;
        forget(&rig.lookup);
        let late = rig.ask(2).await;
        rig.ground.gate.add_permits(1);
        assert_eq!(early.await.unwrap().unwrap(), Some(4), "as it was when it asked");
        assert_eq!(rig.lookup.known(&2), None);
        rig.ground.gate.add_permits(1);
        assert_eq!(late.await.unwrap().unwrap(), Some(104), "as it is since the change");
        assert_eq!(rig.lookup.known(&2), Some(104));
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_meant_is_forgotten() {
    let rig = Rig::new(9);
    for key in [2, 4, 6] {
        rig.lookup.get(&key).await.unwrap();
    }
    rig.lookup.forget(&2);
    rig.lookup.forget_if(|square| *square == 16);
    let known = [2, 4, 6].map(|key| rig.lookup.known(&key));
    assert_eq!(known, [None, None, Some(36)]);
    for key in [8, 10, 12] {
        rig.lookup.get(&key).await.unwrap();
    }
    assert_eq!(rig.lookup.known(&6), None, "three at most, and it was asked for longest ago");
}

#[tokio::test(start_paused = true)]
async fn failure_is_told_to_all_who_waited_and_nothing_is_remembered_of_it() {
    let rig = Rig::new(1);
    let first = rig.ask(8).await;
    first.await.unwrap().unwrap();
    let away = StoreError::Unavailable { operation: "square", source: "away".into() };
    let waiting = [rig.ask(2).await, rig.ask(4).await, rig.ask(6).await];
    *rig.ground.fails.lock().unwrap() = Some(away);
    rig.ground.gate.add_permits(2);
    let mut told = Vec::new();
    for waiting in waiting {
        told.push(waiting.await.unwrap());
    }
    assert!(matches!(told[0], Err(StoreError::Unavailable { operation: "square", .. })));
    assert_eq!(told[1].as_ref().unwrap(), &Some(16), "the next look-up is another one");
    assert_eq!(rig.lookup.known(&2), None);
}

#[tokio::test(start_paused = true)]
async fn panic_is_an_error_and_ends_nothing() {
    let rig = Rig::new(9);
    let error = rig.lookup.get(&13).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Broken { source, .. } if source.to_string().contains("bad luck"))
    );
    assert_eq!(rig.lookup.get(&2).await.unwrap(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_look_up_to_the_others() {
    let rig = Rig::new(0);
    let (gone, stays) = (rig.ask(2).await, rig.ask(4).await);
    gone.abort();
    rig.ground.gate.add_permits(2);
    assert_eq!(stays.await.unwrap().unwrap(), Some(16));
    assert_eq!(rig.lookup.known(&2), Some(4), "it was looked up all the same");
}
