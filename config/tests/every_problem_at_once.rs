//! What an operator reads when the file is wrong: every problem, with its place and what to do.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use tdsbouncer_config::{BucketAuth, Config, Outside, PoolMode, Problems, ServerTlsMode};

/// A world made of what the test says.
#[derive(Default)]
struct World {
    variables: HashMap<&'static str, &'static str>,
    files: HashMap<&'static str, &'static str>,
}

impl Outside for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let contents = path.to_str().and_then(|path| self.files.get(path));
        contents.map(|text| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    parse_in(text, &World::default())
}

fn parse_in(text: &str, world: &World) -> Result<Config, Problems> {
    Config::parse_with(text, Path::new("/etc/tdsbouncer"), world)
}

fn problems(text: &str) -> Vec<String> {
    parse(text).expect_err("the text is wrong").0.iter().map(ToString::to_string).collect()
}

const GOOD: &str = r#"
[[listeners]]
name = "main"
tls = { self_signed = true }

[defaults]
max_connections = 20
server_tls = { mode = "off" }

[[buckets]]
name = "one"
host = "sql1"
databases = ["one"]
"#;

#[test]
fn a_short_file_with_defaults_for_all_buckets_is_enough() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.buckets[0].max_connections, 20);
    assert_eq!(config.buckets[0].server_tls.mode, ServerTlsMode::Off);
    assert_eq!(config.listeners[0].address.port(), 1433);
}

