//! Every name that this program uses in Redis.

/// What stands before every name, so that several installations can share one Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The hash with everything about one bucket. The braces are what a cluster places it by, so that whatever else
    /// will ever belong to a bucket lies beside it.
    pub(crate) fn bucket(&self, bucket: &str) -> String {
        format!("{}:{{{bucket}}}", self.prefix)
    }

    /// The channel on which proxies wake each other.
    pub(crate) fn wake(&self) -> String {
        format!("{}:wake", self.prefix)
    }
}

/// Before a member's name, in the name of its field.
pub(crate) const MEMBER: &str = "m:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_documentation_says() {
        let keys = Keys::new("tdsbouncer");
        assert_eq!(keys.bucket("orders"), "tdsbouncer:{orders}");
        assert_eq!(keys.wake(), "tdsbouncer:wake");
        let script = include_str!("sync.lua");
        // Redis' own notes, and the field that an operator may set: HSET tdsbouncer:{orders} limit 50
        for field in ["state", "limit"] {
            assert!(script.contains(&format!("'{field}'")), "{field}");
        }
        assert!(script.contains(&format!("'{MEMBER}'")));
    }

    #[test]
    fn buckets_and_installations_do_not_share_names() {
        assert_ne!(Keys::new("a").bucket("x"), Keys::new("b").bucket("x"));
        assert_ne!(Keys::new("a").bucket("x"), Keys::new("a").bucket("y"));
    }
}
