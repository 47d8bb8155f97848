//! The core's errors as `EtpError`s, exceptions of JavaScript as causes of the core's errors, and panics as neither.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use etp_ws::{Error, ErrorKind};
use napi::bindgen_prelude::{FnArgs, FunctionRef, JsValue, Object, Unknown};
use napi::{Env, sys};

use crate::kept::Kept;

/// The code of uses that can't be: after the end, twice at once.
pub(crate) const STATE: &str = "invalid_state";
/// The code of bugs of this package.
const BUG: &str = "internal_error";

/// `(code, message, closeCode, closeReason, status, cause)` of an `EtpError`; the cause is a number of what JavaScript keeps, or -1.
pub(crate) type ErrorParts = FnArgs<(String, String, Option<u32>, Option<String>, Option<u32>, i64)>;
pub(crate) type MakeErrorRef = FunctionRef<ErrorParts, Object<'static>>;

/// An exception of JavaScript's on its way through the core.
pub(crate) struct Cause {
    kept: Arc<Kept>,
    shown: String,
}

impl Cause {
    pub(crate) fn new(kept: Arc<Kept>, shown: String) -> Self {
        Self { kept, shown }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::error::Error for Cause {}

/// What can end a call from JavaScript.
pub(crate) enum Failure {
    /// The core's.
    Core(Error),
    /// A code of ours and a sentence.
    Coded(&'static str, String),
    /// Of the Node API.
    Node(napi::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<napi::Error> for Failure {
    fn from(error: napi::Error) -> Self {
        Self::Node(error)
    }
}

pub(crate) fn misuse(message: impl Into<String>) -> Failure {
    Failure::Coded(STATE, message.into())
}

pub(crate) fn invalid_option(message: impl Into<String>) -> Failure {
    Failure::Core(Error::new(ErrorKind::InvalidOption, message.into()))
}

/// Makes `EtpError`s.
pub(crate) struct Errors(pub(crate) MakeErrorRef);

impl Errors {
    /// The object of a core's error.
    pub(crate) fn object(&self, env: &Env, error: &Error) -> napi::Result<sys::napi_value> {
        let (close_code, close_reason) = match error.kind() {
            ErrorKind::ConnectionClosed => (error.close_code(), error.close_reason()),
            _ => (None, None),
        };
        let cause = error.cause().and_then(|cause| cause.downcast_ref::<Cause>());
        let key = cause.map_or(-1, |cause| i64::from(cause.kept.key()));
        let make = self.0.borrow_back(env)?;
        let object = make.call(FnArgs {
            data: (
                error.code().to_owned(),
                error.to_string(),
                close_code.map(u32::from),
                close_reason.map(str::to_owned),
                error.status().map(u32::from),
                key,
            ),
        })?;
        Ok(object.raw())
    }

    fn coded(&self, env: &Env, code: &str, message: String) -> napi::Result<sys::napi_value> {
        let make = self.0.borrow_back(env)?;
        let object = make.call(FnArgs {
            data: (code.to_owned(), message, None, None, None, -1),
        })?;
        Ok(object.raw())
    }

    /// The error to be thrown.
    pub(crate) fn thrown(&self, env: &Env, failure: Failure) -> napi::Error {
        let object = match failure {
            Failure::Core(error) => self.object(env, &error),
            Failure::Coded(code, message) => self.coded(env, code, message),
            Failure::Node(error) => return error,
        };
        match object {
            // SAFETY: the value was made in this environment, in this call.
            #[expect(unsafe_code, reason = "the generic form of a value")]
            Ok(object) => unsafe { Unknown::from_raw_unchecked(env.raw(), object) }.into(),
            Err(error) => error,
        }
    }

    /// Runs an entry from JavaScript: a panic becomes an `EtpError`.
    pub(crate) fn guard<T>(&self, env: &Env, f: impl FnOnce() -> Result<T, Failure>) -> napi::Result<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(self.thrown(env, failure)),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                let message = format!("a bug in etp-ws, please report it: {text}");
                Err(self.thrown(env, Failure::Coded(BUG, message)))
            }
        }
    }
}
