//! Drills with those who make tokens: npm's `oidc-provider` as the identity provider, Python's PyJWT and Authlib. A part
//! that is missing fails its drill: `make test` installs them.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{Gateway, Origin, Part, eventually, gateway, node, output, python};

struct Provider {
    part: Part,
    issuer: String,
}

impl Provider {
    fn start() -> Self {
        let (part, port) = Part::with_port(&mut node("identity_provider.mjs"));
        Self { part, issuer: format!("http://127.0.0.1:{port}") }
    }

    /// What it says to a form, as one of its clients.
    fn post(&self, path: &str, client: &str, form: &str) -> String {
        let user = format!("{client}:secret+of+{client}");
        output(Command::new("curl").args(["-sSf", "-u", &user, "-d", form, &format!("{}{path}", self.issuer)]))
    }

    fn token(&self, more: &str) -> String {
        let answer = self.post("/token", "app", &format!("grant_type=client_credentials&scope=read{more}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn signed(&self) -> String {
        self.token("&resource=urn:api")
    }

    /// Has these keys from now on. The first signs.
    fn keys(&self, names: &str) {
        assert_eq!(self.post("/control/keys", "app", names), "ok\n");
    }

    /// Waits until the gateway took over the keys as they are now: what it fetches when it fetched twice since.
    fn noticed(&self) {
        let fetched = self.part.output().len();
        self.part.says("the keys are fetched", |lines| (lines.len() >= fetched + 3).then_some(()));
    }
}

fn send(gw: &Gateway, target: &str, token: &str) -> u16 {
    gw.get(target).header("Authorization", &format!("Bearer {token}")).send().status
}

#[test]
fn keys_of_a_real_provider_are_rotated_under_traffic() {
    let (origin, provider) = (Origin::saying("ok"), Provider::start());
    let jwt = format!(
        "issuer = \"{}\", jwks = \"discover\", audience = \"urn:api\", refresh = \"1s\", cool_down = \"1s\"",
        provider.issuer
    );
    let gw = gateway()
        .config(&format!(
            "[auth.idp]\njwt = {{ {jwt} }}\n[defaults]\nauth = \"idp\"\nauthorize = {{ scopes = [\"read\"] }}"
        ))
        .config("[server]\nthreads = 2")
        .everything_to(&origin)
        .start();
    let token = Mutex::new(provider.signed());
    assert_eq!(send(&gw, "/", &token.lock().unwrap()), 200);
    assert_eq!(gw.logged("the client", |line| line["status"] == 200)["consumer"], "app");
    let (stop, refused) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let sent = [const { AtomicUsize::new(0) }; 4];
    std::thread::scope(|scope| {
        for sent in &sent {
            let (gw, token, stop, refused) = (&gw, &token, &stop, &refused);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let token = token.lock().unwrap().clone();
                    let status = send(gw, "/", &token);
                    if status != 200 {
                        refused.lock().unwrap().push((status, token));
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            });
        }
        let drill = || {
            for (old, new) in [("first", "second"), ("second", "third")] {
                provider.keys(&format!("{old} {new}"));
                provider.noticed();
                provider.keys(&format!("{new} {old}"));
                let old = std::mem::replace(&mut *token.lock().unwrap(), provider.signed());
                let before: Vec<usize> = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect();
                eventually("everybody has the new token", || {
                    let now = sent.iter().map(|sent| sent.load(Ordering::Relaxed));
                    before.iter().zip(now).all(|(before, now)| now >= before + 2).then_some(())
                });
                assert_eq!(send(&gw, "/", &old), 200, "the key is still there");
                provider.keys(new);
                provider.noticed();
                assert_eq!(send(&gw, "/", &old), 401, "the key is gone");
            }
        };
        let drilled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(drill));
        stop.store(true, Ordering::Relaxed);
        drilled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(*refused.lock().unwrap(), []);
}

#[test]
fn opaque_tokens_of_a_real_provider() {
    let (origin, provider) = (Origin::saying("ok"), Provider::start());
    let introspection = format!(
        "url = \"discover\", issuer = \"{}\", client_id = \"gateway\", client_secret = {{ env = \"SECRET\" }}, ttl = \"1s\"",
        provider.issuer
    );
    let gw = gateway()
        .config(&format!("[auth.idp]\nintrospection = {{ {introspection} }}\nconsumer = \"claims.client_id\""))
        .env("SECRET", "secret of gateway")
        .config("[[route]]\nmatch = \"/write\"\nupstream = \"origin\"\nauth = \"idp\"\nauthorize = { scopes = [\"write\"] }")
        .config("[defaults]\nauth = \"idp\"\nauthorize = { scopes = [\"read\"] }")
        .everything_to(&origin)
        .start();
    let token = provider.token("");
    assert_eq!((send(&gw, "/", &token), send(&gw, "/write", &token), send(&gw, "/", "other")), (200, 403, 401));
    assert_eq!(gw.logged("the client", |line| line["status"] == 200)["consumer"], "app");
    provider.post("/token/revocation", "app", &format!("token={token}"));
    eventually("the token is called back", || (send(&gw, "/", &token) == 401).then_some(()));
}

#[test]
fn tokens_of_pyjwt_and_authlib() {
    let made: Value = serde_json::from_str(&output(&mut python("tokens.py"))).unwrap();
    let origin = Origin::saying("ok");
    let claims = "issuer = \"https://id.test/\", audience = \"api\"";
    let public = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    let mut builder = gateway()
        .config(&format!(
            "[auth.public]\njwt = {{ {claims}, jwks = {{ file = \"keys.json\" }}, algorithms = {public:?} }}"
        ))
        .config("[[route]]\nmatch = \"/public\"\nauth = \"public\"\nupstream = \"origin\"")
        .file("keys.json", made["jwks"].to_string());
    let tokens: Vec<[Option<&str>; 4]> =
        made["tokens"].as_array().unwrap().iter().map(|made| [0, 1, 2, 3].map(|i| made[i].as_str())).collect();
    for algorithm in ["HS256", "HS384", "HS512"] {
        let secret = tokens.iter().find(|made| made[1] == Some(algorithm)).and_then(|made| made[3]).unwrap();
        builder = builder
            .env(algorithm, secret)
            .config(&format!("[auth.{algorithm}]\njwt = {{ {claims}, secret = {{ env = \"{algorithm}\" }}, algorithms = [\"{algorithm}\"] }}"))
            .config(&format!("[[route]]\nmatch = \"/{algorithm}\"\nauth = \"{algorithm}\"\nupstream = \"origin\""));
    }
    let gw = builder.upstream("origin", &origin).start();
    for made in &tokens {
        let (maker, algorithm, token) = (made[0].unwrap(), made[1].unwrap(), made[2].unwrap());
        let target = made[3].map_or("/public".to_owned(), |_| format!("/{algorithm}"));
        assert_eq!(send(&gw, &target, token), 200, "{algorithm} of {maker}");
        // By what is not its key it is not good.
        let other = if algorithm == "HS256" { "/HS512" } else { "/HS256" };
        assert_eq!(send(&gw, other, token), 401, "{algorithm} of {maker}");
    }
    assert_eq!((tokens.len(), origin.requests().len()), (24, 24));
    assert_eq!(gw.logged("who asks", |line| line["status"] == 200)["consumer"], "zoë");
}
