//! The way to Redis: one server, servers behind Sentinels, or a cluster. One connection of the pool is in use at a
//! time and shared by all requests; when it fails another one is opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, Script, TlsMode, Value, cmd,
};
use deadpool_redis::{cluster, sentinel};
use tdsbouncer_config::{Redis as Settings, RedisLogin, Topology};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::encoding::{self, Failed, Said, Strange, Written};
use super::keys::Keys;
use super::request::{Answer, Sync};

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisFailure {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Pool(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Strange(#[from] Strange),
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("{have} replicas have it, {wanted} must (coordinator.min_replicas)")]
    Unconfirmed { have: u32, wanted: u32 },
}

enum Pool {
    Single(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

/// A connection in use: many requests at once go over it.
#[derive(Clone)]
enum Shared {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Redis, as the coordinator needs it.
pub(crate) struct Redis {
    settings: Settings,
    keys: Keys,
    script: Script,
    pool: Pool,
    patience: Duration,
    /// The connection in use and its number.
    current: Mutex<(u64, Option<Shared>)>,
}

/// The connection information of one URL, with the login that does not stand in it.
fn info(url: &str, login: &RedisLogin) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    let settings = with_login(info.redis_settings().clone(), login);
    Ok(info.set_redis_settings(settings))
}

fn with_login(mut info: RedisConnectionInfo, login: &RedisLogin) -> RedisConnectionInfo {
    info = info.set_lib_name("tdsbouncer", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    match &login.password {
        Some(password) => info.set_password(password.expose()),
        None => info,
    }
}

/// How the servers that Sentinels name are connected to: as the Sentinels, with a login of their own.
fn node(settings: &Settings) -> SentinelNodeConnectionInfo {
    let login = with_login(RedisConnectionInfo::default(), &settings.login);
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
    if settings.urls.iter().any(|url| url.starts_with("rediss:")) {
        node.set_tls_mode(TlsMode::Secure)
    } else {
        node
    }
}

impl Redis {
    /// Nothing is connected yet. Fails only if the settings cannot be used.
    pub(crate) fn new(settings: Settings, patience: Duration) -> Result<Self, RedisFailure> {
        let unusable = |error: &dyn std::fmt::Display| RedisFailure::Pool(error.to_string());
        let infos = |login: &RedisLogin| {
            settings.urls.iter().map(|url| info(url, login)).collect::<Result<Vec<_>, _>>()
        };
        let pool = match &settings.topology {
            Topology::Single => {
                let first = infos(&settings.login)?.into_iter().next();
                let first = first.ok_or_else(|| RedisFailure::Pool("no URL is given".to_owned()))?;
                let manager = deadpool_redis::Manager::new(first)?;
                let builder = deadpool_redis::Pool::builder(manager).max_size(2);
                Pool::Single(builder.build().map_err(|error| unusable(&error))?)
            }
            Topology::Sentinel { master, login } => {
                let kind = sentinel::SentinelServerType::Master;
                let node = Some(node(&settings).into());
                let manager = sentinel::Manager::new(infos(login)?, master.clone(), node, kind)?;
                let builder = sentinel::Pool::builder(manager).max_size(2);
                Pool::Sentinel(builder.build().map_err(|error| unusable(&error))?)
            }
            Topology::Cluster => {
                let manager = cluster::Manager::new(infos(&settings.login)?, false)?;
                let builder = cluster::Pool::builder(manager).max_size(2);
                Pool::Cluster(builder.build().map_err(|error| unusable(&error))?)
            }
        };
        let keys = Keys::new(&settings.prefix);
        let script = Script::new(include_str!("sync.lua"));
        Ok(Self { settings, keys, script, pool, patience, current: Mutex::new((0, None)) })
    }

    /// The most that a request may take: later its answer counts for nothing.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    async fn connection(&self) -> Result<(u64, Shared), RedisFailure> {
        let mut current = self.current.lock().await;
        if let (number, Some(shared)) = &*current {
            return Ok((*number, shared.clone()));
        }
        let failed = |error: &dyn std::fmt::Display| RedisFailure::Pool(error.to_string());
        // Taken out of the pool for as long as it works: a pool's test before each use would cost a request each.
        let shared = match &self.pool {
            Pool::Single(pool) => {
                let connection = pool.get().await.map_err(|error| failed(&error))?;
                Shared::One(deadpool_redis::Connection::take(connection))
            }
            Pool::Sentinel(pool) => {
                let connection = pool.get().await.map_err(|error| failed(&error))?;
                Shared::One(sentinel::Connection::take(connection))
            }
            Pool::Cluster(pool) => {
                let connection = pool.get().await.map_err(|error| failed(&error))?;
                Shared::Cluster(cluster::Connection::take(connection))
            }
        };
        let number = current.0 + 1;
        *current = (number, Some(shared.clone()));
        Ok((number, shared))
    }

    /// The connection of this number is of no use any more.
    async fn give_up(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.0 == number {
            current.1 = None;
        }
    }

    /// Whether requests about several buckets can travel as one: a cluster has them on different nodes.
    pub(crate) fn takes_batches(&self) -> bool {
        !matches!(self.pool, Pool::Cluster(_))
    }

    /// Tells Redis about these buckets, with one command.
    pub(crate) async fn sync(
        &self,
        batch: &[(String, Sync)],
    ) -> Result<Vec<Result<Answer, RedisFailure>>, RedisFailure> {
        let used = AtomicU64::new(0);
        let asking = async {
            let (number, shared) = self.connection().await?;
            used.store(number, Ordering::Relaxed);
            match shared {
                Shared::One(connection) => self.ask(connection, batch).await,
                Shared::Cluster(connection) => self.ask(connection, batch).await,
            }
        };
        let outcome = match tokio::time::timeout(self.patience, asking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisFailure::Timeout(self.patience)),
        };
        // After a silence nobody knows whether the other side is there: the next request tries anew.
        if outcome.as_ref().is_err_and(RedisFailure::is_the_connections) {
            self.give_up(used.load(Ordering::Relaxed)).await;
        }
        outcome
    }

    async fn ask(
        &self,
        mut connection: impl ConnectionLike,
        batch: &[(String, Sync)],
    ) -> Result<Vec<Result<Answer, RedisFailure>>, RedisFailure> {
        let mut invocation = self.script.prepare_invoke();
        let requests = batch.iter().map(|(bucket, request)| (&**bucket, request));
        encoding::arguments(&mut invocation, &self.keys, &Said::default(), requests);
        let value: Value = invocation.invoke_async(&mut connection).await?;
        let answers = encoding::answers(&value, batch.len())?;
        let wanted = self.settings.min_replicas;
        if wanted > 0 && answers.iter().any(|answer| matches!(answer, Ok(Answer::Taken(_)))) {
            let wait = u64::try_from(self.patience.as_millis() / 2).unwrap_or(u64::MAX).min(400);
            let have: u32 = cmd("WAIT").arg(wanted).arg(wait).query_async(&mut connection).await?;
            if have < wanted {
                return Err(RedisFailure::Unconfirmed { have, wanted });
            }
        }
        Ok(answers.into_iter().map(|answer| Ok(answer?)).collect())
    }

    /// What is written about a bucket's members.
    pub(crate) async fn members(&self, bucket: &str) -> Result<Vec<Written>, RedisFailure> {
        let reading = async {
            let (_, shared) = self.connection().await?;
            let mut command = cmd("HGETALL");
            command.arg(self.keys.bucket(bucket));
            let fields: Vec<(String, String)> = match shared {
                Shared::One(mut connection) => command.query_async(&mut connection).await?,
                Shared::Cluster(mut connection) => command.query_async(&mut connection).await?,
            };
            Ok(fields.iter().filter_map(|(field, value)| encoding::written(field, value)).collect())
        };
        match tokio::time::timeout(self.patience, reading).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisFailure::Timeout(self.patience)),
        }
    }

    /// Listens to the wake channel. Whatever arrives goes to `to`, at last that the connection is gone; the
    /// connection lives as long as what is returned.
    pub(crate) async fn listen(
        &self,
        to: UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, RedisFailure> {
        let listening = async {
            let config = AsyncConnectionConfig::new().set_push_sender(to);
            let mut connection = match &self.settings.topology {
                Topology::Sentinel { master, login } => {
                    let infos = self.settings.urls.iter().map(|url| info(url, login));
                    let login = with_login(RedisConnectionInfo::default(), &self.settings.login);
                    let node = node(&self.settings)
                        .set_redis_connection_info(login.set_protocol(ProtocolVersion::RESP3));
                    let mut client = SentinelClient::build(
                        infos.collect::<Result<Vec<_>, _>>()?,
                        master.clone(),
                        Some(node),
                        SentinelServerType::Master,
                    )?;
                    client.get_async_connection_with_config(&config).await?
                }
                Topology::Single | Topology::Cluster => self.any_node(&config).await?,
            };
            connection.subscribe(self.keys.wake()).await?;
            Ok(connection)
        };
        match tokio::time::timeout(self.patience * 2, listening).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisFailure::Timeout(self.patience * 2)),
        }
    }

    /// Messages of a cluster reach all its nodes.
    async fn any_node(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisFailure> {
        let mut failure = RedisFailure::Pool("no URL is given".to_owned());
        for url in &self.settings.urls {
            let info = info(url, &self.settings.login)?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let client = Client::open(info.set_redis_settings(settings))?;
            match client.get_multiplexed_async_connection_with_config(config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }
}

impl RedisFailure {
    /// Whether another connection may do better. A server that was master and is none refuses to write; one that its
    /// replicas left may have been replaced without knowing.
    fn is_the_connections(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unconfirmed { .. } => true,
            Self::Redis(error) => {
                let broken = error.is_unrecoverable_error() || error.is_connection_dropped();
                // Older servers say it from a script in words only.
                let deposed = error.to_string().contains("READONLY");
                broken || error.is_io_error() || error.is_timeout() || deposed
            }
            _ => false,
        }
    }
}
