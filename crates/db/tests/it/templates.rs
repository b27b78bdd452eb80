//! Templates, their versions and presets.

use std::time::Duration;

use musterbeat_core::port::{NewTemplate, Reach, TemplateError, TemplateStore, WorkspaceStore};
use musterbeat_core::prebuild::{Health, ScheduleInput};
use musterbeat_core::template::{
    NewPreset, NewVersion, PoolWish, PresetPatch, TemplatePatch, TemplateRules,
};

use crate::setup::{Fixture, PATIENCE};
use crate::supply::{
    fails, is_invalid, new_preset, new_template, new_version, order, preset, template, version,
};

fn called(number: u128, name: &str) -> NewTemplate {
    NewTemplate { name: name.to_owned(), ..new_template(number, 0) }
}

fn renamed(name: &str) -> TemplatePatch {
    TemplatePatch { name: Some(name.to_owned()), ..TemplatePatch::default() }
}

fn activating(number: u128) -> TemplatePatch {
    TemplatePatch { active_version: Some(version(number)), ..TemplatePatch::default() }
}

#[tokio::test]
async fn template_that_is_created_twice_is_there_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let rules = TemplateRules {
        ttl: Some(Duration::from_hours(8)),
        max_ttl: Some(Duration::from_hours(24)),
        user_ttl_allowed: false,
        activity_bump: Duration::ZERO,
        deprecated: false,
    };
    let new = NewTemplate { rules, ..new_template(1, 3) };
    TemplateStore::create(store, &new).await.unwrap();
    TemplateStore::create(store, &NewTemplate { name: "other".to_owned(), ..new.clone() })
        .await
        .unwrap();
    let found = TemplateStore::get(store, template(1)).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.rules), ("template 1", rules));
    assert_eq!(found.active_version, Some(version(1)));
    assert_eq!(TemplateStore::list(store).await.unwrap(), [found]);
    let versions = store.versions(template(1)).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.id).collect::<Vec<_>>(), [version(1)]);
    assert_eq!(fixture.number("select count(*) from presets").await, 1);
}

#[tokio::test]
async fn template_whose_creation_is_repeated_while_it_goes_on_is_there_once() {
    let fixture = Fixture::new().await;
    let new = new_template(1, 3);
    let creations = (0..8).map(|_| TemplateStore::create(&fixture.store, &new));
    let created = futures_util::future::join_all(creations).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    assert_eq!(fixture.number("select count(*) from templates").await, 1);
}

#[tokio::test]
async fn name_is_taken_in_any_case_of_letters_until_its_template_is_deleted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    TemplateStore::create(store, &called(1, "Rust")).await.unwrap();
    TemplateStore::create(store, &called(2, "go")).await.unwrap();
    let taken = TemplateStore::create(store, &called(3, "rust")).await;
    assert!(matches!(taken, Err(TemplateError::NameTaken)), "{taken:?}");
    let taken = TemplateStore::update(store, template(2), &renamed("RUST")).await;
    assert!(matches!(taken, Err(TemplateError::NameTaken)), "{taken:?}");
    assert!(TemplateStore::get(store, template(3)).await.unwrap().is_none());

    assert!(TemplateStore::delete(store, template(1)).await.unwrap());
    assert!(!TemplateStore::delete(store, template(1)).await.unwrap(), "once");
    assert!(TemplateStore::get(store, template(1)).await.unwrap().is_none());
    TemplateStore::create(store, &called(3, "rust")).await.unwrap();
    let names = TemplateStore::list(store).await.unwrap().into_iter().map(|found| found.name);
    assert_eq!(names.collect::<Vec<_>>(), ["go", "rust"]);
}

