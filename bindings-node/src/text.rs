//! Strings and bytes between JavaScript and Rust, on the path of each event.

use std::ptr;

use napi::bindgen_prelude::{FromNapiValue, TypeName, ValidateNapiValue};
use napi::{ValueType, check_status, sys};

/// A payload from JavaScript: a string, bytes, or nothing.
pub struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: Kind,
}

/// What is known of a payload's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Valid UTF-8.
    Text,
    /// It held half of a surrogate pair, which UTF-8 has no form for.
    Broken,
    /// Anything.
    Bytes,
    /// None of these: JavaScript's codecs let nothing else through as a payload, but anything may be passed as a name.
    Odd,
}

impl TypeName for Payload {
    fn type_name() -> &'static str {
        "string or Uint8Array"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

impl ValidateNapiValue for Payload {}

impl FromNapiValue for Payload {
    #[expect(unsafe_code, reason = "the trait's own")]
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let mut kind = 0;
        // SAFETY: environment and value are the ones of the call that this is an argument of.
        check_status!(unsafe { sys::napi_typeof(env, value, &raw mut kind) })?;
        match kind {
            sys::ValueType::napi_string => {
                let mut bytes = Vec::new();
                // SAFETY: as above, and it is a string.
                let kind = unsafe { read(env, value, &mut bytes) }?;
                Ok(Self { bytes, kind })
            }
            sys::ValueType::napi_object => {
                // SAFETY: as above.
                let bytes = unsafe { <&[u8]>::from_napi_value(env, value) };
                Ok(Self {
                    kind: if bytes.is_ok() { Kind::Bytes } else { Kind::Odd },
                    bytes: bytes.map(<[u8]>::to_vec).unwrap_or_default(),
                })
            }
            sys::ValueType::napi_undefined | sys::ValueType::napi_null => Ok(Self {
                bytes: Vec::new(),
                kind: Kind::Text,
            }),
            _ => Ok(Self {
                bytes: Vec::new(),
                kind: Kind::Odd,
            }),
        }
    }
}

/// The length of a string in UTF-16 units.
///
/// # Safety
/// The value is a string of this environment.
#[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
unsafe fn units(env: sys::napi_env, value: sys::napi_value) -> napi::Result<usize> {
    let mut units = 0;
    // SAFETY: without a buffer only the length is asked for.
    check_status!(unsafe { sys::napi_get_value_string_utf16(env, value, ptr::null_mut(), 0, &raw mut units) })?;
    Ok(units)
}

/// Reads a string as UTF-8 into `bytes`, over what was there.
///
/// # Safety
/// The value is a string of this environment.
#[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
pub(crate) unsafe fn read(env: sys::napi_env, value: sys::napi_value, bytes: &mut Vec<u8>) -> napi::Result<Kind> {
    // SAFETY: the caller's promise.
    let units = unsafe { units(env, value) }?;
    bytes.clear();
    // No unit takes more than three bytes; and the zero at the end.
    bytes.reserve(units * 3 + 1);
    let mut written = 0;
    // SAFETY: that many bytes are there to be written.
    check_status!(unsafe {
        sys::napi_get_value_string_utf8(
            env,
            value,
            bytes.as_mut_ptr().cast(),
            bytes.capacity(),
            &raw mut written,
        )
    })?;
    // SAFETY: so many have been written.
    unsafe { bytes.set_len(written) };
    // Half a pair was written as U+FFFD; a string may hold that character itself.
    if written != units && has_replacement(bytes) {
        let mut wide = Vec::new();
        // SAFETY: as above.
        unsafe { read_wide(env, value, &mut wide) }?;
        if char::decode_utf16(wide).any(|unit| unit.is_err()) {
            return Ok(Kind::Broken);
        }
    }
    Ok(Kind::Text)
}

fn has_replacement(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|three| three == "\u{FFFD}".as_bytes())
}

/// Reads a string's UTF-16 units.
///
/// # Safety
/// The value is a string of this environment.
#[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
pub(crate) unsafe fn read_wide(env: sys::napi_env, value: sys::napi_value, wide: &mut Vec<u16>) -> napi::Result<()> {
    // SAFETY: the caller's promise.
    let units = unsafe { units(env, value) }?;
    wide.clear();
    wide.reserve(units + 1);
    let mut written = 0;
    // SAFETY: that many units are there to be written.
    check_status!(unsafe {
        sys::napi_get_value_string_utf16(env, value, wide.as_mut_ptr(), wide.capacity(), &raw mut written)
    })?;
    // SAFETY: so many have been written.
    unsafe { wide.set_len(written) };
    Ok(())
}

/// A JavaScript string of valid UTF-8.
///
/// # Safety
/// The environment is that of the running call.
#[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
pub(crate) unsafe fn write(env: sys::napi_env, text: &[u8]) -> napi::Result<sys::napi_value> {
    let mut value = ptr::null_mut();
    let len = text.len().cast_signed();
    // SAFETY: the text lives until the call returns, which copies it. ASCII is Latin-1, which is made faster.
    check_status!(unsafe {
        if text.is_ascii() {
            sys::napi_create_string_latin1(env, text.as_ptr().cast(), len, &raw mut value)
        } else {
            sys::napi_create_string_utf8(env, text.as_ptr().cast(), len, &raw mut value)
        }
    })?;
    Ok(value)
}

/// A `Buffer` with a copy of the bytes.
///
/// # Safety
/// The environment is that of the running call.
#[expect(unsafe_code, reason = "the Node API as it is")]
pub(crate) unsafe fn write_buffer(env: sys::napi_env, bytes: &[u8]) -> napi::Result<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: the bytes live until the call returns, which copies them.
    check_status!(unsafe {
        sys::napi_create_buffer_copy(env, bytes.len(), bytes.as_ptr().cast(), ptr::null_mut(), &raw mut value)
    })?;
    Ok(value)
}
