//! What the end of a build means, and what builds say.

use std::time::Duration;

use musterbeat_core::build::{Provisioned, Transition};
use musterbeat_core::id::{Fence, WorkspaceId};
use musterbeat_core::port::{BuildStore, Ended, PrebuildStatus, Reach, WorkspaceStore, WriteError};
use musterbeat_core::prebuild::Health;
use musterbeat_core::run::{Run, RunStatus};
use musterbeat_core::template::TemplateRules;
use musterbeat_core::workspace::{Life, LogPlace, Order};
use musterbeat_db::build_logs::PAGE_LINES;
use musterbeat_testkit::eventually;

use crate::prebuilds::bury;
use crate::setup::{Fixture, PATIENCE, owner};
use crate::supply::{build, fails, is_invalid, order, succeeds};

const HOUR: Duration = Duration::from_hours(1);

async fn failures(fixture: &Fixture, number: u128) -> u32 {
    let pool = fixture.pool_of(crate::supply::preset(number)).await.unwrap();
    assert_eq!(pool.preset.failures.in_a_row > 0, pool.preset.failures.last_at.is_some());
    pool.preset.failures.in_a_row
}

#[tokio::test]
async fn end_of_a_prebuilds_build_says_what_the_prebuild_is() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 1).await;
    fixture.order(preset, 1).await;
    let [ended] = &fixture.build_all(&fails()).await[..] else { panic!("one build") };
    let (of, name) = ended.pool.as_ref().unwrap();
    assert_eq!((*of, name.preset.as_str()), (preset, "preset 1"));
    assert!(ended.needs_look && ended.refilled.is_none());
    assert_eq!(fixture.standing(preset).await, "failed");
    assert_eq!(failures(&fixture, 1).await, 1);

    fixture.order(preset, 1).await;
    fixture.build_all(&fails()).await;
    assert_eq!(failures(&fixture, 1).await, 2);
    fixture.order(preset, 1).await;
    let [ended] = &fixture.build_all(&succeeds()).await[..] else { panic!("one build") };
    assert!(ended.needs_look && ended.pool.is_some(), "the pool is full");
    assert_eq!(fixture.standing(preset).await, "failed failed ready");
    assert_eq!(failures(&fixture, 1).await, 0, "a success makes up for them");

    let ready = &fixture.prebuilds(preset).await[2];
    let state = fixture.store.state(ready.build, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(
        (state.status, state.error, state.ended_at.is_some()),
        (RunStatus::Waiting, None, true)
    );
    let others = fixture.store.state(ready.build, Reach::Of(owner(1))).await.unwrap();
    assert!(others.is_none(), "a prebuild is nobody's");
}

#[tokio::test]
async fn preset_whose_build_is_not_valid_is_marked() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 1).await;
    fixture.order(preset, 2).await;
    let runs = fixture.begin(2).await;
    fixture.end(&runs[0], &is_invalid()).await;
    let health = async || fixture.pool_of(preset).await.unwrap().preset.health;
    assert_eq!(health().await, Health::ValidationFailed);
    fixture.end(&runs[1], &succeeds()).await;
    assert_eq!(health().await, Health::ValidationFailed, "only an edit heals it");
    assert_eq!(fixture.standing(preset).await, "failed ready");
}

#[tokio::test]
async fn end_that_is_repeated_changes_nothing_and_that_of_a_former_owner_is_refused() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 1).await;
    fixture.order(preset, 2).await;
    let runs = fixture.begin(1).await;
    fixture.end(&runs[0], &fails()).await;
    assert_eq!(fixture.end(&runs[0], &fails()).await, Ended::default());
    assert_eq!(fixture.end(&runs[0], &succeeds()).await, Ended::default());
    assert_eq!(
        (failures(&fixture, 1).await, fixture.standing(preset).await),
        (1, "failed starting".to_owned())
    );

    let former = &fixture.begin(1).await[0];
    assert_eq!(bury(&fixture, 5).await, 1);
    for end in [succeeds(), fails()] {
        let refused = BuildStore::end(&fixture.store, former, &end).await;
        assert!(matches!(refused, Err(WriteError::Fenced)), "{refused:?}");
    }
    assert_eq!(fixture.standing(preset).await, "failed starting");
    let mut next = Vec::new();
    // A moment ago the refused ones held it locked, and a claim passes over that.
    eventually(PATIENCE, "it is begun again", async || {
        next = fixture.begin(1).await;
        !next.is_empty()
    })
    .await;
    assert_eq!(next[0].id, former.id);
    fixture.end(&next[0], &succeeds()).await;
    assert_eq!(fixture.standing(preset).await, "failed ready");
    let unknown = Run { id: build(99).into(), ..next[0].clone() };
    let refused = BuildStore::end(&fixture.store, &unknown, &succeeds()).await;
    assert!(matches!(refused, Err(WriteError::Fenced)), "{refused:?}");
}

