//! How words of the domain stand in columns.

use std::time::Duration;

use musterbeat_core::build::Transition;
use musterbeat_core::message::{Role, Visibility};
use musterbeat_core::port::PrebuildStatus;
use musterbeat_core::prebuild::Health;
use musterbeat_core::run::RunStatus;

macro_rules! column_enum {
    ($(#[$doc:meta])* $row:ident, $type_name:literal, $domain:ident { $($word:ident),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
        #[sqlx(type_name = $type_name, rename_all = "snake_case")]
        pub(crate) enum $row {
            $($word),+
        }

        impl From<$domain> for $row {
            fn from(word: $domain) -> Self {
                match word {
                    $($domain::$word => Self::$word),+
                }
            }
        }

        impl From<$row> for $domain {
            fn from(word: $row) -> Self {
                match word {
                    $($row::$word => Self::$word),+
                }
            }
        }
    };
}

column_enum! {
    /// The type `run_status`.
    StatusColumn, "run_status", RunStatus { Waiting, Pending, Running, Interrupting, Error }
}
column_enum! {
    /// The type `message_role`.
    RoleColumn, "message_role", Role { System, User, Assistant, Tool }
}
column_enum! {
    /// The type `message_visibility`.
    VisibilityColumn, "message_visibility", Visibility { User, Model, Both }
}
column_enum! {
    /// The type `build_transition`.
    TransitionColumn, "build_transition", Transition { Start, Claim, Stop, Delete }
}
column_enum! {
    /// The type `prebuild_status`.
    PrebuildColumn, "prebuild_status", PrebuildStatus { Starting, Ready, Deleting, Failed }
}
column_enum! {
    /// The type `preset_health`.
    HealthColumn, "preset_health", Health { Healthy, HardLimited, ValidationFailed }
}

/// Returns a time in whole seconds as a column has it; times are checked to fit.
pub(crate) fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

/// Returns a column of whole seconds as a time; none is negative.
pub(crate) fn time(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
