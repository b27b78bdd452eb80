//! How words of the domain stand in columns.

use musterbeat_core::message::{Role, Visibility};
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
