//! Databases of tests that were killed: how they are known, and how they go.
//!
//! A server that is given outlives the tests, and with it what they could not drop.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sqlx::Connection;
use uuid::Uuid;

use super::admin::{Admin, execute};

/// How the name of a test's database begins.
const PREFIX: &str = "mb_test_";

/// No test takes this long, even where the clocks of two machines that share a server disagree.
const AGE_MIN: Duration = Duration::from_hours(6);

/// What goes at a time: each drop is a checkpoint, and somebody waits for it.
const DROPS_MAX: usize = 20;

/// Returns a name that no other database of any process has, and that tells when it was taken.
pub(super) fn unique_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    // The last digits are the random ones.
    let random = Uuid::now_v7().simple().to_string().split_off(24);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{PREFIX}{seconds}_{}_{made}_{random}", process::id())
}

/// Drops some databases that are old and that nobody is connected to.
pub(super) async fn sweep(admin: &Admin) -> Result<()> {
    let mut conn = admin.connect().await?;
    let names: Vec<String> = sqlx::query_scalar(
        r"select datname::text from pg_database
          where datname like 'mb\_test\_%'
            and not exists (select from pg_stat_activity where datid = pg_database.oid)
          order by datname",
    )
    .fetch_all(&mut conn)
    .await
    .context("failed to list databases: may the user of the tests read pg_database?")?;
    let now = SystemTime::now();
    for name in names.iter().filter(|name| is_old(name, now)).take(DROPS_MAX) {
        // Without force: it stays for whoever has just connected. It may also be of another user.
        if let Err(error) = execute(&mut conn, &format!("drop database if exists {name}")).await {
            eprintln!("testkit: a database of a killed test stays: {error:#}");
        }
    }
    conn.close().await.context("failed to leave the server: is it still up?")
}

/// Tells whether [`unique_name`] gave the name long ago; a name of another form has no age.
fn is_old(name: &str, now: SystemTime) -> bool {
    let words: Vec<&str> = name.strip_prefix(PREFIX).unwrap_or_default().split('_').collect();
    let [seconds, _process, _made, _random] = words[..] else { return false };
    let Ok(seconds) = seconds.parse() else { return false };
    let taken = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    taken.and_then(|taken| now.duration_since(taken).ok()).is_some_and(|age| AGE_MIN < age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_old_six_hours_after_it_was_taken() {
        let name = unique_name();
        let now = SystemTime::now();
        assert!(!is_old(&name, now));
        assert!(!is_old(&name, now - Duration::from_hours(24)));
        assert!(is_old(&name, now + Duration::from_hours(7)));
    }

    #[test]
    fn a_name_of_another_form_is_never_old() {
        let later = SystemTime::now() + Duration::from_hours(100_000);
        for name in
            ["postgres", "mb_test_", "mb_test_1_2_3", "mb_test_a_2_3_4", "mb_test_1_2_3_4_5"]
        {
            assert!(!is_old(name, later), "{name}");
        }
        assert!(is_old("mb_test_1_2_3_4", later));
        assert!(!is_old(&format!("mb_test_{}_2_3_4", u64::MAX), later));
    }
}
