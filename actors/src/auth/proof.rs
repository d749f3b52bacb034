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

/// HMAC-SHA-256 over name (without case) and password: knowledge of the password, not the password. Compared in
/// constant time.
#[derive(Clone, Copy)]
pub(crate) struct Proof([u8; 32]);

impl ProofKey {
    /// A new key from the thread's cryptographic generator.
    pub(crate) fn random() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// The proof of a password (UTF-16LE, as in LOGIN7) under this name.
    pub(crate) fn proof(&self, user: &str, password: &[u8]) -> Proof {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes a key of any length");
        // The length in front keeps ("ab", "c") and ("a", "bc") apart; the name's case is not part of it, so that a
        // success under one spelling replaces the proof of another.
        let folded = folded(user);
        mac.update(&(folded.len() as u64).to_le_bytes());
        mac.update(folded.as_bytes());
        mac.update(password);
        Proof(mac.finalize().into_bytes().into())
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

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_the_same_only_for_the_same_name_and_password() {
        let key = ProofKey::random();
        let anna = key.proof("anna", b"secret");
        assert_eq!(anna, key.proof("anna", b"secret"));
        assert_eq!(anna, key.proof("ANNA", b"secret"), "the spelling of a name is not part of its proof");
        for (user, password) in
            [("anna", &b"Secret"[..]), ("anna2", b"secret"), ("anna", b""), ("", b"annasecret")]
        {
            assert_ne!(anna, key.proof(user, password), "{user}");
        }
        assert_ne!(key.proof("ab", b"c"), key.proof("a", b"bc"));
    }

    #[test]
    fn a_proof_means_nothing_under_another_key() {
        let (one, other) = (ProofKey::random(), ProofKey::random());
        assert_ne!(one.proof("anna", b"secret"), other.proof("anna", b"secret"));
    }

    #[test]
    fn debug_output_shows_nothing_of_the_proof() {
        assert_eq!(format!("{:?}", ProofKey::random().proof("anna", b"secret")), "Proof(..)");
    }
}
