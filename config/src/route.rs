//! Which bucket a login belongs to: listener, then database, then server name, then user, then the default bucket.

use crate::bucket::{Bucket, BucketName};
use crate::listener::Listener;
use crate::pattern::Pattern;
use std::collections::HashMap;
use std::sync::Arc;

/// What a login says about where it wants to go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// LOGIN7's database; empty when the client named none.
    pub database: &'a str,
    /// LOGIN7's server name.
    pub server_name: &'a str,
    /// LOGIN7's user; empty for integrated logins.
    pub user: &'a str,
}

/// The compiled rules. In each rule an exact name goes before any pattern, and patterns are tried in the file's order.
#[derive(Debug, Clone, Default)]
pub struct Router {
    databases: Rule,
    server_names: Rule,
    users: Rule,
    default: Option<Arc<Bucket>>,
    by_name: HashMap<BucketName, Arc<Bucket>>,
}

#[derive(Debug, Clone, Default)]
struct Rule {
    exact: HashMap<String, Arc<Bucket>>,
    globs: Vec<(Pattern, Arc<Bucket>)>,
}

impl Router {
    /// Compiles the rules of all buckets; where two claim the same, the earlier bucket has it.
    pub fn new(buckets: &[Arc<Bucket>]) -> Self {
        let mut router = Self::default();
        for bucket in buckets {
            router.databases.add(&bucket.databases, bucket);
            router.server_names.add(&bucket.server_names, bucket);
            router.users.add(&bucket.users, bucket);
            if bucket.default && router.default.is_none() {
                router.default = Some(Arc::clone(bucket));
            }
            router.by_name.entry(bucket.name.clone()).or_insert_with(|| Arc::clone(bucket));
        }
        router
    }

    /// The bucket for a login on this listener; none is error 4060.
    pub fn route(&self, listener: &Listener, target: Target<'_>) -> Option<&Arc<Bucket>> {
        if let Some(name) = &listener.bucket {
            return self.by_name.get(name);
        }
        self.databases
            .find(target.database)
            .or_else(|| self.server_names.find(target.server_name))
            .or_else(|| self.users.find(target.user))
            .or(self.default.as_ref())
    }
}

impl Rule {
    fn add(&mut self, patterns: &[Pattern], bucket: &Arc<Bucket>) {
        for pattern in patterns {
            if pattern.is_exact() {
                self.exact.entry(pattern.folded()).or_insert_with(|| Arc::clone(bucket));
            } else {
                self.globs.push((pattern.clone(), Arc::clone(bucket)));
            }
        }
    }

    /// A name that the client did not give matches nothing, not even `*`.
    fn find(&self, name: &str) -> Option<&Arc<Bucket>> {
        if name.is_empty() {
            return None;
        }
        let exact = if self.exact.is_empty() { None } else { self.exact.get(&name.to_lowercase()) };
        exact.or_else(|| {
            self.globs.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, bucket)| bucket)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str, databases: &[&str], server_names: &[&str], users: &[&str]) -> Bucket {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
        Bucket {
            databases: patterns(databases),
            server_names: patterns(server_names),
            users: patterns(users),
            ..Bucket::new(name, "sql", 1433, 10)
        }
    }

    #[test]
    fn listener_goes_before_database_before_server_name_before_user_before_default() {
        let buckets = [
            bucket("glob", &["t_*"], &[], &[]),
            bucket("exact", &["t_1"], &["sql-a.example"], &[]),
            bucket("user", &[], &[], &["ann*"]),
            Bucket { default: true, ..bucket("rest", &[], &[], &[]) },
        ];
        let router = Router::new(&buckets.map(Arc::new));
        let open = Listener::new("open", 0);
        let bound = Listener { bucket: Some(BucketName::from("user")), ..Listener::new("bound", 0) };
        let table = [
            (&open, "T_1", "", "", "exact"),
            (&open, "t_2", "sql-a.example", "anna", "glob"),
            (&open, "other", "SQL-A.example", "anna", "exact"),
            (&open, "other", "sql-b", "anna", "user"),
            (&open, "", "", "ben", "rest"),
            (&bound, "t_1", "sql-a.example", "ben", "user"),
        ];
        for (listener, database, server_name, user, expected) in table {
            let found = router.route(listener, Target { database, server_name, user }).unwrap();
            assert_eq!(found.name.as_str(), expected, "{database} {server_name} {user}");
        }
    }

    #[test]
    fn without_a_default_bucket_a_stranger_is_routed_nowhere() {
        let router = Router::new(&[Arc::new(bucket("one", &["*"], &[], &[]))]);
        let open = Listener::new("open", 0);
        assert!(router.route(&open, Target::default()).is_none());
        assert!(router.route(&open, Target { database: "x", ..Target::default() }).is_some());
    }
}
