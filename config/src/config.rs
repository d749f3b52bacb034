//! The whole configuration: loads, checks everything, and checks what only the parts together can get wrong.

use crate::admin::Admin;
use crate::auth::AuthSettings;
use crate::bucket::{Bucket, BucketName};
use crate::check::{Check, Machine, Outside, plain};
use crate::coordinator::Coordinator;
use crate::document::{Document, resembling};
use crate::limits::{Limits, Timeouts};
use crate::listener::Listener;
use crate::log::Log;
use crate::mirror;
use crate::problem::{LoadError, Problem, Problems};
use crate::telemetry::Telemetry;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything an operator may say; immutable and cheap to share.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients come in; at least one.
    pub listeners: Vec<Arc<Listener>>,
    /// The servers; at least one, names and addresses unique.
    pub buckets: Vec<Arc<Bucket>>,
    /// How much.
    pub limits: Limits,
    /// How long.
    pub timeouts: Timeouts,
    /// Logins, for all buckets.
    pub auth: AuthSettings,
    /// What agrees on connections with other proxies.
    pub coordinator: Coordinator,
    /// Where the operator's commands come in.
    pub admin: Admin,
    /// Where `/health` answers, if anywhere.
    pub health: Option<SocketAddr>,
    /// Where `/metrics` answers, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// What is logged.
    pub log: Log,
    /// Threads and shards.
    pub runtime: Runtime,
    /// The file that it came from.
    pub source: Option<PathBuf>,
    /// What is allowed and probably not meant; to be shown to the operator.
    pub warnings: Vec<Problem>,
}

/// Threads and shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Runtime {
    /// Threads that do the work; none: one per core.
    pub workers: Option<usize>,
    /// Groups that sessions are supervised in; none: one per worker.
    pub shards: Option<usize>,
}

impl Config {
    /// Reads and checks a file; secrets and the files it names are read as well.
    ///
    /// # Errors
    /// The file cannot be read, or it is wrong: then every problem at once.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_with(path, &Machine)
    }

    /// As [`load`](Self::load), with a world of the caller's choice: [`Nowhere`](crate::Nowhere) checks a file that
    /// is meant for another machine.
    ///
    /// # Errors
    /// The file cannot be read, or it is wrong: then every problem at once.
    pub fn load_with(path: &Path, outside: &dyn Outside) -> Result<Self, LoadError> {
        let text =
            Machine.file(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = Self::parse_with(&text, directory, outside)?;
        Ok(Self { source: Some(path.to_owned()), ..config })
    }

    /// Checks a text; what it names is looked up on this machine, relative to the current directory.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse_with(text, Path::new(""), &Machine)
    }

    /// Checks a text; what it names is looked up in the given world, relative to the given directory.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse_with(text: &str, directory: &Path, outside: &dyn Outside) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let Some((document, file)) = Document::read(text, &mut problems) else {
            return Err(Problems(problems));
        };
        let mut check = Check::new(outside, directory);
        misplaced_in_defaults(&document, &mut check);
        let config = check_file(&file, &mut check);
        // One mistake is told once: by whoever saw it first, at the place where it was written.
        for problem in check.problems {
            let problem = document.placed(problem);
            if !problems.iter().any(|earlier| earlier.path == problem.path) {
                problems.push(problem);
            }
        }
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        let warnings = check.warnings.into_iter().map(|warning| document.placed(warning)).collect();
        match config {
            Some(config) if problems.is_empty() => Ok(Self { warnings, ..config }),
            _ => Err(Problems(problems)),
        }
    }

    /// A configuration of these listeners and buckets with every other default, without health and metrics: for tests
    /// and the demo. What can only be wrong together is the caller's to get right.
    pub fn of(listeners: Vec<Listener>, buckets: Vec<Bucket>) -> Self {
        let admin = mirror::Admin::default();
        Self {
            listeners: listeners.into_iter().map(Arc::new).collect(),
            buckets: buckets.into_iter().map(Arc::new).collect(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            auth: AuthSettings::default(),
            coordinator: Coordinator::Local,
            admin: Admin {
                socket: PathBuf::from(admin.socket),
                mode: 0o660,
                address: None,
                token: None,
                view_token: None,
                database: admin.database,
                users: Vec::new(),
                viewers: Vec::new(),
            },
            source: None,
            health: None,
            metrics: None,
            telemetry: Telemetry::default(),
            log: Log::default(),
            runtime: Runtime::default(),
            warnings: Vec::new(),
        }
    }
}

/// Some keys say which server a bucket is: they cannot be common to all.
fn misplaced_in_defaults(document: &Document<'_>, check: &mut Check<'_>) {
    for key in ["name", "host", "databases", "server_names", "users", "default"] {
        let path = format!("defaults.{key}");
        if document.has(&path) {
            check.problem(Problem::new(path, "belongs to each bucket, not to all of them"));
        }
    }
}

