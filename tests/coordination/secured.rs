//! A Redis that asks who one is: TLS, users with rules, passwords that change.

use std::path::PathBuf;
use std::process::Command;

use crate::fleet::Fleet;
use crate::redis::Redis;
use crate::{CLIENTS, at_work, one};

/// Certificates of an authority of our own, made by the program that everybody has.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Self { folder };
        for name in ["authority", "other"] {
            made.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
                 -keyout {name}.key -out {name}.pem"
            ));
        }
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -CA authority.pem -CAkey \
             authority.key -keyout server.key -out server.pem",
        );
        made
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split_whitespace()).current_dir(self.folder.path()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_over_tls_and_believed_only_with_a_certificate_of_a_known_authority() {
    let made = Certificates::make();
    let [certificate, key, authority] =
        ["server.pem", "server.key", "authority.pem"].map(|name| made.path(name));
    let redis = Redis::start_tls([&certificate, &key, &authority]);
    let tls = one(redis.port).replace("redis://127.0.0.1", "rediss://localhost");
    let mut fleet = Fleet::known(1, &[("SSL_CERT_FILE", &authority)], |_| tls.clone());
    fleet.clients(CLIENTS / 3, 10);
    fleet.until_served(50).await;
    assert_eq!(fleet.proxies[0].mode(), "normal");
    fleet.stop().await;
    // One that believes another authority serves nobody, and says why.
    let mut other = Fleet::known(1, &[("SSL_CERT_FILE", &made.path("other.pem"))], |_| tls.clone());
    let said = |fleet: &mut Fleet| fleet.proxies[0].log().contains("invalid peer certificate");
    other.until("it says that the certificate is not good", said).await;
    assert_eq!((other.proxies[0].mode(), other.open()), ("joining".to_owned(), 0));
}

/// What docs/coordinator.md gives a proxy's user.
fn rules() -> Vec<String> {
    let page = include_str!("../../docs/coordinator.md");
    let line = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER tdsbouncer "));
    line.expect("the page names the rules").split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_documented_rules_is_enough_and_a_wrong_password_leaves_the_share() {
    let redis = Redis::start(&["--save", ""]);
    let rules: Vec<String> = rules().iter().map(|word| word.replace("PASSWORD", "s3cret")).collect();
    let mut command = vec!["ACL", "SETUSER", "tdsbouncer"];
    command.extend(rules.iter().map(String::as_str));
    assert_eq!(redis.ask(&command), "OK", "{rules:?}");
    // Nobody gets in without showing who it is; only this test stays.
    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "resetkeys", "resetchannels"]), "OK");
    let secret = tempfile::tempdir().unwrap();
    let file = secret.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let user = format!(
        "{}\nusername = \"tdsbouncer\"\npassword = \"file:{}\"",
        one(redis.port).replace("10s", "1h"),
        file.display()
    );
    let mut fleet = at_work(|_| user.clone()).await;
    assert_eq!(redis.ask(&["ACL", "LOG"]), "", "nothing was denied");
    // Somebody changes the password.
    assert_eq!(redis.ask(&["ACL", "SETUSER", "tdsbouncer", "resetpass", ">other"]), "OK");
    redis.ask(&["CLIENT", "KILL", "USER", "tdsbouncer"]);
    fleet.until("all fall back", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "fallback")).await;
    fleet.until("shares are kept", |fleet| fleet.open() <= 18).await;
    fleet.until_served(100).await;
    for log in fleet.logs() {
        assert!(log.contains("WRONGPASS") || log.contains("authentication failed"), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
    assert_eq!(redis.ask(&["ACL", "SETUSER", "tdsbouncer", "resetpass", ">s3cret"]), "OK");
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.end().await;
}
