mod sets;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::frame::BITS_MAX;
use super::rice::Rice;
use super::*;
use sets::{Random, ids, small_or_large};

const HEADER: Header = Header { epoch: 7, sequence: 100 };

const FINGERPRINTS: Policy = Policy { exact_payloads_max: 0, ..Policy::DEFAULT };

#[test]
fn format_is_the_one_of_the_releases() {
    let ids = [
        "0198a5f3-0c1e-7d2a-9b41-5a1f7e9c3d20",
        "0198a5f3-0c1e-7d2b-8c00-000000000001",
        "6fa459ea-ee8a-4ca4-894e-db77e160355e",
    ]
    .map(|id| Uuid::parse_str(id).unwrap());
    let known = Known { epoch: u64::MAX, channel: 255, sequence: 94 };
    let payloads = [
        encode(&ids, HEADER, Policy::EXACT).concat(),
        encode(&ids, HEADER, FINGERPRINTS).concat(),
        everything(HEADER),
        encode_heartbeat(HEADER, &[known]),
    ];
    let expected = [
        r#"1i!!!!!!!!!(!!!!!!!!"'!!%f:9)yqK&@^r`<!bTv[B>y/tx`Tq<f>yxPI<JcI$ndrdX"c>_Xb$~R+[E"#,
        r#"1f!!!!!!!!!(!!!!!!!!"'!!%=%EkW'$n=`G"#,
        r#"1e!!!!!!!!!(!!!!!!!!"'"#,
        r#"1h!!!!!!!!!(!!!!!!!!"'A33?&-jqQh#d!!!!!!!!"!"#,
    ];
    assert_eq!(payloads, expected);
}

#[test]
fn no_ids_need_no_payload() {
    for policy in [Policy::DEFAULT, Policy::EXACT, FINGERPRINTS] {
        assert_eq!(encode(&[], HEADER, policy), [""; 0]);
    }
}

#[test]
fn payload_names_at_least_450_random_ids() {
    let ids = Random::new(1).ids_of_version_4(10_000);
    let payloads = encode(&ids, HEADER, Policy::EXACT);
    let counts: Vec<_> = payloads.iter().map(|payload| exact_ids(payload).len()).collect();
    let (_, full) = counts.split_last().unwrap();
    assert!(full.iter().all(|count| 450 <= *count), "{counts:?}");

    assert_eq!(encode(&ids[..450], HEADER, Policy::EXACT).len(), 1);
    let of_a_year = Random::new(1).ids_of_version_7(505);
    assert_eq!(encode(&of_a_year, HEADER, Policy::EXACT).len(), 1);
}

#[test]
fn payload_stands_for_at_least_2400_ids() {
    let ids = Random::new(2).ids_of_version_4(2_400);
    let payloads = encode(&ids, HEADER, Policy::DEFAULT);
    assert_eq!(payloads.len(), 1);
    assert_eq!(fingerprints(&payloads[0]).len(), 2_400);
}

#[test]
fn policy_decides_how_finely_ids_are_named() {
    let policy = Policy { exact_payloads_max: 2, payloads_max: 3, fingerprint_bits: 20 };
    let ids = Random::new(3).ids_of_version_4(7_300);
    let kinds = |count: usize, policy: Policy| {
        let payloads = encode(&ids[..count], HEADER, policy);
        payloads.iter().map(|payload| &payload[1..2]).collect::<String>()
    };
    assert_eq!(kinds(1, policy), "i");
    assert_eq!(kinds(900, policy), "ii");
    assert_eq!(kinds(950, policy), "f", "a third payload of ids is not allowed");
    assert_eq!(kinds(7_200, policy), "fff");
    assert_eq!(kinds(7_300, policy), "e", "nor is a fourth one of fingerprints");
    assert_eq!(kinds(1, Policy { exact_payloads_max: 0, payloads_max: 0, ..policy }), "e");
    assert_eq!(kinds(7_300, Policy::EXACT).len(), 16);
}

