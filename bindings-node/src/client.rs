//! A client at work, from `connect` to its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etp_ws::{BoxError, Client, ClientBuilder, Error, ErrorKind, Reconnect, http};
use napi::Env;
use napi::bindgen_prelude::{Either, Object, Uint8Array};
use napi_derive::napi;
use tokio::sync::oneshot;

use crate::conn::{ack_waiter, close_code, name_of, payload_of};
use crate::dispatch::{Dispatch, Routes};
use crate::error::{Failure, invalid_option, misuse};
use crate::options::{count, duration, limits, millis, option};
use crate::pump::{GiveUp, Pump, Site, What};
use crate::queue::{End, Item, Question, Queue, SiteId, Value};
use crate::server::{identity, pairs, pem};
use crate::text::Payload;

fn builder(options: &Object<'_>) -> Result<ClientBuilder, Failure> {
    let mut builder = limits!(Client::builder(), options);
    if let Some(headers) = option::<Vec<String>>(options, "headers")? {
        let mut flat = headers.into_iter();
        while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
            builder = builder.header(name, value);
        }
    }
    if let Some(ca) = option::<Either<String, Uint8Array>>(options, "ca")? {
        builder = builder.ca(pem(ca));
    }
    if let Some((cert, key)) = identity(options, "tls")? {
        builder = builder.client_cert(cert, key);
    }
    if let Some(time) = duration(options, "dialTimeout")? {
        builder = builder.dial_timeout(time);
    }
    if let Some(events) = count(options, "queue")? {
        builder = builder.queue(events);
    }
    builder = match option::<Object<'_>>(options, "reconnect")? {
        None => builder.reconnect(None),
        Some(reconnect) => {
            let usual = Reconnect::default();
            builder.reconnect(Reconnect {
                base: duration(&reconnect, "base")?.unwrap_or(usual.base),
                cap: duration(&reconnect, "cap")?.unwrap_or(usual.cap),
                reset_after: duration(&reconnect, "resetAfter")?.unwrap_or(usual.reset_after),
            })
        }
    };
    Ok(builder)
}

/// Asks JavaScript for a text.
async fn ask(queue: Arc<Queue>, site: SiteId, what: Question) -> Result<String, BoxError> {
    let (answer, text) = oneshot::channel();
    queue.push(Item::Ask { site, what, answer });
    match text.await {
        Ok(text) => text,
        Err(_) => Err("the environment has ended".into()),
    }
}

#[napi]
impl Pump {
    /// Throws what a client with these options would, where it can be known before dialling.
    #[napi]
    pub fn check_client(&self, env: Env, options: Object<'_>) -> napi::Result<()> {
        self.errors.guard(&env, || builder(&options).map(drop))
    }

