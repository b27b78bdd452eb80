//! Mixing of bits, the same on every replica, whatever its release and its machine.

/// Mixes all bits of `value` with each other: the finaliser of `SplitMix64`, by Stafford.
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::mix;

    /// The first numbers of `SplitMix64` from seed 0, which steps by the golden ratio.
    #[test]
    fn numbers_are_those_of_splitmix() {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        assert_eq!(mix(step), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(step.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }
}
