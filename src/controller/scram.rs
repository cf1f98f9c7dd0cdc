//! SCRAM credentials (KIP-554): from what a client sends, the salted password, only the keys that follow from it are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
    },
    protocol::StrBytes,
};
use sha2::{Digest, Sha256, Sha512};

use super::{ApiError, Controller, repeated};
use crate::{
    base::ErrorCode,
    protocol::{
        metadata_records::{MetadataRecord, ScramCredential},
        primitives::STRING_BYTES_MAX,
    },
};

/// `ScramMechanism` of the wire.
const SHA_256: i8 = 1;
const SHA_512: i8 = 2;
/// Kafka's bounds of both.
const ITERATIONS: std::ops::RangeInclusive<i32> = 4096..=16_384;
/// A salt is some twenty bytes; the metadata is no place for more.
const SALT_BYTES_MAX: usize = 4096;

impl Controller {
    /// AlterUserScramCredentials, version 0: one change of each user, done or refused by itself.
    pub fn alter_user_scram_credentials(
        &mut self,
        request: &AlterUserScramCredentialsRequest,
    ) -> (Vec<MetadataRecord>, AlterUserScramCredentialsResponse) {
        let deleted = request.deletions.iter().map(|deletion| &deletion.name);
        let users = deleted.chain(request.upsertions.iter().map(|upsertion| &upsertion.name));
        let twice = repeated(users.map(StrBytes::as_str));
        let deletions = request.deletions.iter().map(|deletion| (&deletion.name, self.scram_deletion(deletion)));
        let upsertions = request.upsertions.iter().map(|upsertion| (&upsertion.name, scram_upsertion(upsertion)));
        let (mut records, mut results) = (Vec::new(), BTreeMap::new());
        for (user, decided) in deletions.chain(upsertions) {
            let why = if twice.contains(&user.as_str()) {
                let why = "A user credential cannot be altered twice in the same request";
                Some(ApiError::new(ErrorCode::DuplicateResource, why))
            } else {
                decided.map(|record| records.push(record)).err()
            };
            let result = AlterUserScramCredentialsResult::default().with_user(user.clone()).with_error_message(None);
            let result = match why {
                None => result,
                Some(why) => result.with_error_code(why.code.code()).with_error_message(why.message()),
            };
            results.insert(user.clone(), result);
        }
        self.apply(&records);
        let results = results.into_values().collect();
        (records, AlterUserScramCredentialsResponse::default().with_results(results))
    }

    fn scram_deletion(&self, deletion: &ScramCredentialDeletion) -> Result<MetadataRecord, ApiError> {
        check_user(&deletion.name)?;
        check_mechanism(deletion.mechanism)?;
        let user = (deletion.name.to_string(), deletion.mechanism);
        if self.image.scram_credential(&user).is_none() {
            let why = "Attempt to delete a user credential that does not exist";
            return Err(ApiError::new(ErrorCode::ResourceNotFound, why));
        }
        Ok(MetadataRecord::RemoveScramCredential(user))
    }
}

fn scram_upsertion(upsertion: &ScramCredentialUpsertion) -> Result<MetadataRecord, ApiError> {
    let unacceptable = |why: &str| Err(ApiError::new(ErrorCode::UnacceptableCredential, why));
    check_user(&upsertion.name)?;
    check_mechanism(upsertion.mechanism)?;
    if upsertion.iterations < *ITERATIONS.start() {
        return unacceptable("Too few iterations");
    }
    if upsertion.iterations > *ITERATIONS.end() {
        return unacceptable("Too many iterations");
    }
    if upsertion.salt.len() > SALT_BYTES_MAX {
        return unacceptable("Too long a salt");
    }
    let keys = if upsertion.mechanism == SHA_256 { keys::<Sha256> } else { keys::<Sha512> };
    let (stored_key, server_key) = keys(&upsertion.salted_password);
    // Copied: a slice would keep the request's whole frame.
    let salt = Bytes::copy_from_slice(&upsertion.salt);
    let credential = ScramCredential { salt, stored_key, server_key, iterations: upsertion.iterations };
    Ok(MetadataRecord::ScramCredential((upsertion.name.to_string(), upsertion.mechanism), credential))
}

