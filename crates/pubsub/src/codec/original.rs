//! The codec of the original, so that both can share a database while one replaces the other.
//!
//! The original announces agents whose metadata changed on one channel. A payload is one id
//! behind the other, the 16 bytes of each in base64, standard alphabet, without padding:
//! 22 characters, and at most 363 ids.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use uuid::Uuid;

use super::{DecodeError, PAYLOAD_BYTES_MAX};

/// The channel on which the original announces agents whose metadata changed.
pub const CHANNEL: &str = "workspace_agent_metadata_batch";

/// Most ids in a payload.
pub const IDS_MAX: usize = PAYLOAD_BYTES_MAX / ID_CHARACTERS;

/// Characters of an id.
const ID_CHARACTERS: usize = 22;

/// Packs `ids` in their order, as many as possible into each payload; none need no payload.
pub fn encode(ids: &[Uuid]) -> Vec<String> {
    ids.chunks(IDS_MAX).map(encode_payload).collect()
}

/// Reads the ids of a payload in their order; an empty one has none.
///
/// # Errors
/// Refuses what the original does not write.
pub fn decode(payload: &str) -> Result<Vec<Uuid>, DecodeError> {
    if PAYLOAD_BYTES_MAX < payload.len() {
        return Err(DecodeError::TooLong { bytes: payload.len() });
    }
    let ids = payload.as_bytes().chunks_exact(ID_CHARACTERS);
    if !ids.remainder().is_empty() {
        return Err(DecodeError::Short);
    }
    ids.enumerate().map(|(index, text)| decode_id(index * ID_CHARACTERS, text)).collect()
}

fn encode_payload(ids: &[Uuid]) -> String {
    let mut payload = String::with_capacity(ids.len() * ID_CHARACTERS);
    for id in ids {
        STANDARD_NO_PAD.encode_string(id.as_bytes(), &mut payload);
    }
    payload
}

/// Reads the id whose characters begin at byte `start` of the payload.
fn decode_id(start: usize, text: &[u8]) -> Result<Uuid, DecodeError> {
    let mut bytes = [0; 16];
    match STANDARD_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(_) => Ok(Uuid::from_bytes(bytes)),
        Err(base64::DecodeSliceError::DecodeError(base64::DecodeError::InvalidByte(at, _))) => {
            Err(DecodeError::Character { at: start + at })
        }
        // 22 characters carry 132 bits, and the last four are not zero.
        Err(_) => Err(DecodeError::Surplus),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn payload_is_what_the_original_writes() {
        let ids = ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
            .map(|id| Uuid::parse_str(id).unwrap());
        let payload = "AAAAAAAAAAAAAAAAAAAAAA/////////////////////w";
        assert_eq!(encode(&ids), [payload]);
        assert_eq!(decode(payload), Ok(ids.to_vec()));

        let id = Uuid::parse_str("fbefbefb-efbe-4bef-bbef-befbefbefbef").unwrap();
        assert_eq!(encode(&[id]), ["++++++++S++7777777777w"]);
    }

    #[test]
    fn payload_holds_363_ids() {
        let ids: Vec<_> = (0..600).map(Uuid::from_u128).collect();
        for (count, expected) in
            [(0, vec![]), (1, vec![22]), (363, vec![7_986]), (364, vec![7_986, 22])]
        {
            let lengths: Vec<_> = encode(&ids[..count]).iter().map(String::len).collect();
            assert_eq!(lengths, expected, "{count}");
        }
        let counts: Vec<_> =
            encode(&ids).iter().map(|payload| decode(payload).unwrap().len()).collect();
        assert_eq!(counts, [363, 237]);
    }

    #[test]
    fn what_the_original_does_not_write_is_refused() {
        let id = "AAAAAAAAAAAAAAAAAAAAAA";
        let with = |end: &str| decode(&format!("{id}{}{end}", &id[end.len()..]));
        assert_eq!(decode(&id[1..]), Err(DecodeError::Short));
        assert_eq!(decode(&id.repeat(364)), Err(DecodeError::TooLong { bytes: 8_008 }));
        assert_eq!(with("-"), Err(DecodeError::Character { at: 43 }), "the alphabet of addresses");
        assert_eq!(with("=="), Err(DecodeError::Character { at: 42 }), "padding");
        assert_eq!(with("B"), Err(DecodeError::Surplus), "bits behind the id");
        assert_eq!(with("é"), Err(DecodeError::Character { at: 42 }));
    }

    proptest! {
        #[test]
        fn ids_come_back_in_their_order(ids in prop::collection::vec(any::<u128>(), 0..800)) {
            let ids: Vec<_> = ids.into_iter().map(Uuid::from_u128).collect();
            let payloads = encode(&ids);
            prop_assert_eq!(payloads.len(), ids.len().div_ceil(363));
            prop_assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
            let back: Result<Vec<_>, _> = payloads.iter().map(|payload| decode(payload)).collect();
            prop_assert_eq!(back.unwrap().concat(), ids);
        }
    }
}
