//! `portcullis import users.yaml`: a configuration from an OpenAPI document, with a route for each of its operations.
//!
//! What is written passes `portcullis check` as it is, and is the same for the same document. What the document says and
//! the configuration cannot, or what only an operator knows, stands in it as a comment.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::body::openapi::{Document, Operation};
use crate::gateway::matcher::PathPattern;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The OpenAPI document, 3.0 or 3.1, in YAML or JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the upstream is called
    #[arg(long, value_name = "NAME", default_value = "api")]
    upstream: String,
    /// Where the upstream is, in the place of what the document says
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Where to write the configuration, in the place of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the configuration.
pub(super) fn command(arguments: &Arguments) -> Result<(), String> {
    let document = Document::load(&arguments.file)
        .map_err(|mistakes| mistakes.iter().map(|mistake| format!("error: {mistake}\n")).collect::<String>())?;
    let toml = configuration(&document, arguments)?;
    match &arguments.output {
        Some(path) => {
            std::fs::write(path, toml).map_err(|error| format!("error: cannot write {}: {error}", path.display()))
        }
        None => {
            print!("{toml}");
            Ok(())
        }
    }
}

fn configuration(document: &Document, arguments: &Arguments) -> Result<String, String> {
    let mut out = String::new();
    let name = arguments.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = document.title().map(|title| format!("{}, from ", line(&title))).unwrap_or_default();
    let _ = writeln!(out, "# {title}{}. Look at what is commented.\n", line(&name));
    out.push_str("[listen.public]\naddress = \"127.0.0.1:8080\"\n\n");
    upstream(document, arguments, &mut out);
    security(document, &mut out);
    let file = quoted(&from(arguments)?);
    let mut taken = HashSet::new();
    let mut routes = 0;
    for operation in &document.operations {
        let base = document.bases.first().map_or("", String::as_str);
        let path = pattern(&format!("{base}{}", operation.path));
        out.push('\n');
        if let Some(summary) = &operation.summary {
            let _ = writeln!(out, "# {}", line(summary));
        }
        let method = operation.method.as_str();
        if let Err(why) = fits(operation, &path, document, &mut taken) {
            let _ = writeln!(out, "# {method} {} is not carried over: {why}", line(&operation.path));
            continue;
        }
        let name = operation.id.clone().unwrap_or_else(|| format!("{method} {path}"));
        let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
        let _ = writeln!(out, "[[route]]\nname     = {}", quoted(&name));
        let _ = writeln!(out, "match    = {}", quoted(&format!("{method} {path}")));
        let _ = writeln!(out, "upstream = {}", quoted(&arguments.upstream));
        let _ = writeln!(out, "validate = {{ openapi = {file} }}");
        comment_auth(operation, &mut out);
        routes += 1;
    }
    match routes {
        0 => Err("error: the document has no operation that could be a route".to_owned()),
        _ => Ok(out),
    }
}

/// The upstream, out of the first of the servers.
fn upstream(document: &Document, arguments: &Arguments, out: &mut String) {
    let servers = document.servers();
    let address = servers.first().and_then(|url| address(url));
    out.push_str("[upstream]\n");
    let key = match is_bare(&arguments.upstream) {
        true => arguments.upstream.clone(),
        false => quoted(&arguments.upstream),
    };
    let _ = match (&arguments.address, address) {
        (Some(own), _) => writeln!(out, "{key} = [{}]", quoted(own)),
        (None, Some((address, false))) => writeln!(out, "{key} = [{}]", quoted(&address)),
        (None, Some((address, true))) => {
            writeln!(out, "{key} = {{ servers = [{}], tls = {{}} }}", quoted(&address))
        }
        (None, None) => writeln!(
            out,
            "# The document does not say where the service is: write its address here.\n{key} = [\"127.0.0.1:8081\"]"
        ),
    };
    for server in servers.iter().skip(usize::from(arguments.address.is_none())) {
        let _ = writeln!(out, "# The document has this server too: {}", line(server));
    }
    if document.bases.len() > 1 {
        let _ = writeln!(out, "# The routes below have the path of the first server.");
    }
}

/// The host and port of a server's URL, and whether it speaks TLS.
fn address(url: &str) -> Option<(String, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if authority.is_empty() || !authority.chars().all(fine) {
        return None;
    }
    let has_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let port = if tls { 443 } else { 80 };
    Some((if has_port { authority.to_owned() } else { format!("{authority}:{port}") }, tls))
}

