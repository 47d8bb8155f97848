//! The HTTP request that a connection began with.

use etp_ws::Request;
use napi::bindgen_prelude::{JsObjectValue, JsValue, Object};
use napi::{Env, sys};

/// `{ method, url, path, query, headers, token, address, port, clientIp, protocols }`; headers are names and values in turn.
pub(crate) fn object(env: &Env, request: &Request) -> napi::Result<sys::napi_value> {
    let mut object = Object::new(env)?;
    object.set_named_property("method", request.method().as_str())?;
    object.set_named_property("url", request.uri())?;
    object.set_named_property("path", request.path())?;
    object.set_named_property("query", request.query().unwrap_or_default())?;
    let headers = request.headers();
    let mut flat = Vec::with_capacity(headers.len() * 2);
    for (name, value) in &headers {
        flat.push(name.as_str().to_owned());
        // A header's bytes are Latin-1 to Node.
        flat.push(value.as_bytes().iter().map(|byte| char::from(*byte)).collect());
    }
    object.set_named_property("headers", flat)?;
    object.set_named_property("token", request.token())?;
    let peer = request.peer_addr();
    object.set_named_property("address", peer.map(|peer| peer.ip().to_string()))?;
    object.set_named_property("port", peer.map(|peer| u32::from(peer.port())))?;
    object.set_named_property("clientIp", request.client_ip().map(|ip| ip.to_string()))?;
    let protocols: Vec<&str> = request.protocols().collect();
    object.set_named_property("protocols", protocols)?;
    Ok(object.raw())
}
