//! How passwords are remembered and how failed logins are slowed down.

use crate::check::Check;
use crate::duration;
use crate::mirror;
use crate::problem::Problem;
use crate::users::Users;
use std::path::PathBuf;
use std::time::Duration;

/// Logins, for all buckets.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// How long a password that the server accepted is accepted from memory; none: never.
    pub cache_ttl: Option<Duration>,
    /// Where [`users`](Self::users) came from.
    pub users_file: Option<PathBuf>,
    /// Who may log in to buckets with a service login.
    pub users: Users,
    /// How much later the answer to a first failed login comes; it doubles with each further one.
    pub failed_login_delay: Duration,
    /// The longest such delay.
    pub max_delay: Duration,
    /// Without a further failure for so long, the count starts again.
    pub forget_failures_after: Duration,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self::from_mirror(&mirror::Auth::default(), None)
    }
}

impl AuthSettings {
    fn from_mirror(from: &mirror::Auth, users: Option<(PathBuf, Users)>) -> Self {
        let (users_file, users) = users.map_or((None, Users::default()), |(file, users)| (Some(file), users));
        Self {
            cache_ttl: from.cache_ttl,
            users_file,
            users,
            failed_login_delay: from.failed_login_delay,
            max_delay: from.max_delay,
            forget_failures_after: from.forget_failures_after,
        }
    }

    pub(crate) fn check(from: &mirror::Auth, needs_users: Option<&str>, check: &mut Check<'_>) -> Self {
        let (second, hour, day) =
            (Duration::from_secs(1), Duration::from_secs(3600), Duration::from_secs(86_400));
        let mut time = |key: &str, value: Duration, low: Duration, high: Duration| {
            check.within(&format!("auth.{key}"), value, low..=high, duration::show);
        };
        if let Some(ttl) = from.cache_ttl {
            time("cache_ttl", ttl, second, day);
        }
        time("failed_login_delay", from.failed_login_delay, Duration::ZERO, hour);
        time("max_delay", from.max_delay, from.failed_login_delay, hour);
        time("forget_failures_after", from.forget_failures_after, second, day);
        let path = "auth.users_file";
        if from.users_file.is_empty() {
            if let Some(why) = needs_users {
                let problem = Problem::new(path, format!("must be given: {why}"));
                check.problem(
                    problem.hint("one \"name:hash\" a line; `tdsbouncer hash-password` makes the hash"),
                );
            }
            return Self::from_mirror(from, None);
        }
        let users =
            check.file(path, &from.users_file).and_then(|(file, contents)| match Users::parse(&contents) {
                Ok(users) => Some((file, users)),
                Err(wrong) => {
                    check.problem(Problem::new(path, wrong.to_string()));
                    None
                }
            });
        Self::from_mirror(from, users)
    }
}
