//! Idempotency keys: what lets the other side see that a request is one that it already had.

use std::fmt;

use uuid::Uuid;

/// The namespace of the wire form, itself a version 5 UUID of `holdfast.dev` in the DNS namespace.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"holdfast.dev")
}

/// The key of an activity: `<uid>/<step path>/<do|undo>/<epoch>`.
///
/// Retries and takeovers reuse it; only a new epoch gives another. `Display` gives the wire form, a UUID, as other sides
/// limit keys to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    path: String,
    epoch: i64,
}

impl IdempotencyKey {
    /// The key of what step `step` of the operation with this uid does in this epoch.
    pub fn new(operation_uid: &str, step: &str, epoch: i64) -> Self {
        // `deploy:undo[3]` is how item 3 of `deploy` is undone.
        let what = if step.contains(":undo") { "undo" } else { "do" };
        let step = step.replacen(":undo", "", 1);
        Self {
            path: format!("{operation_uid}/{step}/{what}/{epoch}"),
            epoch,
        }
    }

    /// What it is made of: `<uid>/<step path>/<do|undo>/<epoch>`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The epoch in it.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// A name for an object that an attempt creates: the same for every attempt until one failed definitely, then
    /// another. `prefix` is for the reader, as far as a name can have it; the hash makes it unique. At most 63 characters, the limit of a label.
    pub fn object_name(&self, prefix: &str, failures: i64) -> String {
        let hash = Uuid::new_v5(&namespace(), format!("{}#{failures}", self.path).as_bytes())
            .simple()
            .to_string();
        let allowed = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let readable: String = prefix.chars().map(allowed).take(63 - 1 - 16).collect();
        format!("{}-{}", readable.trim_end_matches('-'), &hash[..16])
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::new_v5(&namespace(), self.path.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_share_a_key_and_another_epoch_gets_another() {
        let key = IdempotencyKey::new("u1", "resize", 0);
        assert_eq!(key.to_string(), IdempotencyKey::new("u1", "resize", 0).to_string());
        assert_ne!(key.to_string(), IdempotencyKey::new("u1", "resize", 1).to_string());
        assert_ne!(key.to_string(), IdempotencyKey::new("u2", "resize", 0).to_string());
    }

    #[test]
    fn a_name_changes_with_definite_failures_alone_and_fits_a_label() {
        let key = IdempotencyKey::new("u1", "resize", 0);
        let long = "a-very-long-operation-name-that-goes-on-and-on-and-on-and-on-and-on";
        assert_eq!(key.object_name("op-resize", 0), key.object_name("op-resize", 0));
        assert_ne!(key.object_name("op-resize", 0), key.object_name("op-resize", 1));
        assert!(key.object_name(long, 0).len() <= 63);
        let item = key.object_name("op-Region[1]/deploy:undo", 0);
        assert!(item.starts_with("op-region-1--deploy-undo-"), "{item}");
    }
}