/// The security schemes that operations name, as comments.
fn security(document: &Document, out: &mut String) {
    let mut known = HashSet::new();
    let named = document.operations.iter().flat_map(|operation| operation.security.iter().flatten());
    for name in named.filter(|name| known.insert(*name)) {
        let scheme = document.security_scheme(name).unwrap_or_default();
        let text = |key: &str| scheme.get(key).and_then(|value| value.as_str()).unwrap_or("");
        let (kind, place) = (text("type"), text("in"));
        let issuer = match text("openIdConnectUrl").split("/.well-known/").next() {
            Some(issuer) if !issuer.is_empty() => format!("{issuer}/"),
            _ => "https://id.example.com/".to_owned(),
        };
        let jwt = format!("jwt = {{ issuer = {}, jwks = \"discover\", audience = \"…\" }}", quoted(&issuer));
        let suggestion = match (kind, text("scheme").to_ascii_lowercase().as_str()) {
            ("http", "bearer") | ("oauth2" | "openIdConnect", _) => jwt,
            ("http", "basic") => "basic = {}".to_owned(),
            ("apiKey", _) if place == "header" => format!("api_key = {{ header = {} }}", quoted(text("name"))),
            ("mutualTLS", _) => "client_certificate = {}".to_owned(),
            _ => format!("there is nothing for the type {} in {}", line(kind), line(place)),
        };
        let _ = writeln!(
            out,
            "\n# The document has this security scheme. Fill in what is missing, and take the `#` away here"
        );
        let _ = writeln!(out, "# and at the routes: until then everybody may ask.");
        let _ = writeln!(out, "# [auth.{}]\n# {suggestion}", if is_bare(name) { name.clone() } else { quoted(name) });
    }
}

/// Who may ask for an operation, as a comment.
fn comment_auth(operation: &Operation, out: &mut String) {
    if operation.security.is_empty() {
        return;
    }
    let single: Vec<String> =
        operation.security.iter().filter(|set| set.len() == 1).flatten().map(|name| quoted(name)).collect();
    if !single.is_empty() {
        let _ = writeln!(out, "# auth  = [{}]", single.join(", "));
    }
    for set in operation.security.iter().filter(|set| set.len() > 1) {
        let _ =
            writeln!(out, "# The document wants several at once, which is not carried over: {}", line(&set.join(", ")));
    }
    if operation.security.iter().any(Vec::is_empty) {
        let _ = writeln!(out, "# The document lets everybody ask, too.");
    }
}

/// The pattern of a path: names of captures have letters, digits, `_` and `-`.
fn pattern(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        Some(name) if !name.contains(['{', '}']) => {
            let fine = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
            format!("{{{}}}", name.chars().map(fine).collect::<String>())
        }
        _ => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Why there is no route for an operation.
fn fits(
    operation: &Operation,
    path: &str,
    document: &Document,
    taken: &mut HashSet<(String, String)>,
) -> Result<(), String> {
    let method = operation.method.as_str();
    if method == "TRACE" {
        return Err("the gateway does not take TRACE".to_owned());
    }
    let is_get = |other: &&Operation| other.path == operation.path && other.method == http::Method::GET;
    if method == "HEAD" && document.operations.iter().any(|other| is_get(&other)) {
        return Err("the route for GET takes HEAD".to_owned());
    }
    PathPattern::parse(path)?;
    let shape = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    let shape = shape.collect::<Vec<_>>().join("/");
    match taken.insert((method.to_owned(), shape)) {
        true => Ok(()),
        false => Err("another operation takes the same requests".to_owned()),
    }
}

/// The document's path, as it is meant from the configuration's folder.
fn from(arguments: &Arguments) -> Result<String, String> {
    let folder = arguments.output.as_ref().and_then(|output| output.parent()).unwrap_or(Path::new(""));
    let path = match folder.as_os_str().is_empty() || arguments.file.is_absolute() {
        true => arguments.file.clone(),
        false => {
            let real = |path: &Path| path.canonicalize().map_err(|error| format!("error: {}: {error}", path.display()));
            let file = real(&arguments.file)?;
            file.strip_prefix(real(folder)?).map(Path::to_path_buf).unwrap_or(file)
        }
    };
    path.to_str().map(str::to_owned).ok_or_else(|| "error: the document's name is not UTF-8".to_owned())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A text for a comment.
fn line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    text.trim().to_owned()
}
