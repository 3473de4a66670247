//! Writes JSON into a byte vector: the primitives, and an object writer that leaves zero values out.

use super::Json;

/// Appends `raw`, a JSON text, without its raw newlines: those can stand only between tokens, and would end the message.
#[inline]
pub fn append_raw(out: &mut Vec<u8>, raw: &[u8]) {
    if memchr::memchr(b'\n', raw).is_none() {
        out.extend_from_slice(raw);
    } else {
        raw.split(|byte| *byte == b'\n').for_each(|line| out.extend_from_slice(line));
    }
}

/// Appends a decimal number.
#[inline]
pub fn append_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `text` as a JSON string, quotes included. Escapes what JSON demands and nothing else.
pub fn append_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in bytes.iter().copied().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let escape = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&escape);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// An object under construction. Zero values are omitted unless the method says `always`.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// Writes one object: opens it, runs `fields`, closes it.
pub(super) fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    let mut object = Object { out, empty: true };
    fields(&mut object);
    object.out.push(b'}');
}

impl Object<'_> {
    /// Writes the separator and the key, and hands out the vector for the value. Keys of ours need no escapes.
    pub(super) fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn separate(&mut self) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text_always(name, value);
        }
    }

    pub(super) fn text_always(&mut self, name: &'static str, value: &str) {
        append_string(self.key(name), value);
    }

    pub(super) fn uint(&mut self, name: &'static str, value: u64) {
        if value != 0 {
            self.uint_always(name, value);
        }
    }

    pub(super) fn uint_always(&mut self, name: &'static str, value: u64) {
        append_u64(self.key(name), value);
    }

    pub(super) fn int(&mut self, name: &'static str, value: i64) {
        if value != 0 {
            let out = self.key(name);
            if value < 0 {
                out.push(b'-');
            }
            append_u64(out, value.unsigned_abs());
        }
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        if value {
            self.key(name).extend_from_slice(b"true");
        }
    }

    pub(super) fn raw(&mut self, name: &'static str, value: Option<Json<'_>>) {
        if let Some(value) = value {
            append_raw(self.key(name), value.as_str().as_bytes());
        }
    }

    pub(super) fn object(&mut self, name: &'static str, fields: impl FnOnce(&mut Object<'_>)) {
        object(self.key(name), fields);
    }

    /// A map with keys of the application's; always written, so that the caller decides about empty ones.
    pub(super) fn map<K: AsRef<str>, V>(
        &mut self,
        name: &'static str,
        pairs: &[(K, V)],
        mut write: impl FnMut(&mut Vec<u8>, &V),
    ) {
        object(self.key(name), |map| {
            for (key, value) in pairs {
                map.separate();
                append_string(map.out, key.as_ref());
                map.out.push(b':');
                write(map.out, value);
            }
        });
    }

    /// A list; always written, so that the caller decides about empty ones.
    pub(super) fn list<V>(
        &mut self,
        name: &'static str,
        values: &[V],
        mut write: impl FnMut(&mut Vec<u8>, &V),
    ) {
        let out = self.key(name);
        out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(out, value);
        }
        out.push(b']');
    }
}