#[tokio::test]
async fn build_of_somebodys_workspace_is_no_matter_of_a_pool() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 1).await;
    fixture.ready(preset, 1).await;
    let claimed = fixture.claimed(1, preset).await;
    assert_eq!(fixture.build_all(&is_invalid()).await, [Ended::default()]);
    assert_eq!(failures(&fixture, 1).await, 0);
    assert_eq!(fixture.pool_of(preset).await.unwrap().preset.health, Health::Healthy);

    fixture.rebuild(claimed, 2, Transition::Start).await.unwrap();
    let replaced =
        Ok(Provisioned { replacements: vec!["disk".to_owned(), "addr\0ess".to_owned()] });
    assert_eq!(fixture.build_all(&replaced).await, [Ended::default()]);
    let found = fixture.look_at(claimed).await.unwrap().build;
    assert_eq!(found.status, RunStatus::Waiting);
    assert_eq!(found.replacements, ["disk", "addr\u{fffd}ess"], "as they can be stored");
    let builds = WorkspaceStore::builds(&fixture.store, claimed, Reach::Of(owner(1))).await;
    let builds = builds.unwrap().unwrap();
    assert_eq!(builds.len(), 3, "with the one that made the prebuild");
    let failed = builds.iter().find(|found| found.id == build(1)).unwrap();
    assert_eq!(failed.error.as_deref(), Some("the build is not valid: no such size"));
}

/// Returns for how long a workspace may run, and how far activity may extend that, since the end
/// of its newest build.
async fn times(fixture: &Fixture, workspace: WorkspaceId) -> [Option<Duration>; 2] {
    let found = fixture.look_at(workspace).await.unwrap();
    let ended = found.build.ended_at.unwrap();
    [found.deadline, found.max_deadline].map(|until| {
        until.map(|until| {
            Duration::from_micros((until.micros() - ended.micros()).try_into().unwrap())
        })
    })
}

#[tokio::test]
async fn workspace_runs_as_long_as_its_owner_and_template_say() {
    let fixture = Fixture::new().await;
    let mut number = 0;
    let mut check = async |rules: (Option<Duration>, Option<Duration>, bool), own, expected| {
        number += 1;
        let preset = fixture.template(number, 0).await;
        let (ttl, max_ttl, user_ttl_allowed) = rules;
        let rules = TemplateRules { ttl, max_ttl, user_ttl_allowed, ..TemplateRules::default() };
        fixture.rule(number, rules).await;
        let ready = fixture.ready(preset, 1).await;
        assert_eq!(times(&fixture, ready[0]).await, [None, None], "a prebuild waits for ever");
        let ask = |number| {
            let life = Life { ttl: own, ..Life::default() };
            Order { life, ..order(number, preset) }
        };
        let claimed = fixture.claim_prebuild(&ask(1_000 + number)).await.unwrap().workspace;
        let made = WorkspaceStore::create(&fixture.store, &ask(2_000 + number)).await.unwrap();
        fixture.build_all(&succeeds()).await;
        for workspace in [claimed, made] {
            assert_eq!(times(&fixture, workspace).await, expected, "{rules:?} {own:?}");
        }
        made
    };
    let [one, two, three] = [1, 2, 3].map(|hours| Some(hours * HOUR));
    check((None, None, true), None, [None, None]).await;
    check((two, None, true), None, [two, None]).await;
    check((two, None, true), one, [one, None]).await;
    check((two, None, false), one, [two, None]).await;
    check((None, None, true), three, [three, None]).await;
    check((one, two, true), three, [two, two]).await;
    check((two, one, false), None, [one, one]).await;
    let made = check((one, three, true), two, [two, three]).await;

    fixture.rebuild(made, 1, Transition::Stop).await.unwrap();
    fixture.build_all(&fails()).await;
    assert!(fixture.look_at(made).await.unwrap().deadline.is_some(), "it was not stopped");
    fixture.rebuild(made, 2, Transition::Stop).await.unwrap();
    fixture.build_all(&succeeds()).await;
    assert_eq!(times(&fixture, made).await, [None, None]);
    fixture.rebuild(made, 3, Transition::Start).await.unwrap();
    fixture.build_all(&succeeds()).await;
    assert_eq!(times(&fixture, made).await, [two, three]);
}

