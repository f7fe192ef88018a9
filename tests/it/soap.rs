//! SOAP on one side and JSON on the other.

use crate::harness::{Answer, Gateway, H2Answer, H2Origin, Origin, answer, gateway, output, python};

const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const V12: &str = "http://www.w3.org/2003/05/soap-envelope";

fn envelope(namespace: &str, inside: &str) -> String {
    format!("<?xml version=\"1.0\"?><e:Envelope xmlns:e=\"{namespace}\"><e:Body>{inside}</e:Body></e:Envelope>")
}

fn xml(status: u16, body: &str) -> Answer {
    answer(status).header("Content-Type", "text/xml; charset=utf-8").body(body)
}

fn route(pattern: &str, soap: &str, origin: &Origin) -> Gateway {
    gateway()
        .upstream("origin", origin)
        .config(&format!("[[route]]\nmatch = \"{pattern}\"\nupstream = \"origin\"\nsoap = {soap}"))
        .start()
}

#[test]
fn json_calls_a_service_and_gets_json() {
    let origin = Origin::answering(|_| {
        xml(
            200,
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\"><s:Header><x xmlns=\"urn:x\"/></s:Header><s:Body>\
             <o:GetResponse xmlns:o=\"urn:o\"><o:order><o:n>1.50</o:n><o:sold>true</o:sold><o:line>a</o:line>\
             <o:note i:nil=\"1\"/></o:order></o:GetResponse></s:Body></s:Envelope>",
        )
    });
    let gw = gateway()
        .upstream("origin", &origin)
        .config(
            r##"
            [[route]]
            match    = "GET /orders/{id}"
            upstream = "origin"
            request  = { path = "/Service.asmx" }
            response = { body = { set = { by = "gateway" } } }
            soap.call = { operation = "Get", namespace = "urn:o", action = "urn:o#Get", body = { id = "{path.id}", lang = "{query.lang}", gone = "{body.gone}" }, headers = { "w:Token" = { "@xmlns:w" = "urn:w", "#text" = "{header.x-token}" } }, unwrap = "order", arrays = ["order.line"], numbers = ["order.n"], booleans = ["order.sold"] }
            "##,
        )
        .start();
    let got = gw
        .get("/orders/a%20%3Cb?lang=de")
        .header("X-Token", "t&t")
        .header("Accept", "application/json")
        .header("If-None-Match", "\"x\"")
        .send();
    let got = got.expect(200);
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.text(), r#"{"n":1.50,"sold":true,"line":["a"],"note":null,"by":"gateway"}"#);
    let seen = origin.only_request();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/Service.asmx"));
    assert_eq!(seen.header("content-type"), "text/xml; charset=utf-8");
    assert_eq!((seen.header("soapaction"), seen.header("accept")), ("\"urn:o#Get\"", "text/xml"));
    assert!(!seen.headers.has("if-none-match"));
    let sent = format!(
        "<soap:Envelope xmlns:soap=\"{V11}\"><soap:Header><w:Token xmlns:w=\"urn:w\">t&amp;t</w:Token></soap:Header>\
         <soap:Body><Get xmlns=\"urn:o\"><id>a &lt;b</id><lang>de</lang></Get></soap:Body></soap:Envelope>"
    );
    assert!(seen.text().ends_with(&sent), "{}", seen.text());
    gw.request("HEAD", "/orders/1").send().expect(405);
    assert_eq!(gw.h2c().get("/orders/1").send().expect(200).body, got.body);
}

