//! One conversation with a CA, from the account to the certificate (RFC 8555, section 7).

use std::fmt;
use std::path::Path;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::client::Client;
use super::config::{Challenge, Settings};
use super::store::{self, Store};
use super::{Held, Managed, Shared};

/// Asks again where the CA does not take the nonce, as it may do at any time (RFC 8555, section 6.5). instant-acme has
/// tried three by then, one after the other, and to begin anew could cost a certificate. A macro, for the future of an
/// async closure is not `Send` for every lifetime.
macro_rules! patiently {
    ($ask:expr) => {{
        let mut left = 3;
        loop {
            match $ask {
                Err(Error::Api(problem)) if left > 0 && is_bad_nonce(&problem) => left -= 1,
                answer => break answer,
            }
        }
    }};
}

/// How the CA is asked whether it is done.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));

/// Why there is no certificate.
pub(super) struct Failure {
    text: String,
    /// Whether the CA said so, or is slow. What it says it is likely to say again, and it counts how often it had to.
    pub(super) refused: bool,
}

/// Obtains a certificate and keeps it; it is not served yet.
pub(super) async fn obtain(shared: &Shared, managed: &Managed) -> Result<Held, Failure> {
    let settings = &managed.settings;
    let Some(store) = &shared.store else { return Err(Failure::ours("there is no state directory")) };
    blocking(|| store.probe(settings))?;
    let mut order = order(shared, store, settings).await?;
    prove(shared, settings, &mut order).await?;

    let key = KeyPair::generate().map_err(|error| Failure::ours(format!("no key can be made: {error}")))?;
    let request = request(settings, &key)?;
    let asked = patiently!(order.finalize_csr(&request).await);
    asked.map_err(Failure::at("the certificate is asked for"))?;
    let chain = patiently!(order.poll_certificate(&POLLING).await);
    let chain = chain.map_err(Failure::at("the certificate is waited for"))?;
    let pem = format!("{}{chain}", key.serialize_pem());
    let held = Held::from_pem(pem.as_bytes()).and_then(|held| managed.accept(held));
    let held = held.map_err(|error| Failure::ours(format!("the CA's certificate is not used: {error}")))?;
    if let Err(error) = blocking(|| store.write(&store.certificate(settings), pem.as_bytes())) {
        // It is good, and asking for another would not make it better.
        log::error!("a new certificate for {} is used, and lost with the process: {error}", settings.name());
    }
    Ok(held)
}

/// A new order, by the account that is kept, or by a new one if the CA does not know it.
async fn order(shared: &Shared, store: &Store, settings: &Settings) -> Result<Order, Failure> {
    const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
    let identifiers: Vec<_> = settings.names.iter().cloned().map(Identifier::Dns).collect();
    let order = NewOrder::new(&identifiers);
    let _one_at_a_time = shared.accounts.lock().await;
    let path = store.account(settings);
    let kept = account(store, &path, settings).await?;
    let refused = match patiently!(kept.new_order(&order).await) {
        Ok(order) => return Ok(order),
        Err(error) => error,
    };
    if !matches!(&refused, Error::Api(problem) if problem.r#type.as_deref() == Some(UNKNOWN)) {
        return Err(Failure::at("an order is made")(refused));
    }
    log::warn!("the CA does not know the account that is kept for {} any more: a new one is made", settings.directory);
    blocking(|| store.remove(&path))?;
    let new = account(store, &path, settings).await?;
    patiently!(new.new_order(&order).await).map_err(Failure::at("an order is made"))
}

/// The account that is kept, or a new one.
async fn account(store: &Store, path: &Path, settings: &Settings) -> Result<Account, Failure> {
    let http = || Account::builder_with_http(Box::new(Client::new(settings.roots.as_deref())));
    if let Some(kept) = blocking(|| store.read(path))? {
        // Why it cannot be read may show a part of the key.
        let credentials: AccountCredentials = serde_json::from_slice(&kept).map_err(|_| {
            Failure::ours(format!("the account in {} cannot be read: remove it for a new one", path.display()))
        })?;
        return http().from_credentials(credentials).await.map_err(Failure::at("the CA's directory is read"));
    }
    let contact: Vec<&str> = settings.contact.as_deref().into_iter().collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = settings.external_account.as_ref();
    let external = external.map(|account| ExternalAccountKey::new(account.kid.clone(), &account.key));
    let made = patiently!(http().create(&new, settings.directory.to_string(), external.as_ref()).await);
    let (account, credentials) = made.map_err(Failure::at("an account is made"))?;
    let kept = serde_json::to_vec(&credentials).map_err(|_| Failure::ours("the account cannot be written down"))?;
    blocking(|| store.write(path, &kept))?;
    Ok(account)
}

