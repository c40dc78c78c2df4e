//! Values ⇄ bytes: bincode 2 with varints, always with a limit.
//!
//! Without a limit twenty hostile bytes can claim a length that allocates gigabytes, so nothing else may call bincode.

use bincode::{BorrowDecode, Decode, Encode, config};

/// The most bytes one decoded value may take: the largest stream frame.
pub const DECODE_MAX: usize = 16 * 1024 * 1024;

/// Why bytes are not the value that was expected. Their sender wrote them.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// They do not decode.
    #[error("malformed: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Something follows the value.
    #[error("malformed: {0} bytes follow the value")]
    Trailing(usize),
}

/// Encodes a value.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).expect("writing to memory cannot fail")
}

/// Encodes a value at the end of `buffer`.
pub fn encode_into<T: Encode>(value: &T, buffer: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, buffer, config::standard())
        .expect("writing to memory cannot fail");
}

/// Decodes a value that takes all of `bytes`, at most [`DECODE_MAX`].
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    if used < bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - used));
    }
    Ok(value)
}

/// Decodes a value from the beginning of `bytes` and says how many it took.
pub fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    Ok(bincode::decode_from_slice(
        bytes,
        config::standard().with_limit::<DECODE_MAX>(),
    )?)
}

/// Decodes a value that borrows from `bytes`, and says how many bytes it took.
pub fn decode_borrowed<'a, T: BorrowDecode<'a, ()>>(
    bytes: &'a [u8],
) -> Result<(T, usize), CodecError> {
    Ok(bincode::borrow_decode_from_slice(
        bytes,
        config::standard().with_limit::<DECODE_MAX>(),
    )?)
}