fn check_user(name: &str) -> Result<(), ApiError> {
    let why = match name.len() {
        0 => "Username must not be empty",
        1..=STRING_BYTES_MAX => return Ok(()),
        _ => "Username must not be so long",
    };
    Err(ApiError::new(ErrorCode::UnacceptableCredential, why))
}

fn check_mechanism(mechanism: i8) -> Result<(), ApiError> {
    if [SHA_256, SHA_512].contains(&mechanism) {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism"))
}

/// The stored key and the server key of a salted password (RFC 5802).
fn keys<Hash: Digest>(salted_password: &[u8]) -> (Bytes, Bytes) {
    let client_key = hmac::<Hash>(salted_password, b"Client Key");
    let stored_key = Hash::digest(&client_key);
    (Bytes::copy_from_slice(&stored_key), hmac::<Hash>(salted_password, b"Server Key").into())
}

/// HMAC (RFC 2104). The blocks of both hashes are four times as long as SHA-256's sum, and twice as long as SHA-512's.
fn hmac<Hash: Digest>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let output = <Hash as Digest>::output_size();
    let block = if output <= 32 { 64 } else { 128 };
    let mut padded = if key.len() > block { Hash::digest(key).to_vec() } else { key.to_vec() };
    padded.resize(block, 0);
    let pad = |with: u8| padded.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Hash::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Hash::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{controller, replays};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 4231's cases 2 and 6: a short key, and one longer than both blocks.
    #[test]
    fn hmac_is_the_standard_s() {
        let (key, message) = (b"Jefe", b"what do ya want for nothing?");
        assert_eq!(
            hex(&hmac::<Sha256>(key, message)),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(
            hex(&hmac::<Sha512>(key, message)).starts_with("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7")
        );
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(&hmac::<Sha256>(&[0xaa; 131], message)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    /// One change as `set user mechanism iterations` or `delete user mechanism`; the answers are Apache Kafka 4.3.1's.
    fn check(controller: &mut Controller, changes: &[&str], expected: &str) {
        let mut request = AlterUserScramCredentialsRequest::default();
        for change in changes {
            let words: Vec<&str> = change.split(' ').collect();
            let (name, mechanism) = (StrBytes::from_string(words[1].to_owned()), words[2].parse().expect("a number"));
            match words[0] {
                "set" => request.upsertions.push(
                    ScramCredentialUpsertion::default()
                        .with_name(name)
                        .with_mechanism(mechanism)
                        .with_iterations(words[3].parse().expect("a number"))
                        .with_salt(Bytes::from_static(b"salt"))
                        .with_salted_password(Bytes::from_static(b"a salted password")),
                ),
                _ => {
                    request.deletions.push(ScramCredentialDeletion::default().with_name(name).with_mechanism(mechanism))
                }
            }
        }
        let before = controller.image().clone();
        let (records, answer) = controller.alter_user_scram_credentials(&request);
        replays(&before, &records, controller);
        let results = answer.results.iter();
        let results = results.map(|result| format!("{}:{}", result.user.as_str(), result.error_code));
        assert_eq!(results.collect::<Vec<_>>().join(" "), expected, "{changes:?}");
    }

    #[test]
    fn credentials_are_set_and_deleted_and_tell_no_secret() {
        let mut c = controller("");
        check(&mut c, &["delete u 1"], "u:91");
        check(&mut c, &["set u 1 4096", "set v 2 16384"], "u:0 v:0");
        check(&mut c, &["set u 1 4095", "set v 1 16385", "set w 3 4096", "set  1 4096"], ":93 u:93 v:93 w:33");
        check(&mut c, &["set u 1 4096", "set u 2 4096", "set w 1 4096"], "u:92 w:0");
        check(&mut c, &["set u 1 4096", "delete u 1"], "u:92");
        let user = ("u".to_owned(), 1);
        let credential = c.image().scram_credential(&user).expect("it was set");
        assert!(![&credential.stored_key, &credential.server_key].iter().any(|key| key.starts_with(b"a salted")));
        assert_eq!(format!("{credential:?}"), "ScramCredential { iterations: 4096, .. }");
        check(&mut c, &["delete u 1"], "u:0");
        assert!(c.image().scram_credential(&user).is_none());
    }
}
