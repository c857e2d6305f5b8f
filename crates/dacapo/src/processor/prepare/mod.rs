//! What is done to a view as a whole, before or between batches: a copy to begin with, indexes, a replay in place.

mod index;
pub(super) mod replay;
pub(super) mod seed;