#[tokio::test]
async fn version_of_a_template_is_activated_and_that_of_another_refused() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    fixture.template(1, 0).await;
    fixture.template(2, 0).await;
    let waiting = NewVersion { activate: false, ..new_version(3, 0) };
    store.add_version(template(1), &waiting).await.unwrap();
    let active = async || {
        let versions = store.versions(template(1)).await.unwrap();
        let active: Vec<_> = versions.iter().map(|found| (found.id, found.is_active)).collect();
        active
    };
    assert_eq!(active().await, [(version(3), false), (version(1), true)]);

    let updated = TemplateStore::update(store, template(1), &activating(3)).await.unwrap();
    assert_eq!(updated.active_version, Some(version(3)));
    assert_eq!(active().await, [(version(3), true), (version(1), false)]);
    let foreign = TemplateStore::update(store, template(1), &activating(2)).await;
    assert!(matches!(foreign, Err(TemplateError::ForeignVersion)), "{foreign:?}");
    let foreign = store.add_version(template(1), &new_version(2, 0)).await;
    assert!(matches!(foreign, Err(TemplateError::NotFound)), "{foreign:?}");
    let unknown = TemplateStore::update(store, template(9), &activating(2)).await;
    assert!(matches!(unknown, Err(TemplateError::NotFound)), "{unknown:?}");
    assert_eq!(active().await, [(version(3), true), (version(1), false)]);
}

#[tokio::test]
async fn version_that_is_added_twice_stays_as_it_is() {
    let fixture = Fixture::new().await;
    fixture.template(1, 0).await;
    fixture.move_on(1, 2).await;
    fixture.move_on(1, 3).await;
    let again = NewVersion { source: "go".to_owned(), ..new_version(2, 7) };
    fixture.store.add_version(template(1), &again).await.unwrap();
    let found = TemplateStore::get(&fixture.store, template(1)).await.unwrap().unwrap();
    assert_eq!(found.active_version, Some(version(3)), "a repetition activates nothing");
    let versions = fixture.store.versions(template(1)).await.unwrap();
    assert!(versions.iter().all(|version| version.source == "rust"));

    let taken = NewVersion { name: "version 2".to_owned(), ..new_version(4, 0) };
    let taken = fixture.store.add_version(template(1), &taken).await;
    assert!(matches!(taken, Err(TemplateError::NameTaken)), "{taken:?}");
}

/// Whoever waited for the first addition to end sees the version as it was when it began: not.
#[tokio::test]
async fn version_whose_addition_is_repeated_while_it_goes_on_is_there() {
    let fixture = Fixture::new().await;
    fixture.template(1, 0).await;
    let mut first = fixture.pool.begin().await.unwrap();
    sqlx::query("insert into template_versions select $1, $2, 'version 2', 'rust'")
        .bind(version(2).uuid())
        .bind(template(1).uuid())
        .execute(&mut *first)
        .await
        .unwrap();
    let store = fixture.store.clone();
    let again =
        tokio::spawn(async move { store.add_version(template(1), &new_version(2, 0)).await });
    fixture.somebody_waits_for_a_lock().await;
    first.commit().await.unwrap();
    let again = tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
    assert!(again.is_ok(), "{again:?}");
}

#[tokio::test]
async fn preset_is_added_changed_and_deleted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    fixture.template(1, 2).await;
    store.add_preset(version(1), &new_preset(2, 5)).await.unwrap();
    store.add_preset(version(1), &new_preset(2, 9)).await.unwrap();
    let found = store.preset(preset(2)).await.unwrap().unwrap();
    assert_eq!((found.pool.desired, found.is_active, found.health), (5, true, Health::Healthy));
    assert_eq!((found.version, found.template), (version(1), template(1)));
    assert_eq!(found.parameters, new_preset(2, 5).parameters);

    let schedule = ScheduleInput { cron: "* 9-17 * * 1-5".to_owned(), desired: 20 };
    let pool = PoolWish {
        desired: 1,
        ttl: Some(Duration::from_hours(2)),
        timezone: "Europe/Lisbon".to_owned(),
        schedules: vec![schedule],
    };
    let patch = PresetPatch { pool: Some(pool.clone()), invalidate: false };
    assert_eq!(store.update_preset(preset(2), &patch).await.unwrap().pool, pool);
    let nothing = store.update_preset(preset(2), &PresetPatch::default()).await.unwrap();
    assert_eq!(nothing.pool, pool, "what is not named stays");

    assert!(store.delete_preset(preset(2)).await.unwrap());
    assert!(!store.delete_preset(preset(2)).await.unwrap(), "once");
    assert!(store.preset(preset(2)).await.unwrap().is_none());
    let gone = store.update_preset(preset(2), &patch).await;
    assert!(matches!(gone, Err(TemplateError::NotFound)), "{gone:?}");
    let unknown = store.add_preset(version(9), &new_preset(3, 0)).await;
    assert!(matches!(unknown, Err(TemplateError::NotFound)), "{unknown:?}");
}

