//! RESP3, the protocol of Redis: commands out, values in. Sans I/O.
//!
//! [`take`] cuts one complete value off the front of a buffer. Bulk strings are slices of that buffer, not copies.
//! Everything that arrives is checked: sizes and nesting have limits, and bytes that are no RESP are an error of kind
//! `Corrupt`, never a panic.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

/// Longest string that is accepted, in bytes: far above [`crate::envelope::RECORD_BYTES_MAX`], far below the heap.
const STRING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most elements of one array, map or push.
const ELEMENTS_MAX: usize = 1024 * 1024;
/// Deepest nesting. `CLUSTER SLOTS`, the deepest reply asked for, has 4.
const DEPTH_MAX: usize = 8;

/// What Redis sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string of any kind: bulk, simple, verbatim, and also doubles and big numbers in their text form.
    Text(Bytes),
    /// An error reply. The first word is its code.
    Error(Bytes),
    /// An integer, or a boolean as 0 or 1.
    Integer(i64),
    /// Nothing.
    Null,
    /// An array or set; a map as its keys and values in turn.
    Array(Vec<Value>),
    /// Out of band: a published message, a confirmed subscription.
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a string.
    pub fn text(&self) -> Option<&Bytes> {
        match self {
            Self::Text(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Appends a command to `out`.
pub fn put_command(out: &mut BytesMut, arguments: &[&[u8]]) {
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 16).sum();
    out.reserve(bytes + 16);
    put_header(out, b'*', arguments.len());
    for argument in arguments {
        put_argument(out, argument);
    }
}

/// Starts a command of `count` arguments, each to follow with [`put_argument`].
pub fn put_command_header(out: &mut BytesMut, count: usize) {
    put_header(out, b'*', count);
}

/// Appends one argument.
pub fn put_argument(out: &mut BytesMut, argument: &[u8]) {
    put_header(out, b'$', argument.len());
    out.put_slice(argument);
    out.put_slice(b"\r\n");
}

fn put_header(out: &mut BytesMut, mark: u8, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(mark);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Cuts the first value off `buffer`, or returns `None` and leaves it alone while the value is incomplete.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Value>> {
    let Some(length) = measure(buffer, 0)? else { return Ok(None) };
    let mut frame = buffer.split_to(length).freeze();
    build(&mut frame).map(Some)
}

/// Length in bytes of the value at the front of `bytes`, if it is complete.
fn measure(bytes: &[u8], depth: usize) -> Result<Option<usize>> {
    if depth > DEPTH_MAX {
        return Err(corrupt("nests too deeply"));
    }
    let Some(line) = line_length(bytes)? else { return Ok(None) };
    let mark = bytes[0];
    let (header, after) = (&bytes[1..line], line + 2);
    match mark {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok(Some(after)),
        b'$' | b'=' | b'!' => {
            let Some(length) = size(header, STRING_BYTES_MAX)? else { return Ok(Some(after)) };
            Ok((bytes.len() >= after + length + 2).then_some(after + length + 2))
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Some(count) = elements(mark, header)? else { return Ok(Some(after)) };
            let mut end = after;
            for _ in 0..count {
                let Some(length) = measure(&bytes[end..], depth + 1)? else { return Ok(None) };
                end += length;
            }
            Ok(Some(end))
        }
        _ => Err(corrupt("has an unknown type")),
    }
}

/// Builds the value out of a frame that [`measure`] found complete.
fn build(frame: &mut Bytes) -> Result<Value> {
    let line = line_length(frame)?.ok_or_else(|| corrupt("is cut short"))?;
    let mark = frame[0];
    let header = frame.slice(1..line);
    frame.advance(line + 2);
    Ok(match mark {
        b'+' | b',' | b'(' => Value::Text(header),
        b'-' => Value::Error(header),
        b':' => Value::Integer(integer(&header)?),
        b'#' => Value::Integer(i64::from(&header[..] == b"t")),
        b'_' => Value::Null,
        b'$' | b'=' | b'!' => {
            let Some(length) = size(&header, STRING_BYTES_MAX)? else { return Ok(Value::Null) };
            let mut text = frame.split_to(length);
            if &frame[..2] != b"\r\n" {
                return Err(corrupt("has a string without an end"));
            }
            frame.advance(2);
            match mark {
                b'!' => Value::Error(text),
                // A verbatim string starts with its three-letter format and a colon.
                b'=' if text.len() >= 4 => Value::Text(text.split_off(4)),
                _ => Value::Text(text),
            }
        }
        _ => {
            let Some(count) = elements(mark, &header)? else { return Ok(Value::Null) };
            let values = (0..count).map(|_| build(frame)).collect::<Result<Vec<_>>>()?;
            if mark == b'>' { Value::Push(values) } else { Value::Array(values) }
        }
    })
}

/// Where the first line's `\r\n` starts.
fn line_length(bytes: &[u8]) -> Result<Option<usize>> {
    const LINE_BYTES_MAX: usize = 64 * 1024;
    match bytes.iter().position(|byte| *byte == b'\r') {
        Some(0) => Err(corrupt("is an empty line")),
        Some(at) if bytes.len() == at + 1 => Ok(None),
        Some(at) if bytes[at + 1] == b'\n' => Ok(Some(at)),
        Some(_) => Err(corrupt("has a line without an end")),
        None if bytes.len() > LINE_BYTES_MAX => Err(corrupt("has a line without an end")),
        None => Ok(None),
    }
}

/// Number of values that follow the header of an aggregate; `None` for RESP2's null array.
fn elements(mark: u8, header: &[u8]) -> Result<Option<usize>> {
    let count = size(header, ELEMENTS_MAX)?;
    Ok(count.map(|count| if mark == b'%' { count * 2 } else { count }))
}

/// A length or count up to `max`; `None` for RESP2's `-1`.
fn size(header: &[u8], max: usize) -> Result<Option<usize>> {
    match integer(header)? {
        -1 => Ok(None),
        number => match usize::try_from(number) {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err(corrupt("has a length out of bounds")),
        },
    }
}

fn integer(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| corrupt("has a number that is none"))
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "decode", format!("a reply of Redis {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take_all(bytes: &[u8]) -> Vec<Value> {
        let mut buffer = BytesMut::from(bytes);
        let mut values = Vec::new();
        while let Some(value) = take(&mut buffer).unwrap() {
            values.push(value);
        }
        assert!(buffer.is_empty());
        values
    }

    #[test]
    fn every_type_is_read() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            take_all(
                b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n_\r\n#t\r\n,1.5\r\n=5\r\ntxt:x\r\n!3\r\nBAD\r\n"
            ),
            [
                text("OK"),
                Value::Error(Bytes::from_static(b"ERR no")),
                Value::Integer(-7),
                text("a\r\n"),
                Value::Null,
                Value::Null,
                Value::Integer(1),
                text("1.5"),
                text("x"),
                Value::Error(Bytes::from_static(b"BAD")),
            ]
        );
        assert_eq!(
            take_all(b">2\r\n$1\r\na\r\n:1\r\n%1\r\n+k\r\n*2\r\n:1\r\n*0\r\n*-1\r\n"),
            [
                Value::Push(vec![text("a"), Value::Integer(1)]),
                Value::Array(vec![
                    text("k"),
                    Value::Array(vec![Value::Integer(1), Value::Array(Vec::new())])
                ]),
                Value::Null,
            ]
        );
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = BytesMut::new();
        put_command(&mut out, &[b"SET", b"", b"0123456789"]);
        assert_eq!(&out[..], b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\n0123456789\r\n");
    }

    #[test]
    fn limits_hold() {
        for bytes in [&b"$16777217\r\n"[..], b"*1048577\r\n", b"$-2\r\n", b"\r\n", b"?\r\n", b"+a\rb"] {
            assert!(take(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 2);
        assert!(take(&mut BytesMut::from(&deep[..])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"$*>%+-:\r\n0123456789"[..])], 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
        }

        #[test]
        fn a_command_reads_back_as_an_array_however_it_is_cut(
            arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5), cut: usize,
        ) {
            let mut out = BytesMut::new();
            put_command(&mut out, &arguments.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut rest = out.split_off(cut % out.len());
            prop_assert_eq!(take(&mut out).unwrap(), None);
            out.unsplit(rest.split());
            let expected = Value::Array(arguments.into_iter().map(|bytes| Value::Text(bytes.into())).collect());
            prop_assert_eq!(take(&mut out).unwrap(), Some(expected));
        }
    }
}