#[tokio::test]
async fn pool_that_is_full_again_says_so_once() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 3).await;
    fixture.ready(preset, 3).await;
    for number in 1..=2 {
        fixture.claimed(number, preset).await;
    }
    assert!(fixture.build_all(&succeeds()).await.iter().all(|ended| ended.refilled.is_none()));
    let since = "update presets set short_since = short_since - interval '1 minute'";
    fixture.sql(since).await;
    fixture.claimed(3, preset).await;
    fixture.order(preset, 3).await;
    let refilled: Vec<_> = fixture
        .build_all(&succeeds())
        .await
        .into_iter()
        .filter_map(|ended| ended.refilled)
        .collect();
    assert_eq!(refilled.len(), 1, "{refilled:?}");
    assert!(refilled[0] >= Duration::from_mins(1), "since the first claim");
    assert_eq!(fixture.count(preset, PrebuildStatus::Ready).await, 3);

    fixture.order(preset, 4).await;
    let more = fixture.build_all(&succeeds()).await;
    assert!(more.iter().all(|ended| ended.refilled.is_none()), "nothing was claimed");
}

async fn texts(fixture: &Fixture, after: Option<LogPlace>) -> Vec<String> {
    let lines = fixture.store.lines(build(1), Reach::Of(owner(1)), after).await.unwrap();
    lines.unwrap().into_iter().map(|line| line.text).collect()
}

#[tokio::test]
async fn lines_of_a_build_are_kept_once_and_in_order_across_its_owners() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    let said = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let first = fixture.begin(1).await[0].token;
    let log = async |token, from, words| {
        fixture.store.log(build(1), token, from, &said(words)).await.unwrap();
    };
    assert_eq!(texts(&fixture, None).await, [""; 0]);
    log(first, 0, "a b").await;
    log(first, 0, "x y c").await;
    log(first, 3, "d").await;
    assert_eq!(texts(&fixture, None).await, said("a b c d"));

    assert_eq!(bury(&fixture, 5).await, 1);
    let second = fixture.begin(1).await[0].token;
    log(second, 0, "e").await;
    log(first, 4, "late").await;
    log(second, 1, "f").await;
    assert_eq!(texts(&fixture, None).await, said("a b c d late e f"));
    let place = |fence: Fence, line| Some(LogPlace { fence: fence.0, line });
    assert_eq!(texts(&fixture, place(first.fence, 2)).await, said("d late e f"));
    assert_eq!(texts(&fixture, place(second.fence, 0)).await, said("f"));
    assert_eq!(texts(&fixture, place(second.fence, 1)).await, [""; 0]);

    for (unknown, reach) in [(build(1), Reach::Of(owner(2))), (build(2), Reach::Everything)] {
        assert!(fixture.store.lines(unknown, reach, None).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn long_log_is_read_page_by_page() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    WorkspaceStore::create(&fixture.store, &order(1, preset)).await.unwrap();
    let token = fixture.begin(1).await[0].token;
    let count = 2 * PAGE_LINES + 7;
    let lines: Vec<_> = (0..count).map(|line| line.to_string()).collect();
    fixture.store.log(build(1), token, 0, &lines).await.unwrap();
    let (mut after, mut pages, mut read) = (None, vec![], vec![]);
    loop {
        let page = fixture.store.lines(build(1), Reach::Everything, after).await.unwrap().unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.place);
        pages.push(u32::try_from(page.len()).unwrap());
        read.extend(page.into_iter().map(|line| line.text));
    }
    assert_eq!(pages, [PAGE_LINES, PAGE_LINES, 7]);
    assert_eq!(read, lines);
}
