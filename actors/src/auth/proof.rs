//! What stands in for a password after it was checked: a keyed hash that means nothing outside this process.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The key of all proofs: random, made at start, never shown. Proofs of two processes cannot be compared.
pub(crate) struct ProofKey(Zeroizing<[u8; 32]>);

/// A login name together with the proof of a password: who somebody claims to be, and by what right.
///
/// Equal only for the same name, letter by letter, and the same password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Principal {
    user: Arc<str>,
    proof: Proof,
}

/// HMAC-SHA-256 over name (without case) and password. Compared in constant time.
#[derive(Clone, Copy)]
pub(super) struct Proof([u8; 32]);

impl ProofKey {
    /// A new key from the thread's cryptographic generator.
    pub(crate) fn random() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// The principal of this name and password; `password` in whatever bytes the caller always uses for it.
    pub(crate) fn principal(&self, user: &str, password: &[u8]) -> Principal {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes a key of any length");
        // The length in front keeps ("ab", "c") and ("a", "bc") apart; the name's case is not part of it, so that a
        // success under one spelling replaces the proof of another.
        let folded = folded(user);
        mac.update(&(folded.len() as u64).to_le_bytes());
        mac.update(folded.as_bytes());
        mac.update(password);
        Principal { user: user.into(), proof: Proof(mac.finalize().into_bytes().into()) }
    }
}

impl Principal {
    /// The name as the client wrote it.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn proof(&self) -> Proof {
        self.proof
    }
}

/// A name without its case: most servers compare login names so, and forgetting too much is harmless.
pub(super) fn folded(user: &str) -> Arc<str> {
    user.chars().flat_map(char::to_lowercase).collect::<String>().into()
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Proof {}

impl Hash for Proof {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Already uniform, and unknown to whoever chose the password.
        state.write(&self.0[..8]);
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.user)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_the_same_only_with_the_same_name_and_password() {
        let key = ProofKey::random();
        let anna = key.principal("anna", b"secret");
        assert_eq!(anna, key.principal("anna", b"secret"));
        for (user, password) in [("anna", b"Secret"), ("Anna", b"secret"), ("anna2", b"secret")] {
            assert_ne!(anna, key.principal(user, password), "{user}");
        }
        assert_ne!(key.principal("ab", b"c"), key.principal("a", b"bc"));
        assert_ne!(key.principal("ab", b"c").proof(), key.principal("a", b"bc").proof());
    }

    #[test]
    fn a_proof_means_nothing_under_another_key() {
        let (one, other) = (ProofKey::random(), ProofKey::random());
        assert_ne!(one.principal("anna", b"secret"), other.principal("anna", b"secret"));
    }

    #[test]
    fn the_spelling_of_a_name_is_not_part_of_its_proof() {
        let key = ProofKey::random();
        assert_eq!(key.principal("ANNA", b"x").proof(), key.principal("anna", b"x").proof());
    }

    #[test]
    fn debug_output_shows_the_name_and_nothing_of_the_proof() {
        let principal = ProofKey::random().principal("anna", b"secret");
        assert_eq!(format!("{principal:?}"), "Principal(anna)");
        assert_eq!(format!("{:?}", principal.proof()), "Proof(..)");
    }
}
