//! Who may log in: what is remembered of verified passwords, the users file, and how failures are slowed down.

mod aging;
mod proof;
mod throttle;
mod users;
mod verified;

pub(crate) use proof::{Proof, ProofKey};
pub(crate) use throttle::{Throttle, ThrottlePolicy};
pub use users::UsersFileError;
pub(crate) use users::{CheckLimits, UsersFile};
pub(crate) use verified::{LoginKey, VerifiedLogins};
