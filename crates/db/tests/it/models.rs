//! How models are asked.

use futures_util::future::join_all;
use musterbeat_core::message::Model;
use musterbeat_core::model_config::{Effort, ModelConfig};
use musterbeat_core::port::{MODELS_MAX, ModelConfigStore};

use crate::setup::Fixture;

fn name(name: &str) -> Model {
    Model::new(name).unwrap()
}

fn config(of: &str) -> ModelConfig {
    ModelConfig::new(name(of), "local", format!("{of}-1"))
}

fn default(of: &str) -> ModelConfig {
    ModelConfig { is_default: true, ..config(of) }
}

/// Returns the names of all configurations, that of the default with a mark.
async fn names(store: &dyn ModelConfigStore) -> Vec<String> {
    let listed = store.list().await.unwrap().into_iter();
    let named = |config: ModelConfig| {
        let mark = if config.is_default { "!" } else { "" };
        format!("{}{mark}", config.name.as_str())
    };
    listed.map(named).collect()
}

#[tokio::test]
async fn configuration_is_found_as_it_was_put() {
    let fixture = Fixture::new().await;
    let store: &dyn ModelConfigStore = &fixture.store;
    let full = ModelConfig {
        context_limit: Some(200_000),
        max_output_tokens: Some(100_000_000),
        temperature: Some(0.7),
        reasoning_effort: Some(Effort::Minimal),
        compact_at: Some(100),
        ..default("big")
    };
    assert!(store.put(&full).await.unwrap());
    assert!(store.put(&config("small")).await.unwrap());
    assert_eq!(store.find(Some(name("big"))).await.unwrap(), Some(full.clone()));
    assert_eq!(store.find(Some(name("small"))).await.unwrap(), Some(config("small")));
    assert_eq!(store.find(None).await.unwrap(), Some(full.clone()));
    assert_eq!(store.find(Some(name("other"))).await.unwrap(), None);
    for effort in Effort::ALL {
        let full = ModelConfig { reasoning_effort: Some(effort), ..full.clone() };
        assert!(store.put(&full).await.unwrap());
        assert_eq!(
            store.find(None).await.unwrap(),
            Some(full),
            "twice is once, with what came last"
        );
    }
    assert_eq!(names(store).await, ["big!", "small"]);
}

#[tokio::test]
async fn last_default_is_the_only_one_and_none_may_be() {
    let fixture = Fixture::new().await;
    let store: &dyn ModelConfigStore = &fixture.store;
    assert_eq!(store.find(None).await.unwrap(), None);
    store.put(&default("one")).await.unwrap();
    store.put(&default("two")).await.unwrap();
    assert_eq!(names(store).await, ["one", "two!"]);
    store.put(&default("one")).await.unwrap();
    assert_eq!(names(store).await, ["one!", "two"]);
    store.put(&config("one")).await.unwrap();
    assert_eq!(names(store).await, ["one", "two"]);
    assert_eq!(store.find(None).await.unwrap(), None);
}

/// Each takes the default from the one that it sees, and none sees the others.
#[tokio::test]
async fn defaults_that_are_put_at_once_leave_one() {
    let fixture = Fixture::new().await;
    let store: &dyn ModelConfigStore = &fixture.store;
    store.put(&default("former")).await.unwrap();
    let configs: Vec<_> = ('a'..='h').map(|of| default(&of.to_string())).collect();
    for put in join_all(configs.iter().map(|config| store.put(config))).await {
        assert!(put.unwrap());
    }
    let names = names(store).await;
    assert_eq!(names.len(), 9);
    assert_eq!(names.iter().filter(|name| name.ends_with('!')).count(), 1, "{names:?}");
}

#[tokio::test]
async fn one_too_many_is_not_put_and_the_default_stays() {
    const FILL: &str = "
        insert into model_configs (name, provider, model)
        select 'model ' || number, 'local', 'any' from generate_series(1, $1) as number";
    let fixture = Fixture::new().await;
    let store: &dyn ModelConfigStore = &fixture.store;
    let fill = sqlx::query(FILL).bind(i32::try_from(MODELS_MAX).unwrap() - 2);
    fill.execute(&fixture.pool).await.unwrap();
    assert!(store.put(&default("last but one")).await.unwrap());
    // For the last place there are two.
    let [a, b] = [config("a"), config("b")];
    let puts = join_all([&a, &b].map(|config| store.put(config))).await;
    let mut puts: Vec<bool> = puts.into_iter().map(Result::unwrap).collect();
    puts.sort_unstable();
    assert_eq!(puts, [false, true]);
    assert!(!store.put(&default("one too many")).await.unwrap());
    assert_eq!(store.find(None).await.unwrap().unwrap().name, name("last but one"));
    assert_eq!(store.list().await.unwrap().len(), MODELS_MAX as usize);
    let replaced = ModelConfig { provider: "other".into(), ..config("model 7") };
    assert!(store.put(&replaced).await.unwrap(), "it has its place already");
    assert_eq!(store.find(Some(name("model 7"))).await.unwrap(), Some(replaced));
}

#[tokio::test]
async fn configuration_is_deleted_once() {
    let fixture = Fixture::new().await;
    let store: &dyn ModelConfigStore = &fixture.store;
    store.put(&default("gone")).await.unwrap();
    assert!(store.delete(&name("gone")).await.unwrap());
    assert!(!store.delete(&name("gone")).await.unwrap());
    assert_eq!(store.find(None).await.unwrap(), None);
    assert_eq!(store.find(Some(name("gone"))).await.unwrap(), None);
}
