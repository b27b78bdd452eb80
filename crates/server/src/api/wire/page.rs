//! How callers page through lists that are sorted by id.

use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// Which page of a list to return.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next` of the page before.
    pub(crate) after: Option<Uuid>,
    /// How many, by default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(crate) limit: Option<u32>,
}