#[test]
fn namespaces_are_those_that_the_service_wants() {
    let origin = Origin::answering(|seen| answer(200).header("Content-Type", "application/soap+xml").body(&seen.body));
    let gw = route(
        "POST /",
        r#"{ call = { version = "1.2", operation = "Place", namespace = "urn:o", action = "urn:o#Place", prefix = "m", prefixes = { t = "urn:t" } } }"#,
        &origin,
    );
    let post = |body: &str| gw.post("/").header("Content-Type", "application/json").body(body).send();
    let got = post(r#"{"id": 7, "t:who": {"@t:kind": "x", "t:name": "n"}}"#).expect(200);
    assert_eq!(got.text(), r#"{"id":"7","who":{"@kind":"x","name":"n"}}"#);
    let seen = origin.only_request();
    assert_eq!(seen.header("content-type"), "application/soap+xml; charset=utf-8; action=\"urn:o#Place\"");
    assert!(!seen.headers.has("soapaction"));
    let sent = format!(
        "<soap:Envelope xmlns:soap=\"{V12}\"><soap:Body><m:Place xmlns:m=\"urn:o\" xmlns:t=\"urn:t\"><id>7</id>\
         <t:who t:kind=\"x\"><t:name>n</t:name></t:who></m:Place></soap:Body></soap:Envelope>"
    );
    assert!(seen.text().ends_with(&sent), "{}", seen.text());
    for refused in
        [r#"{"a":1}},"x":{"y":{"b":1}"#, "[1]", "7", r#"{"a b": 1}"#, r#"{"u:a": 1}"#, r#"{"a":1,"a":2}"#, "{"]
    {
        post(refused).expect(400).problem("bad-request");
    }
    gw.post("/").header("Content-Type", "text/xml").body("<a/>").send().expect(415);
    assert_eq!(origin.requests().len(), 1);
}

/// A GET has a body on its way to a server that has no short way, and a method of its own beyond.
#[test]
fn services_that_are_reached_the_long_way_are_called_as_well() {
    let message = envelope(V11, "<GetResponse xmlns='urn:o'><n>1</n></GetResponse>");
    let origin = H2Origin::plain(move |_| H2Answer::new(200).header("content-type", "text/xml").body(&message));
    let gw = gateway()
        .config("[upstream.o]\nservers = [\"@o\"]\nprotocol = \"h2c\"\n[[route]]\nmatch = \"/{id}\"\nupstream = \"o\"")
        .config("soap.call = { operation = \"Get\", namespace = \"urn:o\", body = { id = \"{path.id}\" } }")
        .set("o", origin.address())
        .start();
    assert_eq!(gw.get("/7?a=b").send().expect(200).text(), r#"{"n":"1"}"#);
    let seen = origin.only_request();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.header("soapaction")), ("POST", "/7", "\"\""));
    assert!(seen.text().contains("<Get xmlns=\"urn:o\"><id>7</id></Get>"), "{}", seen.text());
}

#[test]
fn faults_are_problems() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/client" => xml(
            500,
            &envelope(
                V11,
                "<e:Fault><faultcode>e:Client.Id</faultcode><faultstring>no &lt;id></faultstring><detail><n:Missing \
                 xmlns:n='urn:n'><n:field>id</n:field></n:Missing></detail></e:Fault>",
            ),
        ),
        "/server" => xml(200, &envelope(V11, "<e:Fault><faultcode>e:Server</faultcode></e:Fault>")),
        "/sender" => xml(
            500,
            &envelope(
                V12,
                "<e:Fault><e:Code><e:Value>e:Sender</e:Value><e:Subcode><e:Value>m:Gone</e:Value></e:Subcode></e:Code>\
                 <e:Reason><e:Text xml:lang='en'>gone</e:Text></e:Reason></e:Fault>",
            ),
        ),
        "/html" => answer(503).header("Content-Type", "text/html").body("<p>"),
        "/oneway" => answer(202),
        "/doctype" => xml(200, "<!DOCTYPE a><a/>"),
        "/text" => answer(200).header("Content-Type", "text/plain").body("x"),
        _ => xml(200, "<a/>"),
    });
    let gw = route("/**", r#"{ call = { operation = "Get", namespace = "", faults = { Gone = 410 } } }"#, &origin);
    let problem = gw.get("/client").send().expect(400).problem("soap-fault").json();
    assert_eq!((&problem["code"], &problem["detail"]), (&"Client.Id".into(), &"no <id>".into()));
    assert_eq!(problem["fault"]["Missing"]["field"], "id");
    assert_eq!(gw.get("/server").send().expect(502).json()["code"], "Server");
    let sender = gw.get("/sender").send().expect(410).json();
    assert_eq!(
        (&sender["code"], &sender["subcode"], &sender["detail"]),
        (&"Sender".into(), &"Gone".into(), &"gone".into())
    );
    assert_eq!(gw.get("/html").send().expect(503).text(), "<p>");
    assert_eq!(gw.get("/oneway").send().expect(202).text(), "");
    for target in ["/doctype", "/text", "/other"] {
        gw.get(target).send().expect(502).problem("answer-unusable");
    }
    let line = gw.logged("why", |line| line["path"] == "/client");
    assert_eq!(
        (&line["stopped_by"], &line["cause"]),
        (&"soap-fault".into(), &"the upstream's Fault: Client.Id no <id>".into())
    );
}

