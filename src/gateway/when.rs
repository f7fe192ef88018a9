//! Conditions in CEL over a request, compiled when the file is loaded.
//!
//! ```toml
//! match = { path = "/beta/**", when = 'request.headers["x-group"] == "beta" && !("debug" in request.query)' }
//! ```
//!
//! `request` has `method`, `path`, `host`, `scheme`, `client` (the address, as text), `headers` (names in lower
//! case; several values of one name are joined by `, `) and `query` (the last value of a name). An expression
//! that fails while it runs (a header that is not there) or gives no boolean does not match. Fields that `request`
//! does not have are found when the file is loaded.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use cel::{Context, IdedExpr, Program, Value};

use super::matcher::RequestView;
use crate::build::suggestion;

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
        check_names(program.expression(), &mut Vec::new())?;
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

/// Finds names that nothing has. `bound` are those that macros (`exists`, `all`, `map`, `filter`) bind around it.
fn check_names<'e>(expression: &'e IdedExpr, bound: &mut Vec<&'e str>) -> Result<(), String> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if name == "request" || bound.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => {
            Err(format!("`{name}` is not known: an expression sees `request` ({})", FIELDS.join(", ")))
        }
        Expr::Select(select) => {
            if is_request(&select.operand, bound) {
                check_field(&select.field)?;
            }
            check_names(&select.operand, bound)
        }
        Expr::Call(call) => {
            if let (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [of, field]) =
                (call.func_name.as_str(), call.args.as_slice())
                && is_request(of, bound)
                && let Expr::Literal(LiteralValue::String(field)) = &field.expr
            {
                check_field(field.inner())?;
            }
            call.target.iter().map(|target| &**target).chain(&call.args).try_for_each(|e| check_names(e, bound))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check_names(element, bound)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(&entry.expr, bound)),
        Expr::Struct(of) => of.entries.iter().try_for_each(|entry| check_entry(&entry.expr, bound)),
        Expr::Comprehension(each) => {
            check_names(&each.iter_range, bound)?;
            check_names(&each.accu_init, bound)?;
            let outer = bound.len();
            bound.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
            bound.extend(each.iter_var2.as_deref());
            [&each.loop_cond, &each.loop_step, &each.result].into_iter().try_for_each(|e| check_names(e, bound))?;
            bound.truncate(outer);
            Ok(())
        }
    }
}

fn check_entry<'e>(entry: &'e EntryExpr, bound: &mut Vec<&'e str>) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => check_names(&field.value, bound),
        EntryExpr::MapEntry(entry) => {
            check_names(&entry.key, bound)?;
            check_names(&entry.value, bound)
        }
    }
}

fn is_request(expression: &IdedExpr, bound: &[&str]) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == "request") && !bound.contains(&"request")
}

fn check_field(name: &str) -> Result<(), String> {
    match FIELDS.contains(&name) {
        true => Ok(()),
        false => Err(format!("`request` has no `{name}`: {}", suggestion("field", name, FIELDS))),
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
    fn macros_bind_names() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-a", "1".parse().unwrap());
        assert!(matches(r#"request.headers.exists(h, h == "x-a")"#, &headers, ""));
        assert!(matches(r#"request.headers.all(h, request.headers[h] == "1")"#, &headers, ""));
        assert!(matches(r#"["a", "b"].filter(q, q in request.query).map(q, q + "!") == ["b!"]"#, &headers, "b=1"));
        assert!(!matches(r#"request.headers.exists_one(request, request == "x-b")"#, &headers, ""));
        assert!(matches("has(request.headers) && request['host'] == 'example.com'", &headers, ""));
        for unbound in ["[1].exists(h, x == h)", "[1].exists(h, h == 1) && h == 1", "h.exists(h, h == 1)"] {
            let said = When::compile(unbound).err().unwrap();
            assert!(said.contains("is not known"), "{unbound}: {said}");
        }
    }

    #[test]
    fn fields_that_are_not_there_are_found() {
        for (text, help) in [
            ("'a' in request.hedaers", "`request` has no `hedaers`: did you mean `headers`?"),
            ("request.port == 80", "`request` has no `port`: "),
            ("request['pth'] == '/'", "did you mean `path`?"),
            ("has(request.hots)", "did you mean `host`?"),
            ("true || request.headers.exists(h, h == request.hots)", "did you mean `host`?"),
        ] {
            let said = When::compile(text).err().unwrap_or_default();
            assert!(said.contains(help), "{text}: {said}");
        }
    }

    #[test]
    fn mistakes_are_found_when_compiled() {
        for wrong in ["request.method ==", "user == 'x'", "1 + 1", "nosuch(request.path)", "'a'", ""] {
            assert!(When::compile(wrong).is_err(), "{wrong}");
        }
    }
}
