//! The users file of `auth = "service"`: who may log in, by what password hash, to which databases.

use crate::pattern::Pattern;
use crate::secret::Secret;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::collections::HashMap;
use std::sync::Arc;

/// Everybody in the file; cheap to clone. User names are compared without regard to case, as SQL Server's logins are.
#[derive(Debug, Clone, Default)]
pub struct Users(Arc<HashMap<String, User>>);

/// One line of the file.
#[derive(Clone)]
pub struct User {
    hash: String,
    databases: Vec<Pattern>,
}

/// A line that is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// No colon, no name.
    #[error("its line {line} is not \"name:hash\"")]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// The hash cannot be verified against.
    #[error("its line {line} has no argon2id hash (`tdsbouncer hash-password` makes one)")]
    Hash {
        /// Counted from 1.
        line: usize,
    },
    /// The name stands there twice.
    #[error("its line {line} names a user for the second time")]
    Twice {
        /// Counted from 1.
        line: usize,
    },
}

impl Users {
    /// Reads lines of `name:hash` or `name:hash:database,database*`; `#` begins a comment line.
    ///
    /// # Errors
    /// The first line that is none of these.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users = HashMap::new();
        for (index, content) in text.lines().enumerate() {
            let (line, content) = (index + 1, content.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let mut fields = content.splitn(3, ':').map(str::trim);
            let (Some(name), Some(hash)) = (fields.next().filter(|name| !name.is_empty()), fields.next())
            else {
                return Err(UsersError::Form { line });
            };
            let good = PasswordHash::new(hash).is_ok_and(|hash| {
                hash.algorithm.as_str() == "argon2id"
                    && hash.hash.is_some()
                    && Params::try_from(&hash).is_ok()
            });
            if !good {
                return Err(UsersError::Hash { line });
            }
            let databases = fields.next().into_iter().flat_map(|list| list.split(','));
            let databases =
                databases.map(str::trim).filter(|name| !name.is_empty()).map(Pattern::new).collect();
            if users.insert(name.to_lowercase(), User { hash: hash.to_owned(), databases }).is_some() {
                return Err(UsersError::Twice { line });
            }
        }
        Ok(Self(Arc::new(users)))
    }

    /// The user of this name.
    pub fn find(&self, name: &str) -> Option<&User> {
        self.0.get(&name.to_lowercase())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this password is this user's. Takes some 20 ms of a core and 19 MiB, and as long for a name that
    /// does not exist: run it where it blocks nobody.
    pub fn verify(&self, name: &str, password: &str) -> bool {
        match self.find(name) {
            Some(user) => user.verifies(password),
            None => {
                // The same work, so that the time does not tell which names exist.
                let mut out = [0; 32];
                let _ = Argon2::default().hash_password_into(password.as_bytes(), &[0; 16], &mut out);
                false
            }
        }
    }
}

impl User {
    /// Whether the password fits the hash.
    fn verifies(&self, password: &str) -> bool {
        PasswordHash::new(&self.hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    }

    /// Whether the user may name this database at login. Without a list: any.
    pub fn may_use(&self, database: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|pattern| pattern.matches(database))
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("databases", &self.databases).finish_non_exhaustive()
    }
}

/// A hash for the users file, with a salt of its own: argon2id, 19 MiB, 2 passes, 1 lane (OWASP's first choice).
///
/// # Errors
/// The system has no random numbers to give.
pub fn hash_password(password: &Secret) -> Result<String, argon2::password_hash::Error> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
    Ok(argon2.hash_password(password.expose().as_bytes())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_password_is_verified_and_another_is_not() {
        let hash = hash_password(&Secret::new("pässword".into())).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let users = Users::parse(&format!("# people\n\nAnna:{hash}\nben:{hash}:orders, t_*\n")).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.verify("ANNA", "pässword"));
        assert!(!users.verify("anna", "pässwordx"));
        assert!(!users.verify("carl", "pässword"));
        let ben = users.find("ben").unwrap();
        assert!(ben.may_use("T_17") && ben.may_use("orders") && !ben.may_use("master"));
        assert!(!format!("{users:?}").contains("argon2id"));
    }

    #[test]
    fn a_line_that_is_no_user_is_named_by_its_number() {
        assert_eq!(Users::parse("# x\nanna").unwrap_err(), UsersError::Form { line: 2 });
        assert_eq!(Users::parse("anna:secret").unwrap_err(), UsersError::Hash { line: 1 });
        assert_eq!(Users::parse(":x").unwrap_err(), UsersError::Form { line: 1 });
        let hash = hash_password(&Secret::new("x".into())).unwrap();
        let twice = format!("a:{hash}\nA:{hash}");
        assert_eq!(Users::parse(&twice).unwrap_err(), UsersError::Twice { line: 2 });
    }
}
