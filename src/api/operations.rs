//! What a client may do: everything, as long as there is no authorizer. Bit n stands for operation n of Kafka's ACLs.

/// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub(super) const CLUSTER: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const GROUP: i32 = bits(&[3, 6, 8, 10, 11]);
/// Nobody asked.
pub(super) const UNASKED: i32 = i32::MIN;

const fn bits(operations: &[u8]) -> i32 {
    let mut mask = 0;
    let mut index = 0;
    while index < operations.len() {
        mask |= 1 << operations[index];
        index += 1;
    }
    mask
}

/// The mask, if it was asked for.
pub(super) const fn if_asked(asked: bool, mask: i32) -> i32 {
    if asked { mask } else { UNASKED }
}
