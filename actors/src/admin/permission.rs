//! Who may do what: those who may only look, and those who may command.

use subtle::ConstantTimeEq;
use tdsbouncer_config::{Admin, Secret};

use super::command::Command;

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Show everything, change nothing.
    Viewer,
    /// Everything.
    Admin,
}

impl Role {
    pub(super) fn may(self, command: &Command) -> bool {
        self == Self::Admin || !command.changes()
    }

    /// The role of this user of the SQL console.
    pub(crate) fn of_user(admin: &Admin, user: &str) -> Option<Self> {
        let among = |names: &[String]| names.iter().any(|name| name.to_lowercase() == user.to_lowercase());
        if among(&admin.users) {
            return Some(Self::Admin);
        }
        among(&admin.viewers).then_some(Self::Viewer)
    }

    /// The role that this token gives at the TCP port.
    pub(crate) fn of_token(admin: &Admin, token: &str) -> Option<Self> {
        let is = |secret: &Option<Secret>| {
            let secret = secret.as_ref().map(Secret::expose).filter(|secret| !secret.is_empty());
            secret.is_some_and(|secret| bool::from(secret.as_bytes().ct_eq(token.as_bytes())))
        };
        // Both are compared, so that the time tells nothing.
        match (is(&admin.token), is(&admin.view_token)) {
            (true, _) => Some(Self::Admin),
            (false, true) => Some(Self::Viewer),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{Order, Subject};
    use super::*;
    use tdsbouncer_config::{Bucket, Config, Listener};

    fn admin() -> Admin {
        let config = Config::of(vec![Listener::new("l", 0)], vec![Bucket::new("b", "h", 1, 1)]);
        Admin {
            users: vec!["Dba".to_owned()],
            viewers: vec!["watch".to_owned()],
            token: Some(Secret::new("big".to_owned())),
            view_token: Some(Secret::new("small".to_owned())),
            ..config.admin
        }
    }

    #[test]
    fn a_viewer_shows_and_changes_nothing() {
        assert!(Role::Viewer.may(&Command::Show(Subject::Config)));
        assert!(!Role::Viewer.may(&Command::Do(Order::Reload)));
        assert!(Role::Admin.may(&Command::Do(Order::Reload)));
    }

    #[test]
    fn roles_come_from_the_configuration() {
        let admin = admin();
        assert_eq!(Role::of_user(&admin, "DBA"), Some(Role::Admin));
        assert_eq!(Role::of_user(&admin, "watch"), Some(Role::Viewer));
        assert_eq!(Role::of_user(&admin, "sa"), None);
        assert_eq!(Role::of_token(&admin, "big"), Some(Role::Admin));
        assert_eq!(Role::of_token(&admin, "small"), Some(Role::Viewer));
        assert_eq!(Role::of_token(&admin, ""), None);
        let none = Admin { token: None, view_token: Some(Secret::new(String::new())), ..admin };
        assert_eq!(Role::of_token(&none, ""), None, "an empty token opens nothing");
    }
}