#[test]
fn fingerprint_bits_without_sense_are_moved_to_some_with() {
    let ids = Random::new(4).ids_of_version_4(50);
    let encoded =
        |fingerprint_bits| encode(&ids, HEADER, Policy { fingerprint_bits, ..FINGERPRINTS });
    assert_eq!(encoded(0), encoded(8));
    assert_eq!(encoded(255), encoded(32));
    assert_ne!(encoded(9), encoded(8));
}

#[test]
fn ids_take_the_fewest_payloads_that_hold_their_gaps() {
    let ids = Random::new(5).ids_of_version_4(3_000);
    let payloads = encode(&ids, HEADER, Policy::EXACT);
    let parameter = shape(&payloads[0]).1;
    for pair in payloads.windows(2) {
        let [mut keys, next] = [0, 1].map(|place| exact::sorted_keys(&exact_ids(&pair[place])));
        keys.push(next[0]);
        let gaps = keys.windows(2).map(|pair| pair[1] - pair[0] - 1);
        let bits: usize = gaps.map(|gap| Rice::new(parameter).cost(gap)).sum();
        assert!(BITS_MAX < 128 + bits, "one more would fit");
    }
}

#[test]
fn parameter_is_the_best_one() {
    let mut random = Random::new(6);
    let mixed = [random.ids_of_version_4(40), random.ids_of_version_7(300)].concat();
    let sets = [
        random.ids_of_version_4(456),
        random.ids_of_version_7(500),
        random.bursts_of_version_7(12, 40),
        mixed,
        (0..400).map(Uuid::from_u128).collect(),
    ];
    for ids in sets {
        let keys = exact::sorted_keys(&ids);
        let gaps: Vec<_> = keys.windows(2).map(|pair| pair[1] - pair[0] - 1).collect();
        let cost = |code: Rice| gaps.iter().map(|gap| code.cost(*gap)).sum::<usize>();
        let best = (0..128).map(Rice::new).min_by_key(|code| cost(*code)).unwrap();
        let chosen = Rice::best(&gaps.iter().copied());
        assert_eq!(cost(chosen), cost(best), "{chosen:?} {best:?}");
    }
}

#[test]
fn fingerprints_take_the_fewest_payloads_that_hold_them() {
    let ids = Random::new(7).ids_of_version_4(20_000);
    for (count, bits) in [(2_430, 20), (7_200, 20), (19_999, 20), (6_000, 8), (11_000, 32)] {
        let policy = Policy { fingerprint_bits: bits, ..FINGERPRINTS };
        let payloads = encode(&ids[..count], HEADER, policy);
        assert!(1 < payloads.len());
        let larger = count.div_ceil(payloads.len() - 1);
        let alone = Policy { payloads_max: 1, ..policy };
        let fits = |part: &[Uuid]| encode(part, HEADER, alone)[0].starts_with("1f");
        assert!(!ids[..count].chunks(larger).all(fits), "{count} ids, {bits} bits: one fewer");
    }
}

#[test]
fn false_wakes_are_as_rare_as_the_bits_say() {
    let mut random = Random::new(8);
    for (bits, strangers) in [(8, 200_000_u32), (12, 400_000)] {
        let ids = random.ids_of_version_7(1_000);
        let policy = Policy { fingerprint_bits: bits, ..FINGERPRINTS };
        let fingerprints = fingerprints(&encode(&ids, HEADER, policy)[0]);
        let woken = (0..strangers).filter(|_| fingerprints.contains(random.id_of_version_7()));
        let (woken, expected) = (woken.count(), f64::from(strangers) / 2_f64.powi(bits.into()));
        let deviation = (f64::from(u32::try_from(woken).unwrap()) - expected) / expected.sqrt();
        assert!(deviation.abs() < 5.0, "{bits} bits: {woken} of {strangers}");
    }
}

