//! What the proxy is told to do.

use std::time::Duration;

use super::BlackHole;

/// The way of bytes through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToClient,
}

/// The faults that are switched on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controls {
    pub(super) delay: Duration,
    pub(super) black_hole: Option<BlackHole>,
    pub(super) refuses: bool,
    /// How often open connections were cut; a connection ends when it moves.
    pub(super) cuts: u64,
    /// How often open connections were reset; a connection ends when it moves.
    pub(super) resets: u64,
}

impl Controls {
    pub(super) fn heal(&mut self) {
        *self = Self { cuts: self.cuts, resets: self.resets, ..Self::default() };
    }

    /// Whether bytes of this direction wait.
    pub(super) fn holds(&self, direction: Direction) -> bool {
        match self.black_hole {
            None => false,
            Some(BlackHole::Both) => true,
            Some(BlackHole::ToServer) => direction == Direction::ToServer,
            Some(BlackHole::ToClient) => direction == Direction::ToClient,
        }
    }
}
