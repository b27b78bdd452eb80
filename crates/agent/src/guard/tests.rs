use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::model::End;

const TIMES: GuardTimes =
    GuardTimes { first: Duration::from_mins(1), silence: Duration::from_mins(10) };

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_as_it_is() {
    let answer = script(&[(59_999, "a"), (599_999, "b"), (599_999, "c"), (0, END)]);
    check(answer, "a b c end").await;
}

#[tokio::test(start_paused = true)]
async fn the_first_piece_must_come_in_time() {
    let begun = Instant::now();
    check(script(&[(60_001, "late"), (0, END)]), "startup_timeout: no answer began within 60s")
        .await;
    assert_eq!(begun.elapsed(), TIMES.first);
}

#[tokio::test(start_paused = true)]
async fn each_further_piece_must_come_in_time() {
    let begun = Instant::now();
    check(script(&[(1_000, "a"), (600_001, "late")]), "a silence: the answer fell silent for 600s")
        .await;
    assert_eq!(begun.elapsed(), Duration::from_secs(601));
}

#[tokio::test(start_paused = true)]
async fn a_piece_at_the_very_end_of_the_time_is_taken() {
    check(script(&[(60_000, "a"), (600_000, "b"), (600_000, END)]), "a b end").await;
    check(script(&[(60_000, END)]), "end").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_was_cut_off() {
    check(script(&[]), "transport: the answer was cut off").await;
    check(script(&[(0, "a"), (0, "b")]), "a b transport: the answer was cut off").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_after_the_end_or_an_error() {
    check(script(&[(0, "a"), (0, END), (0, "more"), (0, ERROR)]), "a end").await;
    check(script(&[(0, ERROR), (0, "more"), (0, END)]), "overloaded: no").await;
    check(script(&[(0, "a"), (0, ERROR), (0, ERROR)]), "a overloaded: no").await;
}

#[tokio::test(start_paused = true)]
async fn the_guards_own_errors_are_retryable_and_name_the_provider() {
    for answer in [script(&[]), script(&[(60_001, "a")]), script(&[(0, "a"), (600_001, "b")])] {
        let pieces: Vec<_> = guarded(answer, TIMES, "local".to_owned()).collect().await;
        let error = pieces.last().unwrap().as_ref().unwrap_err();
        assert!(error.kind.is_retryable(), "{error:?}");
        assert_eq!(error.provider, "local");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_no_silence() {
    let (pieces, answer) = channel();
    let mut answer = guarded(answer, TIMES, "local".to_owned());
    pieces.send(text("a")).unwrap();
    assert_eq!(answer.next().await, Some(text("a")));
    advance(Duration::from_hours(1)).await;
    pieces.send(text("b")).unwrap();
    assert_eq!(answer.next().await, Some(text("b")));
    // Nobody asked during that hour, so the time begins with the question.
    advance(Duration::from_hours(1)).await;
    let next = answer.next();
    let later = async {
        sleep(Duration::from_millis(599_999)).await;
        pieces.send(text("c")).unwrap();
    };
    assert_eq!(tokio::join!(next, later).0, Some(text("c")));
}

#[tokio::test(start_paused = true)]
async fn waiting_in_pieces_does_not_wind_the_clock_back() {
    let (_pieces, answer) = channel();
    let mut answer = guarded(answer, TIMES, "local".to_owned());
    for _ in 0..59 {
        assert_eq!(answer.next().now_or_never(), None);
        advance(Duration::from_secs(1)).await;
    }
    let begun = Instant::now();
    assert_eq!(answer.next().await.unwrap().unwrap_err().kind, ErrorKind::StartupTimeout);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_call_is_dropped_once_and_before_its_end_is_told() {
    let dropped = Arc::new(AtomicUsize::new(0));
    for steps in [&[(0, "a"), (0, END)][..], &[(0, "a"), (0, ERROR)], &[(0, "a"), (700_000, "b")]] {
        dropped.store(0, Ordering::Relaxed);
        let mut answer = guarded(counted(script(steps), &dropped), TIMES, "local".to_owned());
        assert_eq!(answer.next().await, Some(text("a")));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        let _ = answer.next().await.unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "a new call must not run beside it");
        assert_eq!(answer.next().await, None);
        assert_eq!(answer.next().await, None);
        drop(answer);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_it_ends_the_call_wherever_it_is() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let answer = || guarded(counted(script(&[(0, "a"), (9, END)]), &dropped), TIMES, String::new());
    drop(answer());
    assert_eq!(dropped.swap(0, Ordering::Relaxed), 1, "before it began");
    let mut begun = answer();
    assert_eq!(begun.next().await, Some(text("a")));
    drop(begun);
    assert_eq!(dropped.swap(0, Ordering::Relaxed), 1, "between two pieces");
    let mut waiting = answer();
    assert_eq!(waiting.next().await, Some(text("a")));
    assert_eq!(waiting.next().now_or_never(), None);
    drop(waiting);
    assert_eq!(dropped.swap(0, Ordering::Relaxed), 1, "while it is waited for");
}

/// A piece from elsewhere and the end of the time at one moment: either is told, and never both.
#[tokio::test(start_paused = true)]
async fn who_comes_at_the_last_moment_is_heard_or_refused() {
    for lead_us in [-1_000, -1, 0, 1, 1_000] {
        let (pieces, answer) = channel();
        let at = Duration::from_micros(60_000_000_u64.saturating_add_signed(lead_us));
        let sender = tokio::spawn(async move {
            sleep(at).await;
            // Nobody listens when the time was over first.
            let is_heard = pieces.send(text("a")).is_ok();
            (is_heard, pieces)
        });
        let mut answer = guarded(answer, TIMES, "local".to_owned());
        let first = answer.next().await.unwrap();
        let (is_heard, pieces) = sender.await.unwrap();
        if let Err(error) = first {
            assert_eq!(error.kind, ErrorKind::StartupTimeout);
        } else {
            assert!(is_heard);
            drop(pieces);
            assert_eq!(answer.next().await.unwrap().unwrap_err().kind, ErrorKind::Transport);
        }
        assert_eq!(answer.next().await, None, "{lead_us}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_answer_is_what_a_naive_reading_says(
        steps in proptest::collection::vec((delay(), 0_usize..8), 0..6),
    ) {
        let words = ["a", "b", "c", "d", "e", "f", END, ERROR];
        let steps: Vec<_> = steps.into_iter().map(|(delay, word)| (delay, words[word])).collect();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let found = runtime.block_on(told(script(&steps)));
        prop_assert_eq!(found, naive(&steps));
    }
}

/// Delays around the limits, to the millisecond that timers know.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 59_999_u64..60_002, 599_999_u64..600_002, 0_u64..700_000]
}

fn naive(steps: &[(u64, &str)]) -> String {
    let mut told = Vec::new();
    let mut limit = TIMES.first;
    for (delay, word) in steps {
        if limit < Duration::from_millis(*delay) {
            told.push(if limit == TIMES.first {
                "startup_timeout: no answer began within 60s"
            } else {
                "silence: the answer fell silent for 600s"
            });
            return told.join(" ");
        }
        limit = TIMES.silence;
        match *word {
            END => told.push("end"),
            ERROR => told.push("overloaded: no"),
            word => {
                told.push(word);
                continue;
            }
        }
        return told.join(" ");
    }
    told.push("transport: the answer was cut off");
    told.join(" ")
}

async fn check(answer: BoxStream<'static, Result<Delta, ModelError>>, expected: &str) {
    assert_eq!(told(answer).await, expected);
}

/// Returns what the guarded answer says, in words.
async fn told(answer: BoxStream<'static, Result<Delta, ModelError>>) -> String {
    let words = guarded(answer, TIMES, "local".to_owned()).map(|piece| match piece {
        Ok(Delta::Text(text)) => text,
        Ok(Delta::End(_)) => END.to_owned(),
        Ok(other) => panic!("nobody said {other:?}"),
        Err(error) => format!("{}: {}", error.kind.as_str(), error.message),
    });
    words.collect::<Vec<_>>().await.join(" ")
}

const END: &str = "end";
const ERROR: &str = "error";

/// Returns an answer that says each word that many milliseconds after the one before.
fn script(steps: &[(u64, &'static str)]) -> BoxStream<'static, Result<Delta, ModelError>> {
    let pieces = stream::iter(steps.to_vec()).then(|(delay, word)| async move {
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        match word {
            END => Ok(Delta::End(End::default())),
            ERROR => Err(ModelError {
                kind: ErrorKind::Overloaded,
                provider: "local".to_owned(),
                message: "no".to_owned(),
                status: None,
                retry_after: None,
            }),
            word => text(word),
        }
    });
    pieces.boxed()
}

type Pieces = mpsc::UnboundedSender<Result<Delta, ModelError>>;

fn channel() -> (Pieces, BoxStream<'static, Result<Delta, ModelError>>) {
    let (pieces, mut received) = mpsc::unbounded_channel();
    (pieces, stream::poll_fn(move |context| received.poll_recv(context)).boxed())
}

/// Counts how often the answer is dropped.
fn counted(
    answer: BoxStream<'static, Result<Delta, ModelError>>,
    dropped: &Arc<AtomicUsize>,
) -> BoxStream<'static, Result<Delta, ModelError>> {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let counted = Counted(Arc::clone(dropped));
    answer
        .map(move |piece| {
            let _held = &counted;
            piece
        })
        .boxed()
}

#[expect(clippy::unnecessary_wraps, reason = "it is an item of a stream")]
fn text(text: &str) -> Result<Delta, ModelError> {
    Ok(Delta::Text(text.to_owned()))
}