fn check_file(file: &mirror::File, check: &mut Check<'_>) -> Option<Config> {
    let listeners: Vec<_> = (file.listeners.iter().enumerate())
        .map(|(index, listener)| Listener::check(listener, &format!("listeners[{index}]"), check))
        .collect();
    let buckets: Vec<_> = (file.buckets.iter().enumerate())
        .map(|(index, bucket)| Bucket::check(bucket, &format!("buckets[{index}]"), check))
        .collect();
    check_listeners(file, &listeners, check);
    check_buckets(file, &buckets, check);
    let services = file.buckets.iter().any(|bucket| bucket.auth == mirror::AuthMode::Service);
    let console = !file.admin.users.is_empty() || !file.admin.viewers.is_empty();
    let needs_users = if services {
        Some("a bucket has auth = \"service\"")
    } else {
        console.then_some("[admin] names users of the console")
    };
    let limits = Limits::check(&file.limits, check);
    let timeouts = Timeouts::check(&file.timeouts, check);
    let auth = AuthSettings::check(&file.auth, needs_users, check);
    let coordinator = Coordinator::check(&file.coordinator, check);
    let admin = Admin::check(&file.admin, check);
    Admin::check_users(&file.admin, &auth.users, check);
    let health = optional_address("health.address", &file.health.address, check);
    let metrics = optional_address("metrics.address", &file.metrics.address, check);
    if health.is_some() && health == metrics && health.is_some_and(|address| address.port() != 0) {
        check.problem(Problem::new("metrics.address", "is already the address of [health]"));
    }
    check.within("runtime.workers", file.runtime.workers, 0..=1024, plain);
    check.within("runtime.shards", file.runtime.shards, 0..=1024, plain);
    let some = |number: usize| (number > 0).then_some(number);
    Some(Config {
        listeners: listeners.into_iter().map(|listener| listener.map(Arc::new)).collect::<Option<_>>()?,
        buckets: buckets.into_iter().map(|bucket| bucket.map(Arc::new)).collect::<Option<_>>()?,
        limits,
        timeouts,
        auth,
        coordinator: coordinator?,
        admin: admin?,
        health,
        metrics,
        telemetry: Telemetry::check(&file.telemetry, check),
        log: Log::from(&file.log),
        runtime: Runtime { workers: some(file.runtime.workers), shards: some(file.runtime.shards) },
        source: None,
        warnings: Vec::new(),
    })
}

/// An address, or `off`.
fn optional_address(path: &str, text: &str, check: &mut Check<'_>) -> Option<SocketAddr> {
    if text == "off" { None } else { check.address(path, text) }
}

fn check_listeners(file: &mirror::File, listeners: &[Option<Listener>], check: &mut Check<'_>) {
    if file.listeners.is_empty() {
        check
            .problem(Problem::new("listeners", "at least one [[listeners]] is needed: nobody could connect"));
    }
    let known: Vec<&str> = file.buckets.iter().map(|bucket| &*bucket.name).collect();
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, from) in file.listeners.iter().enumerate() {
        if !from.name.is_empty() && !names.insert(&from.name) {
            check.problem(Problem::new(
                format!("listeners[{index}].name"),
                "is the name of another listener too",
            ));
        }
        let address = listeners[index].as_ref().map(|listener| listener.address);
        if address.is_some_and(|address| address.port() != 0 && !addresses.insert(address)) {
            let what = "is the address of another listener too";
            check.problem(Problem::new(format!("listeners[{index}].address"), what));
        }
        if !from.bucket.is_empty() && !known.contains(&&*from.bucket) {
            let problem = Problem::new(format!("listeners[{index}].bucket"), "no such bucket");
            check.problem(Problem { hint: resembling(&from.bucket, &known), ..problem });
        }
    }
}

fn check_buckets(file: &mirror::File, buckets: &[Option<Bucket>], check: &mut Check<'_>) {
    if file.buckets.is_empty() {
        check.problem(Problem::new(
            "buckets",
            "at least one [[buckets]] is needed: there is no server to pool",
        ));
    }
    let listened: HashSet<BucketName> = file.listeners.iter().map(|l| BucketName::from(&*l.bucket)).collect();
    let mut default: Option<&str> = None;
    let mut names = HashSet::new();
    let mut servers: HashMap<(String, u16), &str> = HashMap::new();
    let mut claims: HashMap<(&str, String), &str> = HashMap::new();
    for (index, from) in file.buckets.iter().enumerate() {
        let path = |key: &str| format!("buckets[{index}].{key}");
        if !from.name.is_empty() && !names.insert(&from.name) {
            check.problem(Problem::new(path("name"), "is the name of another bucket too"));
        }
        let server = (from.host.to_lowercase(), from.port);
        if let Some(other) = servers.insert(server, &from.name).filter(|_| !from.host.is_empty()) {
            let what = format!("is the server of bucket {other} too: it may get the connections of both");
            check.warnings.push(Problem::new(path("host"), what));
        }
        if from.default {
            match default {
                Some(other) => {
                    let what = format!("bucket {other} is the default already");
                    check.problem(Problem::new(path("default"), what));
                }
                None => default = Some(&from.name),
            }
        }
        let Some(bucket) = &buckets[index] else { continue };
        let rules = [
            ("databases", &bucket.databases),
            ("server_names", &bucket.server_names),
            ("users", &bucket.users),
        ];
        for (rule, patterns) in rules {
            for (place, pattern) in patterns.iter().enumerate() {
                let other = claims.insert((rule, pattern.folded().to_lowercase()), &from.name);
                if let Some(other) = other.filter(|other| *other != from.name) {
                    let what = format!("is routed to bucket {other} already");
                    check.problem(Problem::new(path(&format!("{rule}[{place}]")), what));
                }
            }
        }
        if !bucket.is_routed() && !listened.contains(&bucket.name) {
            let hint = "give it databases, server_names, users, a listener, or default = true";
            check.problem(
                Problem::new(format!("buckets[{index}]"), "no client can ever get there").hint(hint),
            );
        }
    }
}
