//! Options, as JavaScript hands them over: durations in milliseconds.

use std::time::Duration;

use napi::bindgen_prelude::{FromNapiValue, Object, Unknown};

use crate::error::{Failure, invalid_option};

/// An option's value, or the error that names it.
pub(crate) fn option<T: FromNapiValue>(options: &Object<'_>, name: &str) -> Result<Option<T>, Failure> {
    let Some(value) = options.get::<Unknown<'_>>(name)? else {
        return Ok(None);
    };
    match value.get_type()? {
        napi::ValueType::Undefined | napi::ValueType::Null => return Ok(None),
        _ => {}
    }
    match options.get::<T>(name) {
        Ok(value) => Ok(value),
        Err(_) => Err(invalid_option(format!("{name}: its type is wrong"))),
    }
}

/// A whole number that is a size or count.
pub(crate) fn count(options: &Object<'_>, name: &str) -> Result<Option<usize>, Failure> {
    let Some(number) = option::<f64>(options, name)? else {
        return Ok(None);
    };
    if number.fract() != 0.0 || !(0.0..=9_007_199_254_740_991.0).contains(&number) {
        return Err(invalid_option(format!("{name} is {number}; it is a whole number")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was looked at"
    )]
    Ok(Some(number as usize))
}

/// Milliseconds.
pub(crate) fn duration(options: &Object<'_>, name: &str) -> Result<Option<Duration>, Failure> {
    millis(name, option::<f64>(options, name)?)
}

pub(crate) fn millis(name: &str, value: Option<f64>) -> Result<Option<Duration>, Failure> {
    let Some(value) = value else { return Ok(None) };
    match Duration::try_from_secs_f64(value / 1000.0) {
        Ok(duration) => Ok(Some(duration)),
        Err(_) => Err(invalid_option(format!(
            "{name} is {value}; it is a number of milliseconds"
        ))),
    }
}

/// The limits that servers and clients share.
macro_rules! limits {
    ($builder:expr, $options:ident) => {{
        let mut builder = $builder;
        if let Some(size) = count($options, "maxMessageSize")? {
            builder = builder.max_message_size(size);
        }
        if let Some(handlers) = count($options, "maxInflight")? {
            builder = builder.max_inflight(handlers);
        }
        if let Some(size) = count($options, "maxOutbox")? {
            builder = builder.max_outbox(size);
        }
        if let Some(acks) = count($options, "maxPendingAcks")? {
            builder = builder.max_pending_acks(acks);
        }
        if let Some(time) = duration($options, "ackTimeout")? {
            builder = builder.ack_timeout(time);
        }
        builder = match duration($options, "pingInterval")? {
            // Null turns pings off; what was not given does not come here.
            None => builder.ping_interval(None),
            Some(time) => builder.ping_interval(time),
        };
        if let Some(time) = duration($options, "pingTimeout")? {
            builder = builder.ping_timeout(time);
        }
        if let Some(time) = duration($options, "closeTimeout")? {
            builder = builder.close_timeout(time);
        }
        builder
    }};
}
pub(crate) use limits;
