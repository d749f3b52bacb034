//! What agrees on each bucket's connections with other proxies: nothing, or Redis.

use crate::check::Check;
use crate::mirror;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::{duration, mirror::RedisTopology};
use std::time::Duration;

/// What agrees on connections with other proxies.
#[derive(Debug, Clone, Default)]
pub enum Coordinator {
    /// Nothing: this is the only proxy, and every bucket's limit is all its own.
    #[default]
    Local,
    /// Redis.
    Redis(Box<Redis>),
}

/// How Redis is reached and used.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Which servers there are.
    pub topology: Topology,
    /// `redis://HOST:PORT` or `rediss://HOST:PORT` with an optional database; at least one.
    pub urls: Vec<String>,
    /// How the proxy shows itself to Redis, if Redis asks.
    pub login: RedisLogin,
    /// Before every name in Redis.
    pub prefix: String,
    /// This proxy's name among the others; none: the host's.
    pub instance: Option<String>,
    /// The most proxies that run at once; 0: nobody keeps a share.
    pub expected_instances: u32,
    /// How long slots of a proxy that is not heard of are kept for it.
    pub lease_time: Duration,
    /// How long a proxy may use its share without Redis.
    pub fallback_time: Duration,
    /// How many replicas must have what a proxy relies on.
    pub min_replicas: u32,
    /// Whether the kernel ends a proxy that sleeps past its lease.
    pub fence: bool,
}

/// A single server, or several.
#[derive(Debug, Clone)]
pub enum Topology {
    /// One server.
    Single,
    /// Servers behind Sentinels, whose addresses the URLs are.
    Sentinel {
        /// The name that the Sentinels know the master by.
        master: String,
        /// How the proxy shows itself to the Sentinels.
        login: RedisLogin,
    },
    /// A cluster; the URLs are some of its nodes.
    Cluster,
}

/// User and password; both may be missing.
#[derive(Debug, Clone, Default)]
pub struct RedisLogin {
    /// The ACL user; none: `default`.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl Coordinator {
    pub(crate) fn check(from: &mirror::Coordinator, check: &mut Check<'_>) -> Option<Self> {
        if from.kind == mirror::CoordinatorKind::Local {
            return Some(Self::Local);
        }
        if from.urls.is_empty() {
            let problem = Problem::new("coordinator.urls", "must name at least one server");
            check.problem(problem.hint("such as [\"redis://redis:6379\"]"));
        }
        if from.topology == RedisTopology::Single && from.urls.len() > 1 {
            let problem = Problem::new("coordinator.urls", "must be one for topology = \"single\"");
            check.problem(problem.hint("servers that know each other are a \"sentinel\" or a \"cluster\""));
        }
        for (index, url) in from.urls.iter().enumerate() {
            check_url(&format!("coordinator.urls[{index}]"), url, check);
        }
        let word = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'))
        };
        let name = |text: &str| word(text) && text.len() <= 128 && !text.contains(':');
        if !word(&from.prefix) {
            check.problem(Problem::new("coordinator.prefix", "must be of letters, digits and . _ - :"));
        }
        if !from.instance.is_empty() && !name(&from.instance) {
            check.problem(Problem::new("coordinator.instance", "must be of letters, digits and . _ -"));
        }
        let bounds = Duration::from_secs(1)..=Duration::from_secs(600);
        let lease_time = check.within("coordinator.lease_time", from.lease_time, bounds, duration::show);
        let bounds = lease_time..=Duration::from_secs(30 * 24 * 3600);
        let fallback_time =
            check.within("coordinator.fallback_time", from.fallback_time, bounds, duration::show);
        if from.topology == RedisTopology::Cluster && from.min_replicas > 0 {
            let problem = Problem::new("coordinator.min_replicas", "must be 0 with a cluster");
            check
                .problem(problem.hint("a master that is cut off stops by itself after cluster-node-timeout"));
        }
        if from.topology == RedisTopology::Sentinel && from.min_replicas == 0 {
            check.warnings.push(Problem::new(
                "coordinator.min_replicas",
                "is 0: a master that is cut off from its Sentinels goes on granting connections to the proxies beside it",
            ));
        }
        let login = login("coordinator", &from.username, &from.password, check);
        let sentinel =
            self::login("coordinator.sentinel", &from.sentinel_username, &from.sentinel_password, check);
        let topology = match from.topology {
            RedisTopology::Single => Topology::Single,
            RedisTopology::Cluster => Topology::Cluster,
            RedisTopology::Sentinel => {
                check.given("coordinator.sentinel_master", &from.sentinel_master);
                Topology::Sentinel { master: from.sentinel_master.clone(), login: sentinel? }
            }
        };
        Some(Self::Redis(Box::new(Redis {
            topology,
            urls: from.urls.clone(),
            login: login?,
            prefix: from.prefix.clone(),
            instance: (!from.instance.is_empty()).then(|| from.instance.clone()),
            expected_instances: from.expected_instances,
            lease_time,
            fallback_time,
            min_replicas: from.min_replicas,
            fence: from.fence,
        })))
    }
}

fn check_url(path: &str, url: &str, check: &mut Check<'_>) {
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
    let Some(rest) = rest else {
        let problem = Problem::new(path, "must begin with redis:// or, for TLS, rediss://");
        return check.problem(problem);
    };
    if rest.contains('@') {
        let problem = Problem::new(path, "must not contain a user or password");
        return check.problem(problem.hint("they have keys of their own: username, password"));
    }
    let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    let named = !address.is_empty() && !address.starts_with(':') && !rest.contains(['?', '#', ' ']);
    let numbered = database.is_empty() || database.parse::<u16>().is_ok();
    if !named || !numbered || !matches!(port, None | Some(Ok(1..))) {
        check.problem(Problem::new(path, "must be redis://HOST:PORT or redis://HOST:PORT/DATABASE"));
    }
}

fn login(at: &str, user: &str, password: &str, check: &mut Check<'_>) -> Option<RedisLogin> {
    let path = if at == "coordinator" { "coordinator.password" } else { "coordinator.sentinel_password" };
    let secret = if password.is_empty() { None } else { Some(check.secret(path, password)?) };
    if !user.is_empty() && secret.is_none() {
        check.problem(Problem::new(path, "must be given with the user"));
        return None;
    }
    Some(RedisLogin { user: (!user.is_empty()).then(|| user.to_owned()), password: secret })
}
