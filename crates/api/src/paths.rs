//! The paths of the HTTP API. Everything of version 1 begins with `/v1`; a form that an old reader
//! would misread gets a new prefix.

/// `GET`: how the node and its projections are.
pub const STATUS: &str = "/v1/status";
/// `POST` appends events, `GET` reads them.
pub const EVENTS: &str = "/v1/events";
/// `GET`: streams in the order of their names.
pub const STREAMS: &str = "/v1/streams";
/// `GET`: what happened to versions.
pub const PHASES: &str = "/v1/phases";
/// `POST`: a new version.
pub const REBUILD: &str = "/v1/projections/{projection}/rebuild";
/// `POST`: readers move to another version.
pub const FLIP: &str = "/v1/projections/{projection}/flip";
/// `POST`: readers move back.
pub const ROLLBACK: &str = "/v1/projections/{projection}/rollback";
/// `POST`: past events go through a version again.
pub const REPLAY: &str = "/v1/projections/{projection}/replay";
/// `POST`: the view of a version is dropped.
pub const CLEAN_UP: &str = "/v1/projections/{projection}/versions/{version}/clean-up";
/// `GET`: how the verification of a version stands; `POST`: it is verified again.
pub const VERIFICATION: &str = "/v1/projections/{projection}/verification";
/// `POST`: somebody answers for a version that was not found right.
pub const WAIVE: &str = "/v1/projections/{projection}/verification/waive";
/// `POST`: no events are applied to a version.
pub const PAUSE: &str = "/v1/projections/{projection}/pause";
/// `POST`: they are again.
pub const RESUME: &str = "/v1/projections/{projection}/resume";
/// `GET`: events that were set aside.
pub const LETTERS: &str = "/v1/projections/{projection}/letters";
/// `POST`: they are tried again.
pub const RETRY_LETTERS: &str = "/v1/projections/{projection}/letters/retry";
/// `POST`: they are given up.
pub const DROP_LETTERS: &str = "/v1/projections/{projection}/letters/drop";
/// `POST`: an event at which a segment halts is set aside.
pub const SET_ASIDE: &str = "/v1/projections/{projection}/letters/set-aside";
/// `POST`: what was asked for and has not happened is given up.
pub const CANCEL: &str = "/v1/projections/{projection}/cancel";
/// The header that may carry the idempotency key in place of the field of the body.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
