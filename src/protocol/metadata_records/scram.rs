//! SCRAM credentials of users (KIP-554).

use std::fmt;

use bytes::Bytes;

use super::{DecodeError, Reader, Writer, unknown};

/// `UserScramCredentialRecord`: what a broker needs to check a user's password, and the password does not follow from.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// What the password was salted with.
    pub salt: Bytes,
    /// H(client key), against which what a client proves is held.
    pub stored_key: Bytes,
    /// What the broker proves itself with.
    pub server_key: Bytes,
    /// How many times the password was hashed.
    pub iterations: i32,
}

impl fmt::Debug for ScramCredential {
    /// Without what would let others pass for the broker, or guess the password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Whose credential it is: the user, and `ScramMechanism`'s number.
pub type ScramUser = (String, i8);

pub(super) const VERSION: u32 = 0;

pub(super) fn write(out: &mut Writer, (user, mechanism): &ScramUser, credential: &ScramCredential) {
    out.compact_string(user);
    out.i8(*mechanism);
    out.compact_nullable_bytes(Some(&credential.salt));
    out.compact_nullable_bytes(Some(&credential.stored_key));
    out.compact_nullable_bytes(Some(&credential.server_key));
    out.i32(credential.iterations);
    out.no_tagged_fields();
}

pub(super) fn write_removal(out: &mut Writer, (user, mechanism): &ScramUser) {
    out.compact_string(user);
    out.i8(*mechanism);
    out.no_tagged_fields();
}

pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<(ScramUser, ScramCredential), DecodeError> {
    let user = read_user(version, reader)?;
    let mut bytes = || Ok::<_, DecodeError>(Bytes::copy_from_slice(reader.compact_bytes()?));
    let (salt, stored_key, server_key) = (bytes()?, bytes()?, bytes()?);
    let iterations = reader.i32()?;
    reader.skip_tagged_fields()?;
    Ok((user, ScramCredential { salt, stored_key, server_key, iterations }))
}

pub(super) fn read_removal(version: u32, reader: &mut Reader<'_>) -> Result<ScramUser, DecodeError> {
    let user = read_user(version, reader)?;
    reader.skip_tagged_fields()?;
    Ok(user)
}

fn read_user(version: u32, reader: &mut Reader<'_>) -> Result<ScramUser, DecodeError> {
    if version > VERSION {
        return Err(unknown(version));
    }
    Ok((reader.compact_string()?.to_owned(), reader.i8()?))
}
