//! Who shares a bucket with others: a tenant, what it uses of the bucket, and the most it may.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tds::login7::Login7;
use tdsbouncer_config::{Bucket, TenantBy};

/// One tenant of one bucket. It exists while somebody is connected for it.
#[derive(Debug)]
pub(crate) struct Tenant {
    name: Box<str>,
    /// Of the name, which is asked for several times for each lease.
    hash: u64,
    /// How many turns it gets for one of the others.
    weight: AtomicU32,
    clients: AtomicUsize,
    leases: AtomicUsize,
}

/// A tenant as others hold it; equal names are equal tenants.
#[derive(Clone, Debug)]
pub(crate) struct TenantRef(Arc<Tenant>);

impl PartialEq for TenantRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.name == other.0.name)
    }
}

impl Eq for TenantRef {}

impl Hash for TenantRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl std::ops::Deref for TenantRef {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.0
    }
}

impl TenantRef {
    /// A tenant of its own: for tests, and where nobody is told apart.
    pub(crate) fn new(name: &str, weight: u32) -> Self {
        Self(Arc::new(Tenant {
            name: name.into(),
            hash: BuildHasherDefault::<DefaultHasher>::default().hash_one(name),
            weight: AtomicU32::new(weight),
            clients: AtomicUsize::new(0),
            leases: AtomicUsize::new(0),
        }))
    }

    /// How many turns it gets for one of the others.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// What it leases now.
    pub(crate) fn leases(&self) -> usize {
        self.leases.load(Ordering::Acquire)
    }

    /// Counts one more server connection until the share is dropped.
    pub(crate) fn lease(&self) -> LeaseShare {
        self.leases.fetch_add(1, Ordering::AcqRel);
        LeaseShare(self.clone())
    }

    /// Counts one more client until the share is dropped, unless there are `limit` already: then how many there are.
    pub(crate) fn admit(&self, limit: Option<usize>) -> Result<ClientShare, usize> {
        let limit = limit.unwrap_or(usize::MAX);
        self.clients
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |clients| {
                (clients < limit).then_some(clients + 1)
            })
            .map(|_| ClientShare(self.clone()))
    }
}

/// One server connection that a tenant uses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeaseShare(TenantRef);

impl LeaseShare {
    /// For whom it counts.
    pub(crate) fn tenant(&self) -> &TenantRef {
        &self.0
    }
}

impl Drop for LeaseShare {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One client of a tenant.
#[derive(Debug)]
pub(crate) struct ClientShare(TenantRef);

impl ClientShare {
    /// Whose client it is.
    pub(crate) fn tenant(&self) -> &TenantRef {
        &self.0
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The tenants of one bucket that somebody is connected for. Outlives the bucket's actor.
#[derive(Debug, Default)]
pub(crate) struct Tenants(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<str>, Weak<Tenant>>,
    /// How many names are worth a look for those that are gone.
    sweep_at: usize,
}

/// Few enough to keep without a look.
const FEW: usize = 64;

impl Tenants {
    /// The tenant that a login belongs to.
    pub(crate) fn of(&self, login: &Login7, bucket: &Bucket) -> TenantRef {
        // Names of SQL Server's databases and logins are compared without case, as a rule.
        let name = match bucket.tenants.by {
            TenantBy::None => String::new(),
            // Who names no database gets the login's own, which only the server knows.
            TenantBy::Database if login.database.is_empty() => login.user_name.to_lowercase(),
            TenantBy::Database => login.database.to_lowercase(),
            TenantBy::User => login.user_name.to_lowercase(),
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = known.by_name.get(name.as_str()).and_then(Weak::upgrade) {
            // A reload may have given it another.
            tenant.weight.store(bucket.tenants.weight(&name), Ordering::Relaxed);
            return TenantRef(tenant);
        }
        if known.by_name.len() >= known.sweep_at.max(FEW) {
            known.by_name.retain(|_, tenant| tenant.strong_count() > 0);
            known.sweep_at = 2 * known.by_name.len();
        }
        let tenant = TenantRef::new(&name, bucket.tenants.weight(&name));
        known.by_name.insert(name.into(), Arc::downgrade(&tenant.0));
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, database: &str) -> Login7 {
        Login7 { user_name: user.to_owned(), database: database.to_owned(), ..Login7::default() }
    }

    fn bucket(by: TenantBy) -> Bucket {
        let mut bucket = Bucket::new("b", "sql", 1433, 10);
        bucket.tenants.by = by;
        bucket
    }

    #[test]
    fn logins_of_one_database_are_one_tenant_whatever_its_case() {
        let (tenants, bucket) = (Tenants::default(), bucket(TenantBy::Database));
        let one = tenants.of(&login("ann", "Shop"), &bucket);
        assert_eq!(one, tenants.of(&login("bob", "shop"), &bucket));
        assert_ne!(one, tenants.of(&login("ann", "depot"), &bucket));
        assert_eq!(tenants.of(&login("ann", ""), &bucket), tenants.of(&login("ANN", ""), &bucket));
    }

    #[test]
    fn tenants_may_be_users_or_nobody() {
        let (tenants, users) = (Tenants::default(), bucket(TenantBy::User));
        assert_eq!(tenants.of(&login("ann", "x"), &users), tenants.of(&login("ann", "y"), &users));
        let (tenants, none) = (Tenants::default(), bucket(TenantBy::None));
        assert_eq!(tenants.of(&login("ann", "x"), &none), tenants.of(&login("bob", "y"), &none));
    }

    #[test]
    fn what_a_tenant_uses_is_counted_until_it_is_dropped() {
        let (tenants, bucket) = (Tenants::default(), bucket(TenantBy::Database));
        let tenant = tenants.of(&login("ann", "shop"), &bucket);
        let lease = tenant.lease();
        let client = tenant.admit(Some(1)).unwrap();
        assert_eq!((tenant.leases(), tenant.admit(Some(1)).err()), (1, Some(1)));
        assert_eq!(tenants.of(&login("ann", "shop"), &bucket).leases(), 1, "the same one, not one like it");
        drop((lease, client));
        assert_eq!(tenant.leases(), 0);
        assert!(tenant.admit(Some(1)).is_ok());
    }

    #[test]
    fn names_without_clients_are_forgotten() {
        let (tenants, bucket) = (Tenants::default(), bucket(TenantBy::Database));
        for n in 0..10_000 {
            drop(tenants.of(&login("ann", &format!("db{n}")), &bucket));
        }
        assert!(tenants.0.lock().unwrap().by_name.len() <= 2 * FEW);
    }
}
