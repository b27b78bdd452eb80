//! Looks for payloads that the codecs read wrongly, guided by the branches that they take.
//!
//! An input that begins with `1` is a payload as it stands. Any other is a recipe: ids, how to
//! pack them, and which characters of the payloads to replace.

#![no_main]

use libfuzzer_sys::fuzz_target;
use musterbeat_pubsub::codec::{self, Body, Header, Known, Message, PAYLOAD_BYTES_MAX, Policy};
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        check_original(text);
        check(text);
    }
    if !input.starts_with(b"1") {
        cook(input);
    }
});

/// Packs ids, and checks what is packed and what becomes of it by replacing characters.
fn cook(recipe: &[u8]) {
    let Some((&[how, epoch, sequence, changes], rest)) = recipe.split_first_chunk() else { return };
    let header = Header { epoch: spread(epoch), sequence: spread(sequence) };
    let (changes, ids) = rest.split_at(rest.len().min(usize::from(changes % 4) * 3));
    for payload in pack(how, header, ids) {
        check(&payload);
        let mut bytes = payload.into_bytes();
        for change in changes.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] = b'!' + change[2] % 94;
        }
        check(&String::from_utf8(bytes).expect("it consists of ASCII"));
    }
}

fn pack(how: u8, header: Header, bytes: &[u8]) -> Vec<String> {
    let ids: Vec<_> = bytes.chunks(16).map(id).collect();
    let exact_payloads_max = usize::from(how / 64);
    let policy = Policy { exact_payloads_max, payloads_max: 2, fingerprint_bits: how % 64 };
    match how {
        254 => vec![codec::everything(header)],
        255 => {
            let known = |id: &Uuid| {
                let (epoch, sequence) = id.as_u64_pair();
                Known { epoch, channel: id.as_bytes()[0], sequence }
            };
            vec![codec::encode_heartbeat(header, &ids.iter().map(known).collect::<Vec<_>>())]
        }
        _ => {
            let payloads = codec::encode(&ids, header, policy);
            check_covers(&payloads, &ids);
            payloads
        }
    }
}

/// Checks that no id is missed, and none is added where ids are named exactly.
fn check_covers(payloads: &[String], ids: &[Uuid]) {
    let bodies: Vec<_> = payloads
        .iter()
        .map(|payload| codec::decode(payload).expect("an encoder wrote it").body)
        .collect();
    let names = |id: Uuid| {
        bodies.iter().any(|body| match body {
            Body::Ids(named) => named.binary_search(&id).is_ok(),
            Body::Fingerprints(fingerprints) => fingerprints.contains(id),
            Body::Everything => true,
            Body::Heartbeat(_) => false,
        })
    };
    assert!(ids.iter().all(|id| names(*id)), "an id is missed");
    for body in &bodies {
        if let Body::Ids(named) = body {
            assert!(named.iter().all(|id| ids.contains(id)), "an id is added");
        }
    }
}

/// Checks that `payload`, if it can be read, is what its message is written as.
fn check(payload: &str) {
    let Ok(message) = codec::decode(payload) else { return };
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX && payload.bytes().all(|byte| byte.is_ascii_graphic())
    );
    let Message { header, body } = &message;
    match body {
        Body::Ids(ids) => check_ids(payload, *header, ids),
        Body::Fingerprints(fingerprints) => {
            assert!(0 < fingerprints.len() && fingerprints.len() <= payload.len());
            assert_eq!(fingerprints.to_payload(), payload);
        }
        Body::Everything => assert_eq!(codec::everything(*header), payload),
        Body::Heartbeat(known) => assert_eq!(codec::encode_heartbeat(*header, known), payload),
    }
}

fn check_ids(payload: &str, header: Header, ids: &[Uuid]) {
    assert!(!ids.is_empty() && ids.is_sorted_by(|one, next| one < next));
    assert!(ids.len() <= 7 * payload.len(), "a character bears less than seven bits");
    let again = codec::encode(ids, header, Policy::EXACT);
    let back = again.iter().flat_map(|payload| match codec::decode(payload) {
        Ok(Message { body: Body::Ids(ids), .. }) => ids,
        other => panic!("{other:?}"),
    });
    let mut back: Vec<_> = back.collect();
    back.sort_unstable();
    assert_eq!(back, ids);
    // With the same count and parameter there is one way to write them.
    if again[0].get(..26) == payload.get(..26) {
        assert_eq!(again, [payload]);
    }
}

fn check_original(payload: &str) {
    if let Ok(ids) = codec::original::decode(payload) {
        assert_eq!(codec::original::encode(&ids).concat(), payload);
    }
}

/// Makes numbers of all sizes from one byte.
fn spread(byte: u8) -> u64 {
    u64::from(byte).rotate_right(u32::from(byte))
}

/// Takes up to 16 bytes as an id; the first ones count least, so short inputs make small numbers.
fn id(bytes: &[u8]) -> Uuid {
    let mut all = [0; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    Uuid::from_u128(u128::from_le_bytes(all))
}
