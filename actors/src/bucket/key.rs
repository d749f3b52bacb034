//! What makes two server connections interchangeable for a client, and the login that opens one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tds::TdsVersion;
use tds::feature::{Feature, FeatureId};
use tds::login7::Login7;
use tds::profile::LoginProfile;
use tdsbouncer_config::{Bucket, BucketAuth, KeyExtra, ServerTlsMode};

use super::pool::OfTenant;
use super::tenant::TenantRef;
use crate::auth::{LoginKey, Proof};

/// The identity of a sub-pool: principal, and everything of the opener's LOGIN7 that fixes the format or the
/// meaning of responses. RESETCONNECTION renegotiates none of it.
#[derive(Clone)]
pub(crate) struct PoolKey {
    pub(crate) user: String,
    /// Knowledge of the password, not the password.
    pub(crate) proof: Proof,
    /// A digest of all that makes it: keys are compared several times for each lease.
    digest: u128,
}

impl PoolKey {
    fn new(login: &Login7, proof: Proof, extra: &[(KeyExtra, &str)]) -> Self {
        let mut digest = DigestHasher(Sha256::new());
        (&login.user_name, proof, LoginProfile::of(login)).hash(&mut digest);
        for (extra, value) in extra {
            (*extra as u8, value).hash(&mut digest);
        }
        let digest = digest.0.finalize();
        let half = digest.first_chunk().expect("SHA-256 has 32 bytes");
        Self { user: login.user_name.clone(), proof, digest: u128::from_le_bytes(*half) }
    }
}

impl PartialEq for PoolKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PoolKey {}

/// Feeds a digest with whatever can be hashed.
struct DigestHasher(Sha256);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest itself is what is asked for.
    fn finish(&self) -> u64 {
        0
    }
}

impl LoginKey for PoolKey {
    fn user(&self) -> &str {
        &self.user
    }

    fn proof(&self) -> Proof {
        self.proof
    }
}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolKey({})", self.user)
    }
}

/// How a server connection of a sub-pool is opened: the client's own login, made fit for the server's side.
pub(crate) struct LoginTemplate {
    pub(crate) key: PoolKey,
    /// Holds the password; wiped when dropped.
    pub(crate) login: Login7,
    pub(crate) database: String,
    pub(crate) application: String,
    /// Whether `login` offers SESSIONRECOVERY although the client did not ask for it.
    pub(crate) offers_session_recovery: bool,
    /// The version the client speaks. The server's side may have to say another one (see [`Self::new`]).
    pub(crate) client_version: TdsVersion,
    /// For whom it waits and leases.
    pub(crate) tenant: TenantRef,
}

impl LoginTemplate {
    /// Prepares the client's login for the bucket's server: the service login's credentials where the bucket has one.
    /// The client's own SESSIONRECOVERY is taken out: what it recovers belongs to one connection, and clients do
    /// without it where it is not acknowledged ([MS-TDS] 2.2.6.4). `offer`: the server is asked to tell its session's
    /// state, for the proxy's own use.
    pub(crate) fn shared(
        mut login: Login7,
        tenant: &TenantRef,
        bucket: &Bucket,
        proof_of: impl Fn(&Login7) -> Proof,
        offer: bool,
    ) -> Arc<Self> {
        if let BucketAuth::Service { user, password } = &bucket.auth {
            login.user_name = user.clone();
            login.password = tds::login7::Password::new(password.expose());
        }
        login.features.retain(|feature| feature.id != FeatureId::SESSION_RECOVERY);
        let mut template = Self::prepare(login, tenant, bucket, proof_of);
        // Of a feature that is not known here nobody knows which tokens it brings: behind one of them SESSIONSTATE could
        // not be found, and would reach the client.
        let follows = template.login.features.iter().all(|feature| feature.id.name().is_some());
        // After the key was made: whom the server tells its state does not tell clients apart.
        if offer && follows && template.login.tds_version.generation() >= 4 {
            let offered = Feature { id: FeatureId::SESSION_RECOVERY, data: Bytes::new() };
            template.login.features.push(offered);
            template.offers_session_recovery = true;
        }
        Arc::new(template)
    }

    /// The same for a login that gets a connection of its own: credentials and features stay the client's.
    pub(crate) fn dedicated(
        login: Login7,
        tenant: &TenantRef,
        bucket: &Bucket,
        proof_of: impl Fn(&Login7) -> Proof,
    ) -> Arc<Self> {
        Arc::new(Self::prepare(login, tenant, bucket, proof_of))
    }

    fn prepare(
        mut login: Login7,
        tenant: &TenantRef,
        bucket: &Bucket,
        proof_of: impl Fn(&Login7) -> Proof,
    ) -> Self {
        let client_version = login.tds_version;
        login.server_name.clone_from(&bucket.host);
        // Format and meaning of 7.4 and 8.0 are the same; 8.0 is only spoken where TLS comes first.
        if client_version == TdsVersion::V8_0 && bucket.server_tls.mode != ServerTlsMode::Strict {
            login.tds_version = TdsVersion::V7_4;
        }
        let extra = [(KeyExtra::ApplicationName, &*login.app_name), (KeyExtra::HostName, &*login.host_name)];
        let extra = extra.into_iter().filter(|(extra, _)| bucket.key_extra.contains(extra));
        let key = PoolKey::new(&login, proof_of(&login), &extra.collect::<Vec<_>>());
        Self {
            key,
            database: login.database.clone(),
            application: login.app_name.clone(),
            login,
            offers_session_recovery: false,
            client_version,
            tenant: tenant.clone(),
        }
    }
}

/// A template as the key of a map: equal where the sub-pool is.
#[derive(Clone)]
pub(crate) struct SubPool(pub(crate) Arc<LoginTemplate>);

impl PartialEq for SubPool {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key == other.0.key
    }
}

impl Eq for SubPool {}

impl Hash for SubPool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl OfTenant for SubPool {
    fn tenant(&self) -> &TenantRef {
        &self.0.tenant
    }
}

impl fmt::Debug for SubPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.key)
    }
}