    /// A client that dials: `url`, or what JavaScript answers when it is asked. Awaited: `onConnect` has ended.
    #[napi]
    pub fn client(
        &self,
        env: Env,
        site: u32,
        options: Object<'_>,
        bytes: bool,
        asks_auth: bool,
        overrides: bool,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let queue = self.require()?;
            let routes = Arc::<Routes>::default();
            let dispatch = Dispatch {
                queue: queue.clone(),
                site,
                routes: routes.clone(),
            };
            let mut builder = builder(&options)?
                .handler(Arc::new(dispatch))
                .runtime(queue.runtime.clone());
            if asks_auth {
                let queue = queue.clone();
                builder = builder.auth_fn(move || ask(queue.clone(), site, Question::Auth));
            }
            if overrides {
                // The answer is JavaScript's, and comes when its loop has time: until then nothing is dialled, since the URL is asked for
                // behind it.
                builder = builder.should_reconnect(|_| true);
            }
            let client = Arc::<Mutex<Option<Client>>>::default();
            queue.add_end(site, End::Client(Arc::downgrade(&client)));
            let mut state = self.state();
            state.builders.insert(site, builder);
            let what = What::Client(client);
            state.sites.insert(site, Site { routes, bytes, what });
            Ok(())
        })
    }

    /// Dials.
    #[napi]
    pub fn connect(&self, env: Env, site: u32, id: u32, url: Option<String>) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let builder = self.take_builder(site)?;
            let queue = self.require()?;
            match url {
                Some(url) => self.begin_client(site, id, builder.connect(url)),
                None => self.begin_client(
                    site,
                    id,
                    builder.connect_fn(move || ask(queue.clone(), site, Question::Url)),
                ),
            }
        })
    }

    /// Connects to a server in this environment, without a port.
    #[napi]
    pub fn connect_to(
        &self,
        env: Env,
        site: u32,
        id: u32,
        server: u32,
        path: String,
        headers: Vec<String>,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let builder = self.take_builder(site)?;
            let server = self.server_of(server)?;
            let mut request = http::Request::builder().uri(path);
            for (name, value) in pairs(headers)? {
                request = request.header(name, value);
            }
            let request = request
                .body(())
                .map_err(|error| invalid_option(format!("path or headers can't be: {error}")))?;
            self.begin_client(site, id, async move {
                let (ours, theirs) = etp_ws::testing::pipe();
                server.accept_pipe(request, ours).await?;
                builder.connect_pipe(theirs).await
            })
        })
    }

    #[napi]
    pub fn client_state(&self, site: u32) -> Option<&'static str> {
        self.client_of(site).map(|client| client.state().as_str())
    }

    #[napi]
    pub fn client_emit(&self, env: Env, site: u32, name: Payload, data: Payload) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let client = self.dialled(site)?;
            let data = payload_of(data)?;
            let _held = self.writing();
            client.emit(name_of(&name)?, data)?;
            Ok(())
        })
    }

    #[napi]
    pub fn client_ask(
        &self,
        env: Env,
        site: u32,
        id: u32,
        name: Payload,
        data: Payload,
        timeout: Option<f64>,
        bytes: bool,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let client = self.dialled(site)?;
            let timeout = millis("timeout", timeout)?;
            let data = payload_of(data)?;
            let waiter = ack_waiter(self.require()?, id, bytes);
            let held = self.writing();
            let awaited = client.emit_with_ack_to(name_of(&name)?, data, timeout, waiter)?;
            drop(held);
            // Its outcome comes in a batch, so it is not there yet.
            self.state().asked.insert(id, GiveUp::Client(awaited));
            Ok(())
        })
    }

    #[napi]
    pub fn client_ping(&self, env: Env, site: u32, id: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let client = self.dialled(site)?;
            self.spawn(id, async move {
                Ok(Value::Number(client.ping().await?.as_secs_f64() * 1000.0))
            })
        })
    }

    #[napi]
    pub fn client_drain(&self, env: Env, site: u32, id: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let client = self.dialled(site)?;
            self.spawn(id, async move { client.drain().await.map(|()| Value::None) })
        })
    }

    /// Closes; awaited: the end.
    #[napi]
    pub fn client_close(&self, env: Env, site: u32, id: u32, code: f64, reason: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let client = self.dialled(site)?;
            let code = close_code(code)?;
            let queue = self.require()?;
            let done = queue.clone();
            // It goes on when nobody waits.
            queue.runtime.spawn(async move {
                let outcome = client.close_with(code, &reason).await.map(|()| Value::None);
                done.push(Item::Settled { id, outcome });
            });
            Ok(())
        })
    }

    /// Begins to close, also one whose dial has just come to an end, and waits for nothing.
    #[napi]
    pub fn client_stop(&self, env: Env, site: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let handle = match self.state().sites.get(&site).map(|site| &site.what) {
                Some(What::Client(handle)) => handle.clone(),
                _ => return Ok(()),
            };
            let Some(queue) = self.queue() else { return Ok(()) };
            queue.runtime.spawn(async move {
                // Looked at here, behind the dial: where it was given up there is none.
                let client = handle.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(client) = client {
                    // It ends by itself.
                    let _ = tokio::time::timeout(Duration::from_secs(60), client.close()).await;
                }
            });
            Ok(())
        })
    }
}

impl Pump {
    fn take_builder(&self, site: SiteId) -> Result<ClientBuilder, Failure> {
        let builder = self.state().builders.remove(&site);
        builder.ok_or_else(|| misuse("this client has connected already"))
    }

    fn client_of(&self, site: SiteId) -> Option<Client> {
        match self.state().sites.get(&site).map(|site| &site.what) {
            Some(What::Client(client)) => client.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            _ => None,
        }
    }

    fn dialled(&self, site: SiteId) -> Result<Client, Failure> {
        self.client_of(site)
            .ok_or_else(|| Error::new(ErrorKind::ConnectionClosed, "the client is not connected").into())
    }

    fn begin_client(
        &self,
        site: SiteId,
        id: u32,
        connect: impl Future<Output = Result<Client, Error>> + Send + 'static,
    ) -> Result<(), Failure> {
        let queue = self.require()?;
        let handle = match self.state().sites.get(&site).map(|site| &site.what) {
            Some(What::Client(client)) => client.clone(),
            _ => return Err(misuse("the client is not at work")),
        };
        let done = queue.clone();
        // Made here: a dial that is given up before its first turn ends its client as well.
        let guard = Detaching(done.clone(), site);
        let task = queue.runtime.spawn(async move {
            let outcome = match connect.await {
                Ok(client) => {
                    let closed = client.closed();
                    *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
                    tokio::spawn(async move {
                        closed.await;
                        // What the link has queued comes before this.
                        drop(guard);
                    });
                    Ok(Value::None)
                }
                Err(error) => {
                    // The reason comes before the end, which `guard` tells when it is dropped behind this.
                    let _guard = guard;
                    done.push(Item::Settled {
                        id,
                        outcome: Err(error),
                    });
                    return;
                }
            };
            done.push(Item::Settled { id, outcome });
        });
        self.state().tasks.insert(id, task.abort_handle());
        Ok(())
    }
}

/// A client that could not begin, was given up or has ended is let go of.
struct Detaching(Arc<Queue>, SiteId);

impl Drop for Detaching {
    fn drop(&mut self) {
        self.0.push(Item::Detach(self.1));
    }
}
