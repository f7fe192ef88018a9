//! Conditions in CEL over a request, compiled when the file is loaded.
//!
//! ```toml
//! match = { path = "/beta/**", when = 'request.headers["x-group"] == "beta" && !("debug" in request.query)' }
//! ```
//!
//! `request` has `method`, `path`, `host`, `scheme`, `client` (the address, as text), `headers` (names in lower
//! case; several values of one name are joined by `, `) and `query` (the last value of a name). An expression
//! that fails while it runs (a header that is not there) or gives no boolean does not match.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{Context, Program, Value};

use super::matcher::RequestView;

const LONGEST: usize = 4096;
const FIELDS: &[&str] = &["method", "path", "host", "scheme", "client", "headers", "query"];

/// A compiled condition.
pub struct When {
    program: Program,
    root: Context<'static, 'static>,
    headers: bool,
    query: bool,
}

impl When {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("the expression is longer than {LONGEST} bytes"));
        }
        let program = catch_unwind(|| Program::compile(text))
            .map_err(|_| "the expression cannot be parsed".to_owned())?
            .map_err(|errors| format!("not a CEL expression: {}", one_line(&errors.to_string())))?;
        let root = Context::default();
        for name in program.references().variables() {
            if name != "request" {
                return Err(format!("`{name}` is not known: an expression sees `request` ({})", FIELDS.join(", ")));
            }
        }
        let when = Self { headers: text.contains("headers"), query: text.contains("query"), program, root };
        when.check()?;
        Ok(when)
    }

    /// Whether a request meets the condition.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        matches!(self.run(request), Ok(Value::Bool(true)))
    }

    /// Runs once over a plain request, to find what can never work.
    fn check(&self) -> Result<(), String> {
        let headers = http::HeaderMap::new();
        let plain = RequestView {
            method: &http::Method::GET,
            host: "example.com",
            path: "/",
            query: None,
            headers: &headers,
            scheme: "https",
            client: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        };
        match self.run(&plain) {
            Ok(Value::Bool(_)) | Err(cel::ExecutionError::NoSuchKey(_)) => Ok(()),
            Ok(other) => Err(format!("the expression gives {}, and a condition is true or false", other.type_of())),
            Err(error @ cel::ExecutionError::UndeclaredReference(_)) => Err(error.to_string()),
            Err(_) => Ok(()),
        }
    }

    fn run(&self, request: &RequestView<'_>) -> Result<Value, cel::ExecutionError> {
        let mut fields: HashMap<&str, Value> = HashMap::with_capacity(FIELDS.len());
        fields.insert("method", request.method.as_str().into());
        fields.insert("path", request.path.into());
        fields.insert("host", request.host.into());
        fields.insert("scheme", request.scheme.into());
        fields.insert("client", request.client.to_string().into());
        if self.headers {
            let mut headers: HashMap<String, String> = HashMap::with_capacity(request.headers.keys_len());
            for (name, value) in request.headers {
                let value = String::from_utf8_lossy(value.as_bytes());
                headers
                    .entry(name.as_str().to_owned())
                    .and_modify(|all| {
                        all.push_str(", ");
                        all.push_str(&value);
                    })
                    .or_insert_with(|| value.clone().into_owned());
            }
            fields.insert("headers", headers.into());
        }
        if self.query {
            let query: HashMap<String, String> =
                form_urlencoded::parse(request.query.unwrap_or("").as_bytes()).into_owned().collect();
            fields.insert("query", query.into());
        }
        let mut context = self.root.new_inner_scope();
        context.add_variable_from_value("request", fields);
        catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)))
            .unwrap_or_else(|_| Err(cel::ExecutionError::function_error("when", "the evaluation failed")))
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, headers: &http::HeaderMap, query: &str) -> bool {
        When::compile(text).unwrap().matches(&RequestView {
            method: &http::Method::GET,
            host: "example.com",
            path: "/a",
            query: Some(query),
            headers,
            scheme: "http",
            client: "192.0.2.1".parse().unwrap(),
        })
    }

    #[test]
    fn sees_the_request() {
        let mut headers = http::HeaderMap::new();
        assert!(!matches(r#"request.headers["x-group"] == "beta""#, &headers, ""));
        headers.insert("x-group", "beta".parse().unwrap());
        assert!(matches(r#"request.headers["x-group"] == "beta""#, &headers, ""));
        assert!(matches(r#"request.query["a"] == "2" && request.path.startsWith("/a")"#, &headers, "a=1&a=2"));
        assert!(matches(r#""x-group" in request.headers && request.client == "192.0.2.1""#, &headers, ""));
    }

    #[test]
    fn mistakes_are_found_when_compiled() {
        for wrong in ["request.method ==", "user == 'x'", "1 + 1", "nosuch(request.path)", "'a'", ""] {
            assert!(When::compile(wrong).is_err(), "{wrong}");
        }
    }
}