#[test]
fn connections_change_hands_by_transaction_unless_the_defaults_or_the_bucket_say_otherwise() {
    let modes = |defaults: &str| {
        let text = format!(
            r#"
listeners = [{{ tls = {{ mode = "off" }} }}]
[defaults]
max_connections = 10
server_tls = {{ mode = "off" }}
{defaults}
[[buckets]]
name = "one"
host = "sql1"
databases = ["one"]
[[buckets]]
name = "two"
host = "sql2"
default = true
pool_mode = "transaction"
"#
        );
        let config = parse(&text).expect("it is valid");
        config.buckets.iter().map(|bucket| bucket.pool_mode).collect::<Vec<_>>()
    };
    assert_eq!(modes(""), [PoolMode::Transaction, PoolMode::Transaction]);
    assert_eq!(modes(r#"pool_mode = "session""#), [PoolMode::Session, PoolMode::Transaction]);
}

#[test]
fn every_problem_is_told_at_once_with_line_path_value_and_hint() {
    let told = problems(
        r#"
[[listeners]]
name = "main"
adress = "0.0.0.0:1433"
tls = { mode = "sometimes", self_signed = true }

[defaults]
idle_timeout = "10"
keepalive = { idle = "0s" }

[[buckets]]
name = "one"
host = "sql1:1433"
max_connections = 0
databases = ["one"]
pool_mode = "sesion"
server_tls = { mode = "off" }

[[buckets]]
name = "one"
max_connections = "many"
databases = ["ONE", ""]
server_tls = { trust_server_certificate = true }

[limits]
max_packet = "64KiB"

[coordinator]
kind = "redis"
"#,
    );
    let expected = [
        "line 4: listeners[0].adress: no such key (did you mean address?)",
        "line 5: listeners[0].tls.mode = \"sometimes\": must be one of \"off\", \"login\", \"on\", \"strict\", \"require\"",
        "line 8: defaults.idle_timeout = \"10\": must be a duration such as \"250ms\", \"5s\", \"10m\" or \"1h\", or \"off\"",
        "line 9: defaults.keepalive.idle = \"0s\": must be at least 1s",
        "line 13: buckets[0].host = \"sql1:1433\": must be a host name or an address alone (the port has a key of its own; an instance name has to be looked up first)",
        "line 14: buckets[0].max_connections = 0: must be at least 1",
        "line 16: buckets[0].pool_mode = \"sesion\": must be one of \"transaction\", \"session\" (did you mean session?)",
        "line 19: buckets[1].host: must be given",
        "line 20: buckets[1].name = \"one\": is the name of another bucket too",
        "line 21: buckets[1].max_connections = \"many\": invalid type: string \"many\", expected u32",
        "line 22: buckets[1].databases[1] = \"\": must have 1 to 128 characters",
        "line 26: limits.max_packet = \"64KiB\": must be at most 32767B",
        "line 28: coordinator.urls: must name at least one server (such as [\"redis://redis:6379\"])",
    ];
    assert_eq!(told, expected, "\n{}", told.join("\n"));
}

#[test]
fn what_only_the_parts_together_get_wrong_is_told() {
    let told = problems(
        r#"
[health]
address = "127.0.0.1:9000"
[metrics]
address = "127.0.0.1:9000"

[[listeners]]
name = "a"
bucket = "oen"
tls = { self_signed = true }
[[listeners]]
name = "b"
tls = { self_signed = true }

[defaults]
name = "all"
max_connections = 10
server_tls = { mode = "off" }

[[buckets]]
name = "one"
host = "sql"
databases = ["x"]
default = true
[[buckets]]
name = "two"
host = "SQL"
databases = ["X"]
default = true
[[buckets]]
name = "three"
host = "sql3"
min_idle = 11
"#,
    );
    let expected = [
        "line 5: metrics.address = \"127.0.0.1:9000\": is already the address of [health]",
        "line 9: listeners[0].bucket = \"oen\": no such bucket (did you mean one?)",
        "line 11: listeners[1].address: is the address of another listener too",
        "line 16: defaults.name = \"all\": belongs to each bucket, not to all of them",
        "line 28: buckets[1].databases[0] = \"X\": is routed to bucket one already",
        "line 29: buckets[1].default = true: bucket one is the default already",
        "line 33: buckets[2].min_idle = 11: must be at most max_connections, which is 10",
    ];
    assert_eq!(told, expected, "\n{}", told.join("\n"));
}

#[test]
fn two_buckets_on_one_server_are_allowed_with_a_warning() {
    let second = "[[buckets]]\nname = \"two\"\nhost = \"SQL1\"\ndatabases = [\"two\"]\n";
    let config = parse(&format!("{GOOD}{second}")).unwrap();
    let warned: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let expected =
        "buckets[1].host = \"SQL1\": is the server of bucket one too: it may get the connections of both";
    assert_eq!(warned, [format!("line 16: {expected}")]);
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_line() {
    let told = problems("[limits]\nmax_clients = \n");
    assert!(told[0].starts_with("line 2: not TOML: "), "{told:?}");
}

#[test]
fn an_empty_file_is_told_what_is_missing() {
    let told = problems("");
    assert!(told.iter().any(|line| line.starts_with("listeners: at least one")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("buckets: at least one")), "{told:?}");
}

const SERVICE: &str = r#"
[[listeners]]
name = "main"
tls = { self_signed = true }
[auth]
users_file = "users"
[[buckets]]
name = "one"
host = "sql1"
max_connections = 5
default = true
server_tls = { mode = "off" }
auth = "service"
service_user = "pool"
service_password = "PLACE"
"#;

#[test]
fn a_secret_is_taken_from_the_environment_or_from_a_file_beside_the_configuration() {
    let world = World {
        variables: HashMap::from([("POOL_PASSWORD", "hunter2")]),
        files: HashMap::from([("/etc/tdsbouncer/users", ""), ("/etc/tdsbouncer/pool", "hunter2\n")]),
    };
    for place in ["env:POOL_PASSWORD", "file:pool"] {
        let config = parse_in(&SERVICE.replace("PLACE", place), &world).unwrap();
        let BucketAuth::Service { user, password } = &config.buckets[0].auth else {
            panic!("service expected")
        };
        assert_eq!((&**user, password.expose()), ("pool", "hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[test]
fn a_secret_written_into_the_file_is_refused_and_never_repeated() {
    let world = World { files: HashMap::from([("/etc/tdsbouncer/users", "")]), ..World::default() };
    for text in [SERVICE.replace("PLACE", "hunter2"), SERVICE.replace("\"PLACE\"", "12345678")] {
        let told = parse_in(&text, &world).unwrap_err().to_string();
        assert!(told.contains("buckets[0].service_password: must"), "{told}");
        assert!(!told.contains("hunter2") && !told.contains("12345678"), "{told}");
    }
    let told = parse_in(&SERVICE.replace("PLACE", "env:NOBODY"), &world).unwrap_err().to_string();
    assert!(told.contains("environment variable NOBODY is not set"), "{told}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_full_path() {
    let told = parse_in(&SERVICE.replace("PLACE", "file:gone"), &World::default()).unwrap_err().to_string();
    assert!(told.contains("cannot read /etc/tdsbouncer/gone"), "{told}");
    assert!(told.contains("cannot read /etc/tdsbouncer/users"), "{told}");
}

#[test]
fn a_bucket_that_nobody_can_reach_is_told() {
    let told = problems(&GOOD.replace("databases = [\"one\"]", ""));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("buckets[0]: no client can ever get there"), "{told:?}");
}

#[test]
fn tls_without_a_certificate_says_what_the_choices_are() {
    let told = problems(&GOOD.replace("tls = { self_signed = true }", ""));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("listeners[0].tls.certificate: must be given, with key (or self_signed"),
        "{told:?}"
    );
}
