//! Users, faults and three replicas, all at once: in the end nothing is lost, twice or stuck.
//!
//! Every change of a chat is read from a journal that the database keeps, and must be what the
//! state machine makes of an event that a user asked for, or that an owner may do. So the model
//! knows each history exactly, although users do not know what became of requests whose answer
//! was lost.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod api;
mod ending;
mod faults;
mod followers;
mod guess;
mod history;
mod judge;
mod model;
mod replica;
mod script;
mod tally;
mod users;

use std::time::Duration;

use musterbeat_testkit::{Journal, Provider, Settings, TestDatabase, TestServer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use api::Api;
use faults::{Counts, Place, crash_often};
use followers::Followers;
use history::{TABLES, changes};
use judge::{Families, judge};
use tally::Tally;
use users::Town;

/// How long users act; a longer time can be asked for.
const SECONDS: u64 = 15;
const SECONDS_VARIABLE: &str = "MUSTERBEAT_TEST_SIMULATION_SECONDS";
const SEED_VARIABLE: &str = "MUSTERBEAT_TEST_SEED";

const REPLICAS: usize = 3;
const USERS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_twice_or_stuck_whatever_fails() {
    let seconds = number(SECONDS_VARIABLE).unwrap_or(SECONDS);
    let seed = number(SEED_VARIABLE).unwrap_or_else(|| u64::from(rand::random::<u32>()));
    tally::say(&format!("simulation: {SEED_VARIABLE}={seed} {SECONDS_VARIABLE}={seconds}"));
    let mut rng = StdRng::seed_from_u64(seed);
    // A server of its own, which crashes; what was committed must survive that.
    let settings = Settings {
        provider: Some(Provider::Embedded),
        parameters: vec![("synchronous_commit".to_owned(), "on".to_owned())],
        ..Settings::from_env().unwrap()
    };
    let server = TestServer::start_with(settings).await.unwrap();
    let database = TestDatabase::create_on(server.url()).await.unwrap();
    let journal = Journal::keep(&database, &TABLES).await.unwrap();

    let api = Api::new(REPLICAS);
    let mut places = Vec::new();
    for number in 0..REPLICAS {
        places.push(Place::open(number, database.url(), &api).await);
    }
    let followers = Followers::new(api.clone());
    let counts = Counts::default();
    let whole = simulate(&mut rng, seconds, database.url(), &api, &followers, places, &counts);
    let _places = whole.await;
    ending::rest(&api, &mut rng).await;
    let followers = followers.ended().await;

    let changes = changes(&journal.read(&database).await.unwrap());
    let log = api.log();
    let mut tally = Tally::of(&log, &counts, &followers, changes.len());
    let families: Families = changes
        .iter()
        .flat_map(|(chat, changes)| changes.iter().map(|change| (*chat, change.transaction)))
        .collect();
    let mut wrongs = ending::lost_chats(&log, &changes);
    for (chat, changes) in &changes {
        let name = chat.to_string();
        let shown = ending::show(&api, &mut rng, &name).await.expect("a chat can be read");
        let judged = judge(*chat, changes, &log, &families).and_then(|verdict| {
            tally.add(&verdict);
            shown.equals(&verdict)?;
            ending::title_is_allowed(verdict.title.as_deref().unwrap_or_default(), &name, &log)
        });
        let mut followed = followers.iter().filter(|follower| follower.chat == name);
        let seen = followed.try_for_each(|follower| shown.was_followed_by(follower));
        let found = [judged, seen].into_iter().filter_map(Result::err);
        wrongs.extend(found.map(|wrong| format!("chat {chat}: {wrong}")));
    }
    tally::say(&tally.table(seconds));
    assert!(wrongs.is_empty(), "seed {seed}: {}", wrongs.join("\n\n"));
    let short = tally.short(seconds);
    assert!(short.is_empty(), "seed {seed}: too few of {short:?}");
}

/// Lets users act and faults befall them for some time; the places are whole afterwards.
async fn simulate(
    rng: &mut StdRng,
    seconds: u64,
    database: &str,
    api: &Api,
    followers: &Followers,
    places: Vec<Place>,
    counts: &Counts,
) -> Vec<Place> {
    let mut seeded = || StdRng::seed_from_u64(rng.random());
    let (users_end, faults_end) = (CancellationToken::new(), CancellationToken::new());
    let town = Town::new(api.clone(), followers.clone());
    let mut users = JoinSet::new();
    for _ in 0..USERS {
        users.spawn(town.clone().live(seeded(), users_end.clone()));
    }
    let mut suffering = JoinSet::new();
    for place in places {
        suffering.spawn(place.suffer(town.clone(), seeded(), counts.clone(), faults_end.clone()));
    }
    let pause = Duration::from_secs((seconds / 3).min(30));
    let crashes =
        crash_often(database.to_owned(), pause, seeded(), counts.clone(), faults_end.clone());
    let crashes = tokio::spawn(crashes);
    sleep(Duration::from_secs(seconds)).await;
    users_end.cancel();
    users.join_all().await;
    faults_end.cancel();
    crashes.await.unwrap();
    suffering.join_all().await
}

fn number(variable: &str) -> Option<u64> {
    let set = std::env::var(variable).ok()?;
    Some(set.parse().unwrap_or_else(|_| panic!("{variable} is {set:?}, which is no whole number")))
}