const ORDERS: &str = r#"{ serve = { namespace = "urn:orders", understands = ["urn:known"], operations = {
    GetOrder   = { action = "urn:orders#GetOrder", method = "GET", path = "/orders/{body.id}", query = { lang = "{body.lang}" } },
    PlaceOrder = { path = "/orders", arrays = ["line"], numbers = ["line.count"], booleans = ["express"] },
    DropOrder  = { method = "DELETE", path = "/orders/{body.id}" },
    List       = { method = "GET", path = "/orders", response = "Orders", result = "order" },
    Tell       = { method = "PUT", path = "/told", body = { who = "{body.who}", by = "{client.ip}" } } } } }"#;

fn orders() -> Origin {
    let json = |status, text: &str| answer(status).header("Content-Type", "application/json").body(text);
    Origin::answering(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/orders/a%20b%20%C3%A4") => json(
            200,
            r#"{"id": "a b ä", "note": {"@xmlns:i": "http://www.w3.org/2001/XMLSchema-instance", "@i:nil": "true"}, "line": [{"sku": "<x>", "count": 2}]}"#,
        ),
        ("GET", "/orders/7?lang=de") => json(200, r#"{"id": 7}"#),
        ("GET", "/orders/none") => answer(404)
            .header("Content-Type", "application/problem+json")
            .body(r#"{"title": "not found", "detail": "no order none", "n": 1}"#),
        ("GET", "/orders/busy") => answer(503).header("Content-Type", "text/html").body("<p>"),
        ("GET", "/orders/odd") => answer(200).header("Content-Type", "text/html").body("<p>"),
        ("GET", "/orders") => json(200, r#"[{"id": 1}, {"id": 2}]"#),
        ("POST", "/orders") => json(201, r#"{"id": 8}"#),
        ("PUT", "/told") => json(200, &format!("{{\"told\": {}}}", seen.text())),
        _ => answer(204),
    })
}

#[test]
fn zeep_uses_a_service_of_json() {
    let origin = orders();
    let gw = route("/soap", &ORDERS.replace('\n', " "), &origin);
    let url = format!("http://{}/soap", gw.address().tcp());
    assert_eq!(output(python("soap_client.py").arg(url)), "ok\n");
    let seen = origin.requests();
    let placed: serde_json::Value =
        serde_json::from_slice(&seen.iter().find(|seen| seen.method == "POST").unwrap().body).unwrap();
    assert_eq!(
        placed,
        serde_json::json!({ "customer": "Zoë & co", "express": true, "line": [{ "sku": "x", "count": 1 }] })
    );
    assert!(
        seen.iter()
            .filter(|seen| seen.method == "GET")
            .all(|seen| seen.body.is_empty() && !seen.headers.has("content-type"))
    );
    assert!(seen.iter().all(|seen| !seen.headers.has("soapaction")));
}

#[test]
fn messages_become_requests_and_answers_become_messages() {
    let origin = orders();
    let gw = route("/soap", &ORDERS.replace('\n', " "), &origin);
    let call = |body: &str| gw.post("/soap").header("Content-Type", "text/xml").body(body).send();
    let get = |id: &str| {
        call(&envelope(V11, &format!("<o:GetOrder xmlns:o='urn:orders'><id>{id}</id><lang>de</lang></o:GetOrder>")))
    };
    let got = get("7").expect(200);
    assert_eq!(got.header("content-type"), "text/xml; charset=utf-8");
    let message =
        |inside: &str| format!("<soap:Envelope xmlns:soap=\"{V11}\"><soap:Body>{inside}</soap:Body></soap:Envelope>");
    assert!(
        got.text().ends_with(&message("<GetOrderResponse xmlns=\"urn:orders\"><id>7</id></GetOrderResponse>")),
        "{}",
        got.text()
    );
    assert_eq!(origin.only_request().header("accept"), "application/json");
    let list = call(&envelope(V11, "<List xmlns='urn:orders'/>")).expect(200);
    let expected = "<Orders xmlns=\"urn:orders\"><order><id>1</id></order><order><id>2</id></order></Orders>";
    assert!(list.text().ends_with(&message(expected)), "{}", list.text());
    let told = call(&envelope(V11, "<Tell xmlns='urn:orders'><who>\"me\"</who><by>you</by></Tell>")).expect(200);
    assert!(told.text().contains("<who>\"me\"</who><by>127.0.0.1</by>"), "{}", told.text());
    let dropped = call(&envelope(V11, "<DropOrder xmlns='urn:orders'><id>7</id></DropOrder>")).expect(200);
    assert!(dropped.text().contains("<DropOrderResponse xmlns=\"urn:orders\"/>"), "{}", dropped.text());
    // By its action, where the element says nothing.
    let by_action = gw.post("/soap").header("Content-Type", "text/xml").header("SOAPAction", "\"urn:orders#GetOrder\"");
    by_action.body(envelope(V11, "<other xmlns='urn:else'><id>7</id><lang>de</lang></other>")).send().expect(200);
}

#[test]
fn what_goes_wrong_is_a_fault() {
    let origin = orders();
    let gw = route("/soap", &ORDERS.replace('\n', " "), &origin);
    let call = |media: &str, body: &str| gw.post("/soap").header("Content-Type", media).body(body).send();
    let get = |namespace: &str, id: &str| {
        envelope(namespace, &format!("<GetOrder xmlns='urn:orders'><id>{id}</id></GetOrder>"))
    };
    let (v11, v12) = ("text/xml", "application/soap+xml");
    let none = call(v12, &get(V12, "none")).expect(400);
    assert_eq!(none.header("content-type"), "application/soap+xml; charset=utf-8");
    for part in ["<soap:Value>soap:Sender<", "no order none<", "<soap:Detail><problem><title>not found<"] {
        assert!(none.text().contains(part), "{}", none.text());
    }
    for (media, body, status, said) in [
        (v11, get(V11, "none"), 500, "<faultcode>soap:Client<"),
        (v11, get(V11, "busy"), 500, "<faultcode>soap:Server<"),
        (v11, get(V11, "odd"), 502, "<faultcode>soap:Server<"),
        (v12, get(V12, "busy"), 500, "soap:Receiver"),
        (v11, get("urn:else", "7"), 500, "<faultcode>soap:VersionMismatch<"),
        (v11, get(V11, ".."), 500, "no segment"),
        (v11, get(V11, ""), 500, "no segment"),
        (v11, envelope(V11, "<Nothing xmlns='urn:orders'/>"), 500, "no operation `Nothing`"),
        (v11, envelope(V11, "<GetOrder xmlns='urn:else'><id>7</id></GetOrder>"), 500, "no operation"),
        (v12, envelope(V12, ""), 400, "no operation"),
        (v11, "<a/>".to_owned(), 500, "no SOAP envelope"),
        (v11, "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>".to_owned(), 500, "document type"),
        (v11, "<a>".repeat(100_000), 500, "faultstring"),
        ("application/json", "{}".to_owned(), 415, "faultstring"),
    ] {
        let got = call(media, &body).expect(status);
        assert!(got.text().contains("Fault>") && got.text().contains(said), "{body:.200}\n{}", got.text());
    }
    let header = |block: &str| {
        let body = get(V11, "7&amp;lang=de").replace("<e:Body>", &format!("<e:Header>{block}</e:Header><e:Body>"));
        call(v11, &body).text()
    };
    assert!(header("<a xmlns='urn:x' e:mustUnderstand='1'/>").contains("soap:MustUnderstand"));
    assert!(header("<a xmlns='urn:x' e:mustUnderstand='1' e:actor='urn:somebody'/>").contains("GetOrderResponse"));
    assert!(
        header("<a xmlns='urn:known' e:mustUnderstand='1'/><b e:mustUnderstand='0'/>").contains("GetOrderResponse")
    );
    let got = gw.get("/soap").send().expect(405);
    assert!(got.header("allow") == "POST" && got.text().contains("faultstring"), "{}", got.text());
}

/// The gateway's own refusals are Faults as well, whoever refuses.
#[test]
fn refusals_of_other_policies_are_faults() {
    let origin = orders();
    let gw = gateway()
        .upstream("origin", &origin)
        .config(&format!(
            "[[route]]\nmatch = \"/soap\"\nupstream = \"origin\"\nsoap = {}\naccess = {{ deny = [\"127.0.0.0/8\"] }}",
            ORDERS.replace('\n', " ")
        ))
        .start();
    let got = gw.post("/soap").header("Content-Type", "application/soap+xml").body("<a/>").send().expect(403);
    assert!(got.text().contains("soap:Sender"), "{}", got.text());
    assert_eq!(gw.logged("who", |line| line["status"] == 403)["stopped_by"], "access");
}

#[test]
fn mistakes_are_told() {
    let wrong = |soap: &str| {
        let route = format!("[[route]]\nmatch = \"/**\"\nupstream = \"o\"\nsoap = {soap}");
        gateway().config("[upstream]\no = [\"127.0.0.1:1\"]").config(&route).refused()
    };
    for (soap, told) in [
        ("{}", "either the upstream speaks SOAP, or the clients do"),
        (r#"{ call = { operation = "a:b", namespace = "" } }"#, "`a:b` is not a name of an element"),
        (r#"{ call = { operation = "a", namespace = "", prefix = "m" } }"#, "a prefix has a namespace"),
        (r#"{ call = { operation = "a", namespace = "x", prefixes = { soap = "y" } } }"#, "cannot be a prefix"),
        (r#"{ call = { operation = "a", namespace = "x", version = "2" } }"#, "version"),
        (r#"{ call = { operation = "a", namespace = "x", arrays = ["a..b"] } }"#, "arrays"),
        (r#"{ call = { operation = "a", namespace = "x", faults = { X = 200 } } }"#, "from 400 to 599"),
        (r#"{ call = { operation = "a", namespace = "x", body = { a = "{path.id}" } } }"#, "path.id"),
        (r#"{ call = { operation = "a", namespace = "x", action = "a\"b" } }"#, "without quotes"),
        (r#"{ serve = { namespace = "x", operations = {} } }"#, "there are no operations"),
        (r#"{ serve = { namespace = "x", operations = { A = { path = "a" } } } }"#, "a path begins with `/`"),
        (
            r#"{ serve = { namespace = "x", operations = { A = { path = "/", method = "BREW" } } } }"#,
            "`BREW` is not a method",
        ),
        (r#"{ serve = { namespace = "x", operations = { A = { path = "/{body.id" } } } }"#, "without a `}`"),
    ] {
        let said = wrong(soap);
        assert!(said.contains(told), "{soap}\n{said}");
    }
}
