//! Checks passwords against the users file: few at a time, away from the runtime, and each good one once per ttl.

use super::aging::Aging;
use super::proof::{Proof, ProofKey};
use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tdsbouncer_config::{Users, UsersError};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// A file larger than this is no users file; a line has about 130 bytes.
const LARGEST_FILE: u64 = 64 << 20;

/// The users of `auth = "service"`; shared by reference.
pub(crate) struct UsersFile {
    path: Option<PathBuf>,
    current: ArcSwap<Loaded>,
    /// One permit per hash that may be computed at the same time: each takes 19 MiB and some 20 ms of a core.
    checks: Arc<Semaphore>,
    limits: CheckLimits,
    key: Arc<ProofKey>,
}

/// How much checking passwords may cost.
#[derive(Debug, Clone)]
pub(crate) struct CheckLimits {
    /// Hashes computed at the same time.
    pub(crate) at_once: usize,
    /// Good passwords remembered at most.
    pub(crate) remembered: usize,
    /// How long a good password is remembered; none: not at all.
    pub(crate) ttl: Option<Duration>,
}

/// One version of the file, with what was verified against it: a new version starts with an empty memory.
struct Loaded {
    users: Users,
    digest: [u8; 32],
    verified: Mutex<Aging<Proof, ()>>,
}

/// Why the users file cannot be used; where one was loaded before, that one stays.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    /// It is not there, not readable, not text, or far too large.
    #[error("cannot read the users file {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("the users file {path} is wrong: {source}", path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: UsersError,
    },
}

impl UsersFile {
    /// Reads the file; without one, nobody can log in. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// The file cannot be read or has a wrong line.
    pub(crate) fn open(
        path: Option<PathBuf>,
        limits: CheckLimits,
        key: Arc<ProofKey>,
    ) -> Result<Self, UsersFileError> {
        let contents = path.as_deref().map(read).transpose()?.unwrap_or_default();
        let loaded = Loaded::parse(path.as_deref(), &contents, &limits)?;
        let checks = Arc::new(Semaphore::new(limits.at_once.max(1)));
        Ok(Self { path, current: ArcSwap::from_pointee(loaded), checks, limits, key })
    }

    /// Reads the file again and says whether its contents changed. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// As [`open`](Self::open); the users known so far stay.
    pub(crate) fn reload(&self) -> Result<bool, UsersFileError> {
        let Some(path) = &self.path else { return Ok(false) };
        let contents = read(path)?;
        if digest(&contents) == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(Loaded::parse(Some(path), &contents, &self.limits)?));
        Ok(true)
    }

    /// Whether this password (UTF-16LE, as in LOGIN7) is this user's.
    ///
    /// Waits for a free place among the checks: the caller's login timeout bounds that. Dropping it is safe; a
    /// check that began ends on its own.
    pub(crate) async fn verify(&self, user: &str, password: &[u8]) -> bool {
        let current = self.current.load_full();
        let proof = self.key.proof(user, password);
        if current.remembers(&proof) {
            return true;
        }
        let Some(text) = utf8(password) else { return false };
        let Ok(place) = Arc::clone(&self.checks).acquire_owned().await else { return false };
        // Many clients of one user arrive together: the first one's answer is everybody's.
        if current.remembers(&proof) {
            return true;
        }
        let (checked, user) = (Arc::clone(&current), user.to_owned());
        let check = move || {
            // The permit goes home with the work, not with whoever waits for it.
            let _place = place;
            checked.users.verify(&user, &text)
        };
        let good = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        if good {
            current.remember(proof);
        }
        good
    }

    /// Whether this user may name this database at login; false for a user that does not exist.
    pub(crate) fn may_use(&self, user: &str, database: &str) -> bool {
        self.current.load().users.find(user).is_some_and(|user| user.may_use(database))
    }
}

impl Loaded {
    fn parse(path: Option<&Path>, contents: &str, limits: &CheckLimits) -> Result<Self, UsersFileError> {
        let wrong = |source| UsersFileError::Wrong { path: path.unwrap_or(Path::new("")).into(), source };
        let users = Users::parse(contents).map_err(wrong)?;
        let verified = Aging::new(limits.remembered, limits.ttl.unwrap_or_default());
        Ok(Self { users, digest: digest(contents), verified: Mutex::new(verified) })
    }

    /// A proof is of a name without its case, as the users file has them too.
    fn remembers(&self, proof: &Proof) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(proof, Instant::now()).is_some()
    }

    fn remember(&self, proof: Proof) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).put(proof, (), Instant::now());
    }
}

