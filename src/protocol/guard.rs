//! Looks a request through before the codec decodes it.
//!
//! The codec reserves memory for as many elements as an array's length on the wire claims: twelve forged bytes of a Produce
//! request ask it for 206 GB and abort the process. So every request is first walked by its shape: each array's length
//! must fit into what is left of the frame, and so must each text, blob and tagged field. What passes, the codec decodes
//! with memory of a small multiple of the frame.

pub mod shapes;

use std::ops::Range;

use self::shapes::{Field, Kind, Shape};
use crate::protocol::versions::Api;

/// The largest number of array elements and tagged fields in one request, all levels together. With at most
/// [`ELEMENT_BYTES_MAX`] of decoded memory each it bounds what a frame of any size can make the codec ask for.
pub const ELEMENTS_MAX: usize = 1 << 18;

/// More memory than one decoded element takes by itself, apart from what it shares with the frame.
pub const ELEMENT_BYTES_MAX: usize = 192;

/// Why a request is not what its key and version say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field passes the end of the frame.
    #[error("it ends early")]
    Truncated,
    /// A length is below its minimum, or null where null is not allowed.
    #[error("bad length")]
    Length,
    /// An array claims more elements than the rest of the frame can hold.
    #[error("an array longer than the frame")]
    Count,
    /// More than [`ELEMENTS_MAX`] elements.
    #[error("too many elements")]
    TooMany,
    /// A variable-length number with more than 32 bits.
    #[error("bad variable-length number")]
    Varint,
    /// A tagged field whose size is not its content's, or a tag that this version does not have.
    #[error("bad tagged field")]
    Tag,
    /// Text is not UTF-8.
    #[error("text is not utf-8")]
    Utf8,
}

/// Walks the body of a request. Returns how many bytes it takes; bytes after it are ignored, as Kafka ignores them.
/// # Errors  What is wrong; the codec must not see such a body.
pub fn check(api: &Api, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { bytes: body, position: 0, version, flexible: api.is_flexible(version), elements: 0 };
    walk.shape(api.shape)?;
    Ok(walk.position)
}

/// Walks what follows the fixed part of a request's head: the client id's range, if it has one, and where the body starts.
pub(super) fn head(rest: &[u8], flexible: bool) -> Result<(Option<Range<usize>>, usize), Malformed> {
    let mut walk = Walk { bytes: rest, position: 0, version: 0, flexible: false, elements: 0 };
    // The client id keeps its two-byte length in flexible heads too.
    let bytes = walk.length(2)?;
    let client_id = bytes.map(|bytes| walk.position..walk.position + bytes);
    walk.skip(bytes.unwrap_or(0))?;
    if flexible {
        walk.tags(&[])?;
    }
    Ok((client_id, walk.position))
}

struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        if bytes > self.remaining() {
            return Err(Malformed::Truncated);
        }
        self.position += bytes;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.position).ok_or(Malformed::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            if shift == 28 && byte > 0x0f {
                return Err(Malformed::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// A length in front of a text (`width` 2), a blob or an array (4); `None` for null.
    fn length(&mut self, width: usize) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        let at = self.position;
        self.skip(width)?;
        let value = match width {
            2 => i32::from(i16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])),
            _ => i32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]),
        };
        match value {
            -1 => Ok(None),
            _ => usize::try_from(value).map(Some).map_err(|_| Malformed::Length),
        }
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), Malformed> {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.field(field)?;
        }
        if self.flexible {
            self.tags(shape.tags)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<(), Malformed> {
        let null_allowed = field.null_from.is_some_and(|from| self.version >= from);
        self.kind(&field.kind, null_allowed)
    }

    fn kind(&mut self, kind: &Kind, null_allowed: bool) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text | Kind::Blob => {
                let width = if matches!(kind, Kind::Text) { 2 } else { 4 };
                match self.length(width)? {
                    Some(bytes) => self.skip(bytes),
                    None if null_allowed => Ok(()),
                    None => Err(Malformed::Length),
                }
            }
            Kind::List(element) => match self.length(4)? {
                Some(count) => self.elements(count, element),
                None if null_allowed => Ok(()),
                None => Err(Malformed::Length),
            },
            Kind::Node(shape) => self.shape(shape),
            Kind::Maybe(shape) => match self.byte()? as i8 {
                -1 => Ok(()),
                1 => self.shape(shape),
                _ => Err(Malformed::Length),
            },
        }
    }

    fn elements(&mut self, count: usize, element: &Kind) -> Result<(), Malformed> {
        // Every element takes at least one byte, so this also bounds the loop below by the frame.
        let smallest = smallest(element, self.version, self.flexible).max(1);
        if count > self.remaining() / smallest {
            return Err(Malformed::Count);
        }
        self.count(count)?;
        if let Kind::Fixed(bytes) = element {
            return self.skip(count * bytes);
        }
        for _ in 0..count {
            self.kind(element, false)?;
        }
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements += count;
        if self.elements > ELEMENTS_MAX {
            return Err(Malformed::TooMany);
        }
        Ok(())
    }

    /// The tagged fields at the end of a structure. Known ones must fill their size exactly; the codec would not look at it.
    fn tags(&mut self, known: &[(u32, Field)]) -> Result<(), Malformed> {
        let count = self.uvarint()? as usize;
        if count > self.remaining() / 2 {
            return Err(Malformed::Count);
        }
        self.count(count)?;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let bytes = self.uvarint()? as usize;
            let end = self.position.checked_add(bytes).filter(|end| *end <= self.bytes.len());
            let end = end.ok_or(Malformed::Truncated)?;
            match known.iter().find(|(number, _)| *number == tag) {
                None => self.position = end,
                Some((_, field)) if field.exists_in(self.version) => {
                    self.field(field)?;
                    if self.position != end {
                        return Err(Malformed::Tag);
                    }
                }
                Some(_) => return Err(Malformed::Tag),
            }
        }
        Ok(())
    }
}

/// The fewest bytes that something of this kind takes on the wire.
fn smallest(kind: &Kind, version: i16, flexible: bool) -> usize {
    match kind {
        Kind::Fixed(bytes) => *bytes,
        Kind::Text => {
            if flexible {
                1
            } else {
                2
            }
        }
        Kind::Blob | Kind::List(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Kind::Maybe(_) => 1,
        Kind::Node(shape) => {
            let fields = shape.fields.iter().filter(|field| field.exists_in(version));
            fields.map(|field| smallest(&field.kind, version, flexible)).sum::<usize>() + usize::from(flexible)
        }
    }
}
