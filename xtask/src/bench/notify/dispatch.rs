//! The way of a payload's ids to those who watch them.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use musterbeat_core::port::{Interest, Topic};
use musterbeat_pubsub::{Hub, HubWatcher};
use uuid::Uuid;

use super::super::report::Section;
use super::super::stats::{Summary, speeds};
use super::ids;

const WATCHERS: usize = 10_000;

/// Ids of a full payload: the original's, and ours when it is exact.
const PAYLOADS: [usize; 2] = [363, 454];

/// How often each is measured, alternately.
const TIMES: usize = 101;

/// One who watches as the original's do: it is shown every payload.
struct Scanner {
    id: Uuid,
    marked: AtomicBool,
}

/// Compares the hub's index with a scan by each watcher, for each size of payload.
pub(super) async fn measure() -> Result<Section> {
    let ids = ids::v4(WATCHERS);
    let hub = Hub::default();
    let watch = |id: &Uuid| hub.watch(Topic::Chat, Interest::Ids(BTreeSet::from([*id])));
    let mut watchers: Vec<_> = ids.iter().map(watch).collect();
    let scanners: Vec<_> =
        ids.iter().map(|id| Scanner { id: *id, marked: AtomicBool::new(false) }).collect();
    let (mut columns, mut indexed, mut scanned, mut ratios) = (vec![], vec![], vec![], vec![]);
    for count in PAYLOADS {
        let (mut index_micros, mut scan_micros) = (Vec::new(), Vec::new());
        for turn in 0..TIMES {
            // Scattered among the watchers, and others each time.
            let changed = changed(turn, count);
            let told: Vec<_> = changed.iter().map(|at| ids[*at]).collect();
            index_micros
                .push(micros(|| hub.changed(Topic::Chat, black_box(&told).iter().copied())));
            scan_micros.push(micros(|| scan(&scanners, black_box(&told))));
            drain(&changed, &mut watchers, &scanners).await?;
        }
        columns.push(format!("{count} ids"));
        ratios.push(Summary::of(&speeds(&scan_micros, &index_micros)).median);
        indexed.push(Summary::of(&index_micros).median);
        scanned.push(Summary::of(&scan_micros).median);
    }
    let title = format!("one payload to {WATCHERS} watchers of one id each, median of {TIMES}");
    let rows = vec![
        ("the index is so many times as fast", ratios),
        ("us, ours: the hub's index", indexed),
        ("us, the original's form: each watcher scans all ids", scanned),
    ];
    Ok(Section { title, columns, rows })
}

/// Returns the places of the watchers whose ids change in a turn: all different.
fn changed(turn: usize, count: usize) -> Vec<usize> {
    // A prime, so that steps of it meet every watcher before one twice.
    (0..count).map(|number| (turn + number * 7_919) % WATCHERS).collect()
}

fn scan(scanners: &[Scanner], told: &[Uuid]) {
    for scanner in scanners {
        if told.contains(&scanner.id) {
            scanner.marked.store(true, Ordering::Release);
        }
    }
}

/// Takes what both ways have marked, which must be the same.
async fn drain(changed: &[usize], watchers: &mut [HubWatcher], scanners: &[Scanner]) -> Result<()> {
    for at in changed {
        watchers[*at].recv().await;
        ensure!(scanners[*at].marked.swap(false, Ordering::Acquire), "a scan misses an id");
    }
    let marked = scanners.iter().any(|scanner| scanner.marked.load(Ordering::Acquire));
    ensure!(!marked, "a scan finds an id that did not change");
    Ok(())
}

fn micros(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_watchers_change_in_a_turn() {
        for turn in [0, 1, 100] {
            let changed = changed(turn, 454);
            assert_eq!(BTreeSet::from_iter(&changed).len(), 454);
            assert!(changed.iter().all(|at| *at < WATCHERS));
        }
    }
}
