//! What a payload holds by each codec, and the time that an id takes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use musterbeat_pubsub::codec::{self, Body, Header, PAYLOAD_BYTES_MAX, Policy, original};
use uuid::Uuid;

use super::super::report::Section;
use super::super::stats::Summary;
use super::ids;
use super::tellers::FINGERPRINTS;

/// More than any payload holds.
const IDS: usize = 4_000;

/// How often each is measured.
const TIMES: usize = 101;

/// Decoding takes so long an id, at most.
const DECODE_NANOS_MAX: f64 = 100.0;

const HEADER: Header = Header { epoch: 0x5eed_5eed_5eed_5eed, sequence: 1 };

/// A way to write ids into one payload.
struct Codec {
    name: &'static str,
    ids: Vec<Uuid>,
    /// Writes them; `None` when they need more than one payload.
    encode: fn(&[Uuid]) -> Option<String>,
    /// Reads them, and returns how many there are.
    decode: fn(&str) -> Result<usize>,
    is_ours: bool,
}

/// What was found of a codec.
struct Found {
    ids: usize,
    bytes: usize,
    encode_nanos: f64,
    decode_nanos: f64,
}

/// Measures all codecs; returns what misses its bar, too.
pub(super) fn measure() -> Result<(Section, Vec<String>)> {
    let codecs = codecs();
    let found = codecs.iter().map(Codec::measure).collect::<Result<Vec<_>>>()?;
    let too_slow = |(codec, found): (&Codec, &Found)| {
        let Found { decode_nanos, .. } = found;
        (codec.is_ours && DECODE_NANOS_MAX < *decode_nanos).then(|| {
            format!("{}: {decode_nanos:.0} ns to decode an id, over {DECODE_NANOS_MAX}", codec.name)
        })
    };
    let violations = codecs.iter().zip(&found).filter_map(too_slow).collect();
    let row = |value: fn(&Found) -> f64| found.iter().map(value).collect::<Vec<_>>();
    let rows = vec![
        ("ids a payload", row(|found| float(found.ids))),
        ("bytes an id", row(|found| float(found.bytes) / float(found.ids))),
        ("ns to encode an id", row(|found| found.encode_nanos)),
        ("ns to decode an id", row(|found| found.decode_nanos)),
    ];
    let title = format!("full payloads, median of {TIMES}");
    let columns = codecs.iter().map(|codec| codec.name.to_owned()).collect();
    Ok((Section { title, columns, rows }, violations))
}

fn codecs() -> [Codec; 5] {
    let exact = |ids: &[Uuid]| one(codec::encode(ids, HEADER, Policy::EXACT));
    let (v4, v7) = (|| ids::v4(IDS), || ids::v7(IDS));
    let codec = |name, ids, encode, decode, is_ours| Codec { name, ids, encode, decode, is_ours };
    [
        codec("JSON of dashed hex", v4(), json, from_json, false),
        codec("the original: base64", v4(), |ids| one(original::encode(ids)), from_original, false),
        codec("ours: exact, v4", v4(), exact, from_ours, true),
        codec("ours: exact, v7 of a year", v7(), exact, from_ours, true),
        codec("ours: fingerprints, 2^-20", v4(), prints, from_ours, true),
    ]
}

fn json(ids: &[Uuid]) -> Option<String> {
    let payload = serde_json::to_string(&ids.iter().map(Uuid::to_string).collect::<Vec<_>>());
    payload.ok().filter(|payload| payload.len() <= PAYLOAD_BYTES_MAX)
}

fn prints(ids: &[Uuid]) -> Option<String> {
    one(codec::encode(ids, HEADER, FINGERPRINTS))
}

fn one(payloads: Vec<String>) -> Option<String> {
    <[String; 1]>::try_from(payloads).ok().map(|[payload]| payload)
}

fn from_json(payload: &str) -> Result<usize> {
    let texts: Vec<String> = serde_json::from_str(payload)?;
    let ids = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Uuid>, _>>()?;
    Ok(black_box(ids).len())
}

fn from_original(payload: &str) -> Result<usize> {
    Ok(black_box(original::decode(payload)?).len())
}

fn from_ours(payload: &str) -> Result<usize> {
    match black_box(codec::decode(payload)?).body {
        Body::Ids(ids) => Ok(ids.len()),
        Body::Fingerprints(prints) => Ok(prints.len()),
        Body::Everything | Body::Heartbeat(_) => anyhow::bail!("the payload names nothing"),
    }
}

impl Codec {
    fn measure(&self) -> Result<Found> {
        let most = most(self.ids.len(), |count| (self.encode)(&self.ids[..count]).is_some());
        let ids = &self.ids[..most];
        let payload = (self.encode)(ids).context("not even one id has a payload")?;
        let count = (self.decode)(&payload)?;
        ensure!(count == most, "{}: {count} ids came back, of {most}", self.name);
        let encode_nanos = nanos(most, || drop(black_box((self.encode)(black_box(ids)))));
        let decode_nanos = nanos(most, || drop(black_box((self.decode)(black_box(&payload)))));
        Ok(Found { ids: most, bytes: payload.len(), encode_nanos, decode_nanos })
    }
}

/// Returns the highest number up to `limit` that fits, where smaller ones fit, too.
fn most(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fitting, mut above) = (0, limit + 1);
    while fitting + 1 < above {
        let middle = usize::midpoint(fitting, above);
        if fits(middle) { fitting = middle } else { above = middle }
    }
    fitting
}

/// Returns the median time of `work` on so many ids, for each.
fn nanos(ids: usize, work: impl Fn()) -> f64 {
    let once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e9 / float(ids)
    };
    let times: Vec<_> = std::iter::repeat_with(once).take(TIMES).collect();
    Summary::of(&times).median
}

#[expect(clippy::cast_precision_loss, reason = "a payload has at most 8,000 of anything")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_that_fits_is_found() {
        for bound in [0, 1, 2, 7, 99, 100] {
            assert_eq!(most(100, |count| count <= bound), bound);
        }
        assert_eq!(most(100, |_| true), 100);
    }

    #[test]
    fn a_full_payload_comes_back_by_every_codec() {
        for codec in codecs() {
            let payload = (codec.encode)(&codec.ids[..100]).unwrap();
            assert_eq!((codec.decode)(&payload).unwrap(), 100, "{}", codec.name);
            assert_eq!((codec.encode)(&codec.ids), None, "{}", codec.name);
        }
    }
}