#[test]
fn ids_that_collide_once_do_not_collide_again() {
    let mut random = Random::new(9);
    let ids = random.ids_of_version_4(500);
    let policy = Policy { fingerprint_bits: 8, ..FINGERPRINTS };
    let woken = |header: Header, strangers: &[Uuid]| {
        let fingerprints = fingerprints(&encode(&ids, header, policy)[0]);
        let woken = strangers.iter().filter(|id| fingerprints.contains(**id));
        woken.copied().collect::<Vec<_>>()
    };
    let first = woken(HEADER, &random.ids_of_version_4(60_000));
    assert!(150 < first.len(), "{}", first.len());
    let next = Header { sequence: HEADER.sequence + 1, ..HEADER };
    let other = Header { epoch: HEADER.epoch + 1, ..HEADER };
    for header in [next, other, Header { epoch: 0, sequence: 3 }] {
        assert!(woken(header, &first).len() < 8, "about one of {}", first.len());
    }
}

#[test]
fn sequences_count_payloads_but_for_those_without_a_place() {
    let ids = Random::new(10).ids_of_version_4(8_000);
    for policy in [Policy::EXACT, FINGERPRINTS] {
        let headers = |first: Header| {
            let payloads = encode(&ids, first, policy);
            payloads.iter().map(|payload| decode(payload).unwrap().header).collect::<Vec<_>>()
        };
        let sequences = (HEADER.sequence..).map(|sequence| Header { sequence, ..HEADER });
        let numbered = headers(HEADER);
        assert!(1 < numbered.len());
        assert_eq!(numbered, sequences.take(numbered.len()).collect::<Vec<_>>());
        let without = Header { epoch: 0, sequence: 5 };
        assert!(headers(without).iter().all(|header| *header == without));
    }
}

