use std::future::Future;
use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt};
use musterbeat_core::port::MockModelConfigStore;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::model::{Delta, Request};

/// Far above what a loaded machine needs, so that only a lost wake reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Long enough that nothing expires by itself.
const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn what_storage_said_is_remembered() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().times(2).returning(|name| Ok(Some(config(name.as_ref(), "home"))));
    let catalog = catalog(store, LONG, None);
    for _ in 0..3 {
        assert_eq!(chosen(&catalog, Some("fast")).await, "fast of home");
        assert_eq!(chosen(&catalog, None).await, "default of home");
    }
}

#[tokio::test]
async fn what_is_not_there_is_remembered_too() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().times(2).returning(|_| Ok(None));
    let catalog = catalog(store, LONG, None);
    for _ in 0..3 {
        assert_eq!(
            chosen(&catalog, Some("fast")).await,
            "configuration: musterbeat: there is no model `fast`: name another, or add it with \
             `PUT /api/v1/models/fast`"
        );
        assert_eq!(
            chosen(&catalog, None).await,
            "configuration: musterbeat: no model is named and none is the default: name one, or \
             add one with `PUT /api/v1/models/NAME` and `is_default`"
        );
    }
}

#[tokio::test]
async fn what_expired_is_looked_up_anew() {
    for remembered in [Duration::ZERO, Duration::from_millis(5)] {
        let (store, found) = counting();
        let catalog = catalog(store, remembered, None);
        within(async {
            while found.load(Ordering::Relaxed) < 3 {
                let count = found.load(Ordering::Relaxed);
                let model = chosen(&catalog, Some("fast")).await;
                // Each look-up finds the next one.
                assert!(
                    [format!("m{count} of home"), format!("m{} of home", count + 1)]
                        .contains(&model)
                );
                yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn callers_at_once_share_a_look_up() {
    let (store, found) = counting();
    // Nothing is remembered: it is the look-up itself that they share.
    let (store, gate) = gated(store);
    let catalog = catalog_of(store, Duration::ZERO, None);
    let callers = join_all((0..100).map(|_| chosen(&catalog, Some("fast"))));
    let open = async {
        until_asked(&gate, 1).await;
        gate.doors.add_permits(1);
    };
    let (models, ()) = within(async { tokio::join!(callers, open) }).await;
    assert!(models.iter().all(|model| model == "m1 of home"), "{models:?}");
    assert_eq!(found.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn failures_are_told_to_all_and_not_remembered() {
    let mut store = MockModelConfigStore::new();
    let mut failures = vec![broken(), unavailable()];
    store.expect_find().times(3).returning(move |name| match failures.pop() {
        Some(error) => Err(error),
        None => Ok(Some(config(name.as_ref(), "home"))),
    });
    let (store, gate) = gated(store);
    let catalog = catalog_of(store, LONG, None);
    let callers = join_all((0..10).map(|_| chosen(&catalog, Some("fast"))));
    let open = async {
        until_asked(&gate, 1).await;
        gate.doors.add_permits(3);
    };
    let (errors, ()) = within(async { tokio::join!(callers, open) }).await;
    let expected = "transport: musterbeat: failed to find a model: the database is not available";
    assert!(errors.iter().all(|error| error == expected), "{errors:?}");
    let broken = chosen(&catalog, Some("fast")).await;
    assert_eq!(broken, "other: musterbeat: failed to find a model");
    assert_eq!(chosen(&catalog, Some("fast")).await, "fast of home");
    assert_eq!(chosen(&catalog, Some("fast")).await, "fast of home");
}

#[tokio::test]
async fn only_a_failure_that_may_pass_is_worth_a_retry() {
    assert!(unread(&unavailable()).kind.is_retryable());
    assert!(!unread(&broken()).kind.is_retryable());
}

/// More callers than the cache lets pass a look-up on.
#[tokio::test]
async fn callers_that_go_leave_the_look_up_to_the_others() {
    let (store, found) = counting();
    let (store, gate) = gated(store);
    let catalog = catalog_of(store, LONG, None);
    let name = ModelName::new("fast").unwrap();
    let mut callers: Vec<_> = (0..300).map(|_| catalog.choose(Some(&name))).collect();
    for caller in &mut callers {
        assert!(caller.now_or_never().is_none());
    }
    within(until_asked(&gate, 1)).await;
    for caller in callers {
        drop(caller);
        yield_now().await;
    }
    let waiting = chosen(&catalog, Some("fast"));
    let open = async { gate.doors.add_permits(1) };
    assert_eq!(within(async { tokio::join!(waiting, open) }).await.0, "m1 of home");
    assert_eq!(chosen(&catalog, Some("fast")).await, "m1 of home");
    assert_eq!(found.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_look_up_that_panics_is_an_error_of_its_callers_only() {
    let (store, _) = counting();
    let (store, gate) = gated(store);
    let catalog = catalog_of(store, LONG, None);
    gate.doors.add_permits(2);
    gate.panics.store(1, Ordering::Relaxed);
    assert_eq!(
        chosen(&catalog, Some("fast")).await,
        "other: musterbeat: failed to find the model: the look-up did not come to its end"
    );
    assert_eq!(chosen(&catalog, Some("fast")).await, "m2 of home");
}

#[tokio::test]
async fn what_is_forgotten_is_looked_up_anew_and_the_default_with_it() {
    let (store, _) = counting();
    let catalog = catalog(store, LONG, None);
    assert_eq!(chosen(&catalog, Some("fast")).await, "m1 of home");
    assert_eq!(chosen(&catalog, None).await, "m2 of home");
    assert_eq!(chosen(&catalog, Some(other_group())).await, "m3 of home");

    catalog.forget(&ModelName::new("fast").unwrap());
    assert_eq!(chosen(&catalog, Some("fast")).await, "m4 of home");
    assert_eq!(chosen(&catalog, None).await, "m5 of home");
    assert_eq!(chosen(&catalog, Some(other_group())).await, "m3 of home");

    catalog.forget_all();
    for (name, expected) in [(Some("fast"), "m6"), (None, "m7"), (Some(other_group()), "m8")] {
        assert_eq!(chosen(&catalog, name).await, format!("{expected} of home"));
        assert_eq!(chosen(&catalog, name).await, format!("{expected} of home"));
    }
}

#[tokio::test]
async fn a_look_up_from_before_does_not_bring_back_what_was_forgotten() {
    let forgets: [fn(&Catalog); 2] =
        [|catalog| catalog.forget(&ModelName::new("fast").unwrap()), Catalog::forget_all];
    for forget in forgets {
        let (store, found) = counting();
        let (store, gate) = gated(store);
        let catalog = catalog_of(store, LONG, None);
        let before = chosen(&catalog, Some("fast"));
        let after = async {
            until_asked(&gate, 1).await;
            forget(&catalog);
            // Another look-up, though the first is under way.
            let after = chosen(&catalog, Some("fast"));
            let open = async {
                until_asked(&gate, 2).await;
                gate.doors.add_permits(2);
            };
            tokio::join!(after, open).0
        };
        let (before, after) = within(async { tokio::join!(before, after) }).await;
        assert_eq!([&*before, &after], ["m1 of home", "m2 of home"]);
        assert_eq!(chosen(&catalog, Some("fast")).await, "m2 of home");
        assert_eq!(found.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn the_servers_own_answers_where_storage_has_none() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().returning(|_| Ok(None));
    let own = config(Some(&ModelName::new("own").unwrap()), "home");
    let catalog = catalog(store, LONG, Some(own));
    assert_eq!(chosen(&catalog, None).await, "own of home");
    assert_eq!(chosen(&catalog, Some("own")).await, "own of home");
    let error = chosen(&catalog, Some("fast")).await;
    assert!(error.starts_with("configuration: musterbeat: there is no model `fast`"), "{error}");
}

#[tokio::test]
async fn storage_goes_before_the_servers_own() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().returning(|name| Ok(Some(config(name.as_ref(), "away"))));
    let own = config(Some(&ModelName::new("own").unwrap()), "home");
    let catalog = catalog(store, LONG, Some(own));
    assert_eq!(chosen(&catalog, None).await, "default of away");
    assert_eq!(chosen(&catalog, Some("own")).await, "own of away");
}

#[tokio::test]
async fn a_failure_of_storage_is_not_taken_for_a_model_that_is_not_there() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().returning(|_| Err(unavailable()));
    let own = config(Some(&ModelName::new("own").unwrap()), "home");
    let catalog = catalog(store, LONG, Some(own));
    assert!(chosen(&catalog, None).await.starts_with("transport: "));
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named_with_its_setting() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().returning(|name| Ok(Some(config(name.as_ref(), "gone"))));
    assert_eq!(
        chosen(&catalog(store, LONG, None), Some("fast")).await,
        "configuration: musterbeat: the model `fast` is of the provider `gone`, which the \
         settings do not have: add a `[[provider]]` of this name, or change `provider` with \
         `PUT /api/v1/models/fast`"
    );
}

#[tokio::test]
async fn names_that_users_make_up_do_not_pile_up() {
    let mut store = MockModelConfigStore::new();
    store.expect_find().times(2_000).returning(|_| Ok(None));
    let options = CatalogOptions { names_max: 10, remembered: LONG, fallback: None };
    let catalog = Catalog::new(Arc::new(store), providers(), options);
    for index in 0..2_000 {
        assert!(chosen(&catalog, Some(&format!("x{index}"))).await.contains("there is no model"));
    }
    catalog.known.run_pending_tasks().await;
    assert!(catalog.known.entry_count() <= 10, "{}", catalog.known.entry_count());
}

/// Says which model was chosen, or what the error is.
async fn chosen(catalog: &Catalog, name: Option<&str>) -> String {
    let name = name.map(|name| ModelName::new(name).unwrap());
    match catalog.choose(name.as_ref()).await {
        Ok(chosen) => {
            assert_eq!(chosen.model.provider(), chosen.config.provider);
            format!("{} of {}", chosen.config.name.as_str(), chosen.config.provider)
        }
        Err(error) => format!("{}: {error}", error.kind.as_str()),
    }
}

fn catalog(
    store: MockModelConfigStore,
    remembered: Duration,
    fallback: Option<ModelConfig>,
) -> Catalog {
    catalog_of(Arc::new(store), remembered, fallback)
}

fn catalog_of(
    store: Arc<dyn ModelConfigStore>,
    remembered: Duration,
    fallback: Option<ModelConfig>,
) -> Catalog {
    let options = CatalogOptions { remembered, fallback, ..CatalogOptions::default() };
    Catalog::new(store, providers(), options)
}

fn providers() -> BTreeMap<String, Arc<dyn Model>> {
    let names = ["home", "away"];
    names.map(|name| (name.to_owned(), Arc::new(Silent(name)) as Arc<dyn Model>)).into()
}

fn config(name: Option<&ModelName>, provider: &str) -> ModelConfig {
    let name = name.cloned().unwrap_or_else(|| ModelName::new("default").unwrap());
    ModelConfig::new(name, provider, "whatever")
}

/// Returns a name whose group is neither that of `fast` nor that of the default.
fn other_group() -> &'static str {
    let catalog = catalog(MockModelConfigStore::new(), LONG, None);
    let group = |name: Option<&str>| {
        let name = name.map(|name| ModelName::new(name).unwrap());
        std::ptr::from_ref(catalog.generation(name.as_ref()))
    };
    let taken = [group(Some("fast")), group(None)];
    ["a", "b", "c", "d", "e"].into_iter().find(|name| !taken.contains(&group(Some(name)))).unwrap()
}

/// Returns a store whose look-ups find `m1`, `m2`, and so on, and their number.
fn counting() -> (MockModelConfigStore, Arc<AtomicUsize>) {
    let found = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&found);
    let mut store = MockModelConfigStore::new();
    store.expect_find().returning(move |_| {
        let name = format!("m{}", count.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Some(config(Some(&ModelName::new(name).unwrap()), "home")))
    });
    (store, found)
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { operation: "find a model", source: "gone".into() }
}

fn broken() -> StoreError {
    StoreError::Broken { operation: "find a model", source: "no".into() }
}

/// A store whose answers are let out one by one; the answer is made when it was asked.
struct Gated {
    inner: MockModelConfigStore,
    doors: Semaphore,
    asked: AtomicUsize,
    /// How many of the next answers are panics.
    panics: AtomicUsize,
}

fn gated(inner: MockModelConfigStore) -> (Arc<Gated>, Arc<Gated>) {
    let (asked, panics) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let store = Gated { inner, doors: Semaphore::new(0), asked, panics };
    let store = Arc::new(store);
    (Arc::clone(&store), store)
}

async fn until_asked(gate: &Gated, times: usize) {
    while gate.asked.load(Ordering::Relaxed) < times {
        yield_now().await;
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("it came to its end in time")
}

#[async_trait]
impl ModelConfigStore for Gated {
    async fn find(&self, name: Option<ModelName>) -> Result<Option<ModelConfig>, StoreError> {
        let answer = self.inner.find(name).await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.doors.acquire().await.unwrap().forget();
        let panics = self
            .panics
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |panics| panics.checked_sub(1));
        assert!(panics.is_err(), "the store was told to panic");
        answer
    }

    async fn list(&self) -> Result<Vec<ModelConfig>, StoreError> {
        self.inner.list().await
    }

    async fn put(&self, config: &ModelConfig) -> Result<bool, StoreError> {
        self.inner.put(config).await
    }

    async fn delete(&self, name: &ModelName) -> Result<bool, StoreError> {
        self.inner.delete(name).await
    }
}

/// A provider that says nothing.
struct Silent(&'static str);

impl Model for Silent {
    fn provider(&self) -> &str {
        self.0
    }

    fn ask(&self, _request: Request) -> BoxStream<'static, Result<Delta, ModelError>> {
        stream::empty().boxed()
    }
}
