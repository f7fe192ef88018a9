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
//!
//! Where a caller can be known there are also `claims` and `consumer` (`name`, `groups`).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use cel::{Context, IdedExpr, Program, Value};

use crate::build::suggestion;
use crate::facts::{Consumer, RequestView};

const LONGEST: usize = 4096;
const FIELDS: &[&str] = &["method", "path", "host", "scheme", "client", "headers", "query"];
const CALLER: &[&str] = &["claims", "consumer"];
const CONSUMER_FIELDS: &[&str] = &["name", "groups"];

/// A compiled condition.
pub struct When {
    program: Program,
    root: Context<'static, 'static>,
    headers: bool,
    query: bool,
    claims: bool,
    consumer: bool,
}

impl When {
    /// Compiles an expression over the request.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn compile(text: &str) -> Result<Self, String> {
        Self::over(text, &[])
    }

    /// Compiles an expression over the request and who asks.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn with_caller(text: &str) -> Result<Self, String> {
        Self::over(text, CALLER)
    }

    fn over(text: &str, more: &[&str]) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("the expression is longer than {LONGEST} bytes"));
        }
        let program = catch_unwind(|| Program::compile(text))
            .map_err(|_| "the expression cannot be parsed".to_owned())?
            .map_err(|errors| format!("not a CEL expression: {}", one_line(&errors.to_string())))?;
        let root = Context::default();
        check_names(program.expression(), more, &mut Vec::new())?;
        let names = |name: &str| more.contains(&name) && text.contains(name);
        let when = Self {
            headers: text.contains("headers"),
            query: text.contains("query"),
            claims: names("claims"),
            consumer: names("consumer"),
            program,
            root,
        };
        when.check()?;
        Ok(when)
    }

    /// Whether a request meets the condition.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.matches_caller(request, &Consumer::default())
    }

    /// Whether a request of this caller meets the condition.
    pub fn matches_caller(&self, request: &RequestView<'_>, caller: &Consumer) -> bool {
        matches!(self.run(request, caller), Ok(Value::Bool(true)))
    }

    /// Whether it says anything of who asks.
    pub fn asks_for_caller(&self) -> bool {
        self.claims || self.consumer
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
            listener: "",
        };
        match self.run(&plain, &Consumer::default()) {
            Ok(Value::Bool(_)) | Err(cel::ExecutionError::NoSuchKey(_)) => Ok(()),
            Ok(other) => Err(format!("the expression gives {}, and a condition is true or false", other.type_of())),
            Err(error @ cel::ExecutionError::UndeclaredReference(_)) => Err(error.to_string()),
            Err(_) => Ok(()),
        }
    }

    fn run(&self, request: &RequestView<'_>, caller: &Consumer) -> Result<Value, cel::ExecutionError> {
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
        if self.claims {
            let claims = cel::to_value(&caller.claims);
            let claims = claims.map_err(|error| cel::ExecutionError::function_error("claims", error))?;
            context.add_variable_from_value("claims", claims);
        }
        if self.consumer {
            let groups: Vec<Value> = caller.groups.iter().map(|group| Value::from(&**group)).collect();
            let fields = HashMap::from([("name", Value::from(&*caller.name)), ("groups", groups.into())]);
            context.add_variable_from_value("consumer", fields);
        }
        catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)))
            .unwrap_or_else(|_| Err(cel::ExecutionError::function_error("when", "the evaluation failed")))
    }
}

