//! Constant mixed traffic, for tests in which the gateway changes under it and no request may be lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Address, Answer, Authority, Builder, Connection, Gateway, H2, Origin, Response, answer, gateway};

/// Clients that ask on and on: over HTTP/1.1 and HTTP/2, with TLS and without, by kept and by new connections, by
/// WebSockets, and with one long download.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, JoinHandle<Result<usize, String>>)>,
    download: Option<JoinHandle<Result<usize, String>>>,
}

/// Between the requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// The body of the download: a kilobyte a second.
const KILOBYTES: usize = 60;

impl Traffic {
    /// What its gateway's configuration says of listeners.
    pub const LISTENERS: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\n[listen.tls]\naddress = \"127.0.0.1:0\"\n\
        tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }\n[log]\naccess = { to = \"off\" }\n";

    /// An origin for it.
    pub fn origin() -> Origin {
        Origin::answering(|request| match request.target.as_str() {
            "/ws" => Answer::websocket_echo(),
            "/download" => answer(200).body([b'x'; KILOBYTES << 10]).chunked().trickling(1034, Duration::from_secs(1)),
            _ => answer(200).body("ok"),
        })
    }

    /// A gateway for it, but for its routes: `@a` is the origin.
    pub fn gateway(origin: &Origin, authority: &Authority) -> Builder {
        let identity = authority.issue(&["a.test"]);
        gateway().file("a.pem", &identity.cert).file("a.key", &identity.key).origin("a", origin).config(
            "[listen.public]\naddress = \"127.0.0.1:0\"\n[listen.tls]\naddress = \"127.0.0.1:0\"\n\
                 tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }\n\
                 [log]\naccess = { to = \"off\" }",
        )
    }

    /// Begins. `check` is what every answer must be; give it what tells a good one from a bad one.
    pub fn start(gw: &Gateway, authority: &Authority, check: fn(&Response) -> bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (plain, tls) = (gw.address().clone(), gw.listener("tls").clone());
        let client_tls = authority.client(&["http/1.1"]);
        let open_tls = {
            let (tls, config) = (tls.clone(), client_tls.clone());
            move || Connection::tls(&tls, "a.test", config.clone())
        };
        let new_tls = open_tls.clone();
        let (plain_kept, plain_new, plain_h2, plain_ws) = (plain.clone(), plain.clone(), plain.clone(), plain.clone());
        let client_h2 = authority.client(&["h2"]);
        let clients: Vec<(&'static str, Client)> = vec![
            ("HTTP/1.1", Box::new(move |stop| kept(stop, || Ok(Connection::open(&plain_kept)), check))),
            ("HTTP/1.1, new connections", Box::new(move |stop| new(stop, || Ok(Connection::open(&plain_new)), check))),
            ("TLS", Box::new(move |stop| kept(stop, open_tls, check))),
            ("TLS, new connections", Box::new(move |stop| new(stop, new_tls, check))),
            ("HTTP/2", Box::new(move |stop| http2(stop, || H2::plain(plain_h2.tcp()), check))),
            (
                "HTTP/2 over TLS",
                Box::new(move |stop| http2(stop, || H2::tls(tls.tcp(), "a.test", client_h2.clone()), check)),
            ),
            ("WebSockets", Box::new(move |stop| web_sockets(stop, &plain_ws))),
        ];
        let run = |(name, client): (&'static str, Client)| {
            let stop = stop.clone();
            (name, thread::spawn(move || client(&stop)))
        };
        let clients = clients.into_iter().map(run).collect();
        Self { stop, clients, download: None }
    }

    /// Begins a download that takes a minute.
    pub fn with_a_download(mut self, gw: &Gateway) -> Self {
        let address = gw.address().clone();
        self.download = Some(thread::spawn(move || {
            let response = Connection::open(&address).get("/download").try_send().map_err(|error| error.to_string())?;
            match response.body.len() {
                length if length == KILOBYTES << 10 => Ok(length),
                length => Err(format!("{length} bytes of {}", KILOBYTES << 10)),
            }
        }));
        self
    }