fn read(path: &Path) -> Result<String, UsersFileError> {
    let unreadable = |source| UsersFileError::Unreadable { path: path.to_owned(), source };
    let mut contents = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let length = file.take(LARGEST_FILE + 1).read_to_string(&mut contents).map_err(unreadable)?;
    if length as u64 > LARGEST_FILE {
        return Err(unreadable(io::Error::other("it is larger than 64 MiB")));
    }
    Ok(contents)
}

fn digest(contents: &str) -> [u8; 32] {
    Sha256::digest(contents).into()
}

/// The password as text, wiped after use; none if it is no UTF-16.
fn utf8(utf16le: &[u8]) -> Option<Zeroizing<String>> {
    let (units, []) = utf16le.as_chunks::<2>() else { return None };
    // All the room it can need at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(units.len() * 3));
    for unit in char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))) {
        text.push(unit.ok()?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tdsbouncer_config::{Secret, hash_password};
    use tokio::task::JoinSet;

    const TTL: Duration = Duration::from_secs(60);

    struct Bench {
        users: Arc<UsersFile>,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", hash_password(&Secret::new(password.into())).unwrap())
    }

    fn bench(contents: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, contents).unwrap();
        let limits = CheckLimits { at_once: 2, remembered: 10, ttl: Some(TTL) };
        let users = UsersFile::open(Some(path.clone()), limits, Arc::new(ProofKey::random())).unwrap();
        Bench { users: Arc::new(users), path, _folder: folder }
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_is_accepted() {
        let bench = bench(&line("anna", "pä𝄞ss"));
        assert!(bench.users.verify("anna", &utf16("pä𝄞ss")).await);
        assert!(bench.users.verify("ANNA", &utf16("pä𝄞ss")).await);
        for (user, password) in [
            ("anna", utf16("pä𝄞s")),
            ("ben", utf16("pä𝄞ss")),
            ("anna", vec![0x34, 0xd8]),
            ("anna", vec![1]),
            ("", vec![]),
        ] {
            assert!(!bench.users.verify(user, &password).await, "{user} {password:?}");
        }
    }

    #[tokio::test]
    async fn a_good_password_is_hashed_once_and_a_bad_one_is_never_remembered() {
        let bench = bench(&line("anna", "x"));
        let password = utf16("x");
        // The first two hash; the others find their answer when they get a place.
        let many: JoinSet<bool> = (0..50)
            .map(|_| {
                let (users, password) = (Arc::clone(&bench.users), password.clone());
                async move { users.verify("anna", &password).await }
            })
            .collect();
        let start = Instant::now();
        assert_eq!(many.join_all().await, [true; 50]);
        let all = start.elapsed();
        assert!(!bench.users.verify("anna", &utf16("y")).await);
        let one = start.elapsed() - all;
        assert!(all < one * 20, "50 clients took {all:?}, one check takes {one:?}");
        assert_eq!(bench.users.current.load().verified.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_over_and_what_was_verified_against_the_old_one_is_forgotten() {
        let bench = bench(&line("anna", "old"));
        assert!(bench.users.verify("anna", &utf16("old")).await);
        assert!(!bench.users.reload().unwrap(), "nothing changed");
        fs::write(&bench.path, line("anna", "new")).unwrap();
        assert!(bench.users.reload().unwrap());
        assert!(!bench.users.verify("anna", &utf16("old")).await);
        assert!(bench.users.verify("anna", &utf16("new")).await);
    }

    #[tokio::test]
    async fn a_bad_new_file_is_an_error_and_the_old_users_stay() {
        let bench = bench(&line("anna", "x"));
        fs::write(&bench.path, "anna without a hash").unwrap();
        let wrong = bench.users.reload().unwrap_err();
        assert!(wrong.to_string().contains("line 1"), "{wrong}");
        fs::remove_file(&bench.path).unwrap();
        assert!(matches!(bench.users.reload(), Err(UsersFileError::Unreadable { .. })));
        assert!(bench.users.verify("anna", &utf16("x")).await);
    }

    #[tokio::test]
    async fn a_user_may_name_only_the_databases_of_its_line() {
        let bench = bench(&line("anna", "x").replace('\n', ":orders,t_*\n"));
        assert!(bench.users.may_use("anna", "Orders") && bench.users.may_use("anna", "t_9"));
        assert!(!bench.users.may_use("anna", "master") && !bench.users.may_use("ben", "orders"));
    }

    #[tokio::test]
    async fn without_a_file_nobody_can_log_in() {
        let limits = CheckLimits { at_once: 0, remembered: 0, ttl: None };
        let users = UsersFile::open(None, limits, Arc::new(ProofKey::random())).unwrap();
        assert!(!users.verify("anna", &utf16("x")).await);
        assert!(!users.reload().unwrap());
    }
}