/// Finds names that nothing has. `more` are known besides `request`; `bound` are those that macros (`exists`, `all`,
/// `map`, `filter`) bind around it.
fn check_names<'e>(expression: &'e IdedExpr, more: &[&str], bound: &mut Vec<&'e str>) -> Result<(), String> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if name == "request" || more.contains(&name.as_str()) || bound.contains(&name.as_str()) => {
            Ok(())
        }
        Expr::Ident(name) => {
            let more = if more.is_empty() { "" } else { ", `claims` and `consumer` (name, groups)" };
            Err(format!("`{name}` is not known: an expression sees `request` ({}){more}", FIELDS.join(", ")))
        }
        Expr::Select(select) => {
            check_field(&select.operand, &select.field, more, bound)?;
            check_names(&select.operand, more, bound)
        }
        Expr::Call(call) => {
            if let (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [of, field]) =
                (call.func_name.as_str(), call.args.as_slice())
                && let Expr::Literal(LiteralValue::String(field)) = &field.expr
            {
                check_field(of, field.inner(), more, bound)?;
            }
            call.target.iter().map(|target| &**target).chain(&call.args).try_for_each(|e| check_names(e, more, bound))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check_names(element, more, bound)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(&entry.expr, more, bound)),
        Expr::Struct(of) => of.entries.iter().try_for_each(|entry| check_entry(&entry.expr, more, bound)),
        Expr::Comprehension(each) => {
            check_names(&each.iter_range, more, bound)?;
            check_names(&each.accu_init, more, bound)?;
            let outer = bound.len();
            bound.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
            bound.extend(each.iter_var2.as_deref());
            [&each.loop_cond, &each.loop_step, &each.result]
                .into_iter()
                .try_for_each(|e| check_names(e, more, bound))?;
            bound.truncate(outer);
            Ok(())
        }
    }
}

fn check_entry<'e>(entry: &'e EntryExpr, more: &[&str], bound: &mut Vec<&'e str>) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => check_names(&field.value, more, bound),
        EntryExpr::MapEntry(entry) => {
            check_names(&entry.key, more, bound)?;
            check_names(&entry.value, more, bound)
        }
    }
}

/// Finds fields that `request` or `consumer` do not have. Claims are whatever a credential says.
fn check_field(of: &IdedExpr, field: &str, more: &[&str], bound: &[&str]) -> Result<(), String> {
    let Expr::Ident(name) = &of.expr else { return Ok(()) };
    let fields = match name.as_str() {
        name if bound.contains(&name) => return Ok(()),
        "request" => FIELDS,
        "consumer" if more.contains(&"consumer") => CONSUMER_FIELDS,
        _ => return Ok(()),
    };
    match fields.contains(&field) {
        true => Ok(()),
        false => Err(format!("`{name}` has no `{field}`: {}", suggestion("field", field, fields))),
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
            listener: "",
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
    fn sees_the_caller() {
        let claims = serde_json::json!({ "tier": "gold", "level": 3, "orgs": ["a"], "deep": { "a": true } });
        let serde_json::Value::Object(claims) = claims else { panic!("claims are an object") };
        let caller = Consumer { name: "alice".into(), groups: vec!["staff".into()], claims, ..Consumer::default() };
        let headers = http::HeaderMap::new();
        let request = RequestView {
            method: &http::Method::GET,
            host: "example.com",
            path: "/alice",
            query: None,
            headers: &headers,
            scheme: "http",
            client: "192.0.2.1".parse().unwrap(),
            listener: "",
        };
        let holds = |text: &str| When::with_caller(text).unwrap().matches_caller(&request, &caller);
        assert!(holds(r#"claims.tier == "gold" && claims.level >= 3 && "a" in claims.orgs && claims.deep.a"#));
        assert!(holds(r#"request.path == "/" + consumer.name && "staff" in consumer.groups"#));
        assert!(!holds("claims.admin") && !holds("claims.level") && !holds("claims.tier > 3"));
        for (wrong, words) in [
            ("consumer.group == 'a'", "did you mean `groups`?"),
            ("claim.tier == 'a'", "`claim` is not known"),
            ("'gold'", "a condition is true or false"),
        ] {
            let said = When::with_caller(wrong).err().unwrap_or_default();
            assert!(said.contains(words), "{wrong}: {said}");
        }
        assert!(When::compile("claims.tier == 'gold'").is_err());
    }

    #[test]
    fn mistakes_are_found_when_compiled() {
        for wrong in ["request.method ==", "user == 'x'", "1 + 1", "nosuch(request.path)", "'a'", ""] {
            assert!(When::compile(wrong).is_err(), "{wrong}");
        }
    }
}
