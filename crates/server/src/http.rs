//! What every route shares: problems, extractors, limits and counting.

pub(crate) mod connections;
pub(crate) mod extract;
pub(crate) mod limits;
pub(crate) mod observe;
pub(crate) mod problem;