    /// Waits for the download, and ends the rest: no request failed, and every client was served so often at least.
    #[track_caller]
    pub fn end(mut self, least: usize) {
        let mut failed = Vec::new();
        if let Some(download) = self.download.take()
            && let Err(error) = download.join().expect("the download does not panic")
        {
            failed.push(format!("the download: {error}"));
        }
        self.stop.store(true, Ordering::Relaxed);
        for (name, client) in std::mem::take(&mut self.clients) {
            match client.join() {
                Ok(Ok(served)) if served >= least => {}
                Ok(Ok(served)) => failed.push(format!("{name}: served only {served} times")),
                Ok(Err(error)) => failed.push(format!("{name}: {error}")),
                Err(_) => failed.push(format!("{name}: panicked")),
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

impl Drop for Traffic {
    /// Stops the traffic, also when the test fails.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Client = Box<dyn FnOnce(&AtomicBool) -> Result<usize, String> + Send>;

/// Counts what `ask` says is served, until there is a failure or an end.
fn again(
    stop: &AtomicBool,
    check: fn(&Response) -> bool,
    mut ask: impl FnMut() -> Result<Response, String>,
) -> Result<usize, String> {
    for served in 0.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(served);
        }
        let response = ask().map_err(|error| format!("after {served} answers: {error}"))?;
        if !check(&response) {
            return Err(format!(
                "after {served} answers: {} {:?} {}",
                response.status,
                response.headers,
                response.text()
            ));
        }
        thread::sleep(PAUSE);
    }
    unreachable!("the range has no end")
}

fn kept(
    stop: &AtomicBool,
    open: impl Fn() -> io::Result<Connection>,
    check: fn(&Response) -> bool,
) -> Result<usize, String> {
    let mut client = None;
    again(stop, check, || {
        let mut open = match client.take() {
            Some(client) => client,
            None => open().map_err(|error| format!("no connection: {error}"))?,
        };
        let response = open.get("/kept").try_send().map_err(|error| error.to_string())?;
        if response.headers.first("connection").is_none_or(|connection| !connection.eq_ignore_ascii_case("close")) {
            client = Some(open);
        }
        Ok(response)
    })
}

fn new(
    stop: &AtomicBool,
    open: impl Fn() -> io::Result<Connection>,
    check: fn(&Response) -> bool,
) -> Result<usize, String> {
    again(stop, check, || {
        open().and_then(|mut client| client.get("/new").try_send()).map_err(|error| error.to_string())
    })
}

fn http2(stop: &AtomicBool, open: impl Fn() -> H2, check: fn(&Response) -> bool) -> Result<usize, String> {
    let mut client = open();
    again(stop, check, || {
        loop {
            match client.get("/h2").send_unless_closing() {
                Some(response) => return response.map_err(|error| error.to_string()),
                None => client = open(),
            }
        }
    })
}

/// Each lives for a few seconds and is closed by the client.
fn web_sockets(stop: &AtomicBool, address: &Address) -> Result<usize, String> {
    let mut messages = 0;
    while !stop.load(Ordering::Relaxed) {
        let failed =
            |what: &str, messages: usize, error: io::Error| format!("{what} after {messages} messages: {error}");
        let mut socket = Connection::open(address);
        let upgrade = socket.get("/ws").header("Upgrade", "websocket").header("Connection", "Upgrade").try_send();
        let response = upgrade.map_err(|error| failed("no upgrade", messages, error))?;
        if response.status != 101 {
            return Err(format!("no upgrade but {}", response.status));
        }
        for _ in 0..20 {
            socket.send_raw(b"\x81\x05hello");
            let echo = socket.reader.exactly(7).map_err(|error| failed("no echo", messages, error))?;
            if echo != b"\x81\x05hello" {
                return Err(format!("{echo:?} is no echo"));
            }
            messages += 1;
            thread::sleep(20 * PAUSE);
        }
    }
    Ok(messages)
}