#[tokio::test]
async fn name_of_a_preset_is_unique_in_its_version_until_it_is_deleted() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    fixture.template(1, 0).await;
    let same = |number| NewPreset { name: "preset 1".to_owned(), ..new_preset(number, 0) };
    let taken = store.add_preset(version(1), &same(2)).await;
    assert!(matches!(taken, Err(TemplateError::NameTaken)), "{taken:?}");
    let version_of_same = NewVersion { presets: vec![same(3)], ..new_version(2, 0) };
    store.add_version(template(1), &version_of_same).await.unwrap();
    store.delete_preset(preset(1)).await.unwrap();
    store.add_preset(version(1), &same(2)).await.unwrap();

    let twice = NewVersion { presets: vec![same(4), same(5)], ..new_version(3, 0) };
    let taken = store.add_version(template(1), &twice).await;
    assert!(matches!(taken, Err(TemplateError::NameTaken)), "{taken:?}");
    assert_eq!(store.versions(template(1)).await.unwrap().len(), 2, "all or nothing");
}

#[tokio::test]
async fn presets_of_active_versions_are_listed_by_name() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for number in [3, 1, 2] {
        fixture.template(number, 0).await;
    }
    store.add_preset(version(1), &new_preset(10, 0)).await.unwrap();
    fixture.move_on(2, 20).await;
    TemplateStore::delete(store, template(3)).await.unwrap();
    let listed = async |of| {
        let presets = store.presets(of).await.unwrap();
        presets.into_iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(listed(None).await, "preset 1, preset 10, preset 20");
    assert_eq!(listed(Some(template(2))).await, "preset 20");
    let deprecated = TemplateRules { deprecated: true, ..TemplateRules::default() };
    fixture.rule(1, deprecated).await;
    let presets = store.presets(Some(template(1))).await.unwrap();
    assert!(!presets.is_empty() && presets.iter().all(|preset| !preset.is_active));
    let former = store.preset(preset(2)).await.unwrap().unwrap();
    assert!(!former.is_active, "its version is not the active one");
}

#[tokio::test]
async fn preset_that_is_edited_is_healthy_again() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 1).await;
    for end in [is_invalid(), fails()] {
        fixture.order(preset, 1).await;
        fixture.build_all(&end).await;
    }
    let health = async || fixture.store.preset(preset).await.unwrap().unwrap().health;
    assert_eq!(health().await, Health::ValidationFailed);
    let patch = PresetPatch { pool: None, invalidate: true };
    let edited = fixture.store.update_preset(preset, &patch).await.unwrap();
    assert_eq!(edited.health, Health::Healthy);
    let failures = fixture.pool_of(preset).await.unwrap().preset.failures;
    assert_eq!((failures.in_a_row, failures.last_at), (0, None));
}

#[tokio::test]
async fn workspaces_outlive_their_template_and_preset() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let made = WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    fixture.build_all(&crate::supply::succeeds()).await;
    fixture.store.delete_preset(preset).await.unwrap();
    TemplateStore::delete(&fixture.store, template(1)).await.unwrap();
    let found = WorkspaceStore::get(&fixture.store, made, Reach::Everything).await.unwrap();
    assert_eq!(found.unwrap().template, template(1));
}