#[test]
fn heartbeat_tells_as_many_publishers_as_fit() {
    let known = |number: u16| Known {
        epoch: u64::MAX - u64::from(number),
        channel: number.to_le_bytes()[0],
        sequence: u64::from(number) << 40,
    };
    let all: Vec<_> = (0..400).map(known).collect();
    for (count, told) in [(0, 0), (1, 1), (362, 362), (400, 362)] {
        let payload = encode_heartbeat(HEADER, &all[..count]);
        assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let body = Body::Heartbeat(all[..told].to_vec());
        assert_eq!(decode(&payload), Ok(Message { header: HEADER, body }));
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let ids = Random::new(11).ids_of_version_4(30);
    let exact = encode(&ids, HEADER, Policy::EXACT).remove(0);
    let prints = encode(&ids, HEADER, FINGERPRINTS).remove(0);
    let everything = everything(HEADER);
    let known = Known { epoch: 1, channel: 255, sequence: 1 };
    let heartbeat = encode_heartbeat(HEADER, &[known]);
    let with = |payload: &str, at: usize, text: &str| {
        decode(&format!("{}{text}{}", &payload[..at], &payload[at + text.len()..]))
    };
    let cases = [
        (decode(""), DecodeError::Short),
        (decode(&"!".repeat(8_000)), DecodeError::TooLong { bytes: 8_000 }),
        (with(&exact, 30, " "), DecodeError::Character { at: 30 }),
        (with(&exact, 0, "2"), DecodeError::Version),
        (with(&exact, 1, "x"), DecodeError::Kind),
        (with(&exact, 2, "~"), DecodeError::Range),
        (decode(&everything[..21]), DecodeError::Short),
        (decode(&format!("{everything}!")), DecodeError::Surplus),
        (with(&exact, 22, "!!!!"), DecodeError::Count { count: 0 }),
        (with(&exact, 22, "~~~~"), DecodeError::Count { count: 609_960 }),
        (with(&prints, 22, "!~}y"), DecodeError::Count { count: 6_488 }),
        (with(&prints, 22, "!!%0"), DecodeError::Range),
        (with(&prints, 22, "!!%J"), DecodeError::Range),
        (decode(&exact[..exact.len() - 1]), DecodeError::Short),
        (decode(&format!("{exact}!")), DecodeError::Surplus),
        (decode(&format!("{prints}!")), DecodeError::Surplus),
        (with(&exact, 26, "~~~~~~~~~~~"), DecodeError::Range),
        (decode(&heartbeat[..43]), DecodeError::Short),
        (with(&heartbeat, 32, "#e"), DecodeError::Range),
    ];
    for (place, (found, expected)) in cases.into_iter().enumerate() {
        assert_eq!(found, Err(expected), "case {place}");
    }
}

#[test]
fn sums_beyond_the_range_are_refused() {
    let ids = |first: u128, gap: u128| {
        let draft = frame::begin(Kind::Ids, HEADER).shape(2, 127);
        let mut bits = bits::BitWriter::new(draft.0);
        bits.push(first, 128);
        Rice::new(127).write(&mut bits, gap);
        decode(&frame::Draft(bits.finish()).finish()).map(|message| message.body)
    };
    let last = Body::Ids([u128::MAX - 1, u128::MAX].map(exact::id).to_vec());
    assert_eq!(ids(u128::MAX - 1, 0), Ok(last));
    assert_eq!(ids(u128::MAX, 0), Err(DecodeError::Range));
    assert_eq!(ids(2, u128::MAX - 1), Err(DecodeError::Range));

    let prints = |last: u128| {
        let draft = frame::begin(Kind::Fingerprints, HEADER).shape(2, 8);
        let mut bits = bits::BitWriter::new(draft.0);
        Rice::new(7).write(&mut bits, 1);
        Rice::new(7).write(&mut bits, last - 1);
        decode(&frame::Draft(bits.finish()).finish()).map(|_| ())
    };
    assert_eq!(prints(511), Ok(()));
    assert_eq!(prints(512), Err(DecodeError::Range));
    assert_eq!(prints(1 << 70), Err(DecodeError::Range));
}

#[test]
fn number_in_full_that_needs_it_not_is_refused() {
    let read = |value: u128| {
        let mut writer = bits::BitWriter::new(Vec::new());
        writer.push(u128::MAX, 40);
        writer.push(value, 128);
        let text = writer.finish();
        Rice::new(4).read(&mut bits::BitReader::new(&text))
    };
    assert_eq!(read(40 << 4), Ok(40 << 4));
    assert_eq!(read((40 << 4) - 1), Err(DecodeError::Redundant));
}

proptest! {
    #[test]
    fn ids_come_back_once_each_and_sorted(ids in ids(), header in header()) {
        let payloads = encode(&ids, header, Policy::EXACT);
        let back: Vec<_> = payloads.iter().map(|payload| exact_ids(payload)).collect();
        prop_assert!(back.iter().all(|ids| ids.is_sorted()));
        let distinct: BTreeSet<_> = ids.iter().copied().collect();
        let back = back.concat();
        prop_assert_eq!(back.len(), distinct.len());
        prop_assert_eq!(back.into_iter().collect::<BTreeSet<_>>(), distinct);
        let bytes: usize = payloads.iter().map(String::len).sum();
        prop_assert!(bytes <= payloads.len() * 46 + ids.len() * 26, "{} bytes", bytes);
    }

    #[test]
    fn payloads_are_printable_and_short_enough(
        ids in ids(),
        header in header(),
        policy in policy(),
    ) {
        for payload in encode(&ids, header, policy) {
            prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            prop_assert!(payload.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn no_change_is_missed(ids in ids(), header in header(), policy in policy()) {
        let payloads = encode(&ids, header, policy);
        let bodies: Vec<_> =
            payloads.iter().map(|payload| decode(payload).unwrap().body).collect();
        let names = |id: Uuid| bodies.iter().any(|body| match body {
            Body::Ids(ids) => ids.contains(&id),
            Body::Fingerprints(fingerprints) => fingerprints.contains(id),
            Body::Everything => true,
            Body::Heartbeat(_) => false,
        });
        prop_assert!(ids.iter().all(|id| names(*id)));
    }

    #[test]
    fn order_of_ids_means_nothing(ids in ids(), policy in policy()) {
        let backwards: Vec<_> = ids.iter().rev().chain(&ids).copied().collect();
        prop_assert_eq!(encode(&ids, HEADER, policy), encode(&backwards, HEADER, policy));
    }

    #[test]
    fn message_is_written_in_one_way(
        ids in ids(),
        header in header(),
        policy in policy(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0x21..=0x7e_u8), 0..3),
    ) {
        for payload in encode(&ids, header, policy) {
            prop_assert_eq!(&again(&payload).unwrap(), &payload);
            let mut bytes = payload.into_bytes();
            for (at, character) in &changes {
                *at.get_mut(&mut bytes) = *character;
            }
            let changed = String::from_utf8(bytes).unwrap();
            if let Some(again) = again(&changed) {
                prop_assert_eq!(again, changed);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "1[ifeh][!-~]{0,90}|.{0,40}") {
        if let Some(again) = again(&text) {
            prop_assert_eq!(again, text);
        }
    }

    #[test]
    fn keys_keep_ids_apart(number in any::<u128>()) {
        prop_assert_eq!(exact::id(number).as_u128().count_ones(), number.count_ones());
        prop_assert_eq!(exact::key(exact::id(number)), number);
    }

    #[test]
    fn code_costs_as_many_bits_as_it_says(value in small_or_large(), parameter in 0..128_u32) {
        let code = Rice::new(parameter);
        let mut writer = bits::BitWriter::new(Vec::new());
        code.write(&mut writer, value);
        let text = writer.finish();
        prop_assert_eq!(text.len(), bits::characters(code.cost(value)));
        let mut reader = bits::BitReader::new(&text);
        prop_assert_eq!(code.read(&mut reader), Ok(value));
        prop_assert_eq!(reader.finish(), Ok(()));
    }
}

fn header() -> impl Strategy<Value = Header> {
    let number = || prop_oneof![Just(0), 0..1_000_u64, any::<u64>(), Just(u64::MAX)];
    (number(), number()).prop_map(|(epoch, sequence)| Header { epoch, sequence })
}

fn policy() -> impl Strategy<Value = Policy> {
    (0..3_usize, 0..3_usize, any::<u8>()).prop_map(|(exact, all, bits)| Policy {
        exact_payloads_max: exact,
        payloads_max: all,
        fingerprint_bits: bits,
    })
}

/// Reads a payload and writes what it says again, with its parameter; `None` if it is refused.
fn again(payload: &str) -> Option<String> {
    let Message { header, body } = decode(payload).ok()?;
    Some(match body {
        Body::Ids(ids) => {
            let code = Rice::new(shape(payload).1);
            exact::write(&exact::sorted_keys(&ids), code, header)
        }
        Body::Fingerprints(fingerprints) => fingerprints.to_payload(),
        Body::Everything => everything(header),
        Body::Heartbeat(known) => encode_heartbeat(header, &known),
    })
}

fn shape(payload: &str) -> (usize, u32) {
    let (count, parameter, _) = frame::shape(frame::open(payload).unwrap().rest).unwrap();
    (count, parameter)
}

fn exact_ids(payload: &str) -> Vec<Uuid> {
    match decode(payload).unwrap().body {
        Body::Ids(ids) => ids,
        other => panic!("{other:?}"),
    }
}

fn fingerprints(payload: &str) -> Fingerprints {
    match decode(payload).unwrap().body {
        Body::Fingerprints(fingerprints) => fingerprints,
        other => panic!("{other:?}"),
    }
}