/// Shows the CA that the names are ours.
async fn prove(shared: &Shared, settings: &Settings, order: &mut Order) -> Result<(), Failure> {
    // Answered until the CA has decided.
    let mut answers: Vec<Box<dyn Send>> = Vec::new();
    patiently!(read(order).await).map_err(Failure::at("the authorizations are read"))?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(Failure::at("the authorizations are read"))?;
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => answers.push(answer(shared, settings, &mut authorization).await?),
            other => {
                return Err(Failure::ours(format!("the authorization of {} is {other:?}", authorization.identifier())));
            }
        }
    }
    let state = patiently!(order.poll_ready(&POLLING).await);
    if let Ok(OrderStatus::Invalid) | Err(Error::Api(_)) = state
        && let Some(reason) = reason(order).await
    {
        return Err(reason);
    }
    match state.map_err(Failure::at("the CA checks the names"))? {
        OrderStatus::Invalid => {
            Err(Failure { text: "the CA refuses the order, and does not say why".to_owned(), refused: true })
        }
        _ => Ok(()),
    }
}

/// Reads what the CA wants to be shown; it is not asked again.
async fn read(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

/// Has a challenge answered, and tells the CA; what it gives ends the answering when it is dropped.
async fn answer<'a>(
    shared: &Shared,
    settings: &Settings,
    authorization: &'a mut AuthorizationHandle<'a>,
) -> Result<Box<dyn Send>, Failure> {
    let name = authorization.identifier().to_string();
    let kind = match settings.challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let Some(mut challenge) = authorization.challenge(kind) else {
        let text = format!("the CA does not offer the challenge that is configured for {name}");
        return Err(Failure { text, refused: true });
    };
    let key = challenge.key_authorization();
    let pending: Box<dyn Send> = match settings.challenge {
        Challenge::Http01 => Box::new(shared.http01.offer(&challenge.token, key.as_str())),
        Challenge::TlsAlpn01 => {
            let offered = shared.tls_alpn01.offer(&name, key.digest().as_ref());
            Box::new(offered.map_err(|error| Failure::ours(format!("no certificate for the challenge: {error}")))?)
        }
    };
    match patiently!(challenge.set_ready().await) {
        Ok(()) => Ok(pending),
        // It was quick.
        Err(Error::Api(problem)) if !is_bad_nonce(&problem) => Err(Failure::unproven(&name, &problem)),
        Err(error) => Err(Failure::at("a challenge is begun")(error)),
    }
}

/// Why the CA did not find the names to be ours.
async fn reason(order: &mut Order) -> Option<Failure> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        patiently!(authorization.refresh().await.map(drop)).ok()?;
        let name = authorization.identifier().to_string();
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(Failure::unproven(&name, problem));
        }
    }
    None
}

/// A request for the certificate, in DER (PKCS #10).
fn request(settings: &Settings, key: &KeyPair) -> Result<Vec<u8>, Failure> {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new(settings.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(key)?.der().to_vec())
    };
    made().map_err(|error| Failure::ours(format!("no request can be made: {error}")))
}

/// A disk may be slow, and health checks share the threads.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

impl Failure {
    /// What is not the CA's doing.
    fn ours(text: impl Into<String>) -> Self {
        Self { text: one_line(&text.into()), refused: false }
    }

    fn at(stage: &'static str) -> impl FnOnce(Error) -> Self {
        move |error| {
            let refused = match &error {
                Error::Api(problem) => !is_bad_nonce(problem),
                Error::Timeout(_) => true,
                _ => false,
            };
            Self { text: one_line(&format!("while {stage}: {error}")), refused }
        }
    }

    fn unproven(name: &str, problem: &Problem) -> Self {
        Self { text: one_line(&format!("the CA could not check {name}: {problem}")), refused: true }
    }

    /// It took too long as a whole.
    pub(super) fn late(patience: Duration) -> Self {
        Self::ours(format!("not done within {patience:?}"))
    }
}

impl From<store::Failure> for Failure {
    fn from(error: store::Failure) -> Self {
        Self::ours(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_bad_nonce(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce")
}

/// What others wrote, fit for a line of a log.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let text = text.replace("API error: ", "");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}
