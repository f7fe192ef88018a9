//! Mistakes in a configuration: every one is refused, with its line, and with words that say what to do.

use crate::harness::{gateway, portcullis};

const BASE: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\n[upstream]\no = [\"127.0.0.1:1\"]\n";

/// The configuration behind [`BASE`], and what must be said of it.
const MISTAKES: &[(&str, &[&str])] = &[
    (
        "[api.m]\n[[route]]\nmatch = \"/\"\napi = \"n\"\nupstream = \"o\"",
        &["there is no api `n`", "did you mean `m`?", ":8:7"],
    ),
    ("[api.m]\n[[route]]\nmatch = \"/\"\napi = [\"m\", \"m\"]\nupstream = \"o\"", &["`m` is given twice", ":8:13"]),
    ("[[route]]\nmatch = \"/\"\napi = []\nupstream = \"o\"", &["belongs to no api", "`api = false`"]),
    ("[[route]]\nmatch = \"/\"\napi = [1]\nupstream = \"o\"", &["the name of an api in quotes", ":7:8"]),
    ("[api]\nm = 1", &["an api is a table", "write [api.m]"]),
    ("[api.m]\nlisten = \"publik\"", &["there is no listener `publik`", "did you mean `public`?"]),
    ("[api.m]\nhosts = \"a:80\"", &["without its port", ":6:9"]),
    ("[api.m]\nbase_path = \"/a/{b}\"", &["literal segments only", ":6:13"]),
    ("[api.m]\nbase_pth = \"/a\"", &["did you mean `base_path`?"]),
    ("[api.m]\nroutes = true", &["expected", ":6:10"]),
    ("[api.m]\ntimeout = \"2\"\n[[route]]\nmatch = \"/\"\napi = \"m\"\nupstream = \"o\"", &["has no unit", ":6:11"]),
    (
        "[api.m]\nhosts = \"*.a.test\"\n[[route]]\nmatch = { path = \"/\", host = \"a.test\" }\napi = \"m\"\nupstream = \"o\"",
        &["`a.test` is no host of the api `m`", "its hosts are `*.a.test`"],
    ),
    (
        "[api.m]\n[api.n]\n[[route]]\nmatch = \"/x\"\napi = [\"m\", \"n\"]\nupstream = \"o\"",
        &["two routes take GET /x, and neither is more specific"],
    ),
    (
        "[api.m]\nlisten = [\"public\"]\n[api.n]\nlisten = [\"public\"]\n[[route]]\nmatch = \"/x\"\napi = [\"m\", \"n\"]\nupstream = \"o\"",
        &["GET /x with the listener `public`"],
    ),
    ("[api.m]\n[defaults]\nview.n = {}", &["there is no api `n`", ":7:6"]),
    ("[api.m]\n[defaults]\nview.m = 1", &["a view is a table", ":7:10"]),
    ("[api.m]\nview.n = {}\n[api.n]", &["belongs into [api.n]", ":6:6"]),
    (
        "[api.m]\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nview.m = {}",
        &["the route is not served for the api `m`", ":9:6"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nversion = \"v1\"", &["is for a whole API", "[api.NAME]"]),
    ("[defaults]\nversion = \"v1\"", &["is for a whole API", ":6:1"]),
    ("[api.m]\nversion = { by = \"path\" }", &["`name` is missing here"]),
    ("[api.m]\nversion = \"a/b\"", &["cannot be the name of a version"]),
    ("[api.m]\nversion = { name = \"v1\", by = { header = \"a b\" } }", &["not the name of a header field"]),
    (
        "[api.m]\nversion = { name = \"v1\", by = { media_type = \"application/vnd.a.v1+json\" } }",
        &["where the name of a version stands", "application/vnd.a.{version}+json"],
    ),
    ("[api.m]\nversion = { name = \"v1\", sunset = \"2026-13-01\" }", &["is not a date", "2026-06-01", ":6:35"]),
    (
        "[api.m]\nversion = { name = \"v1\", deprecated = \"2026-02-01\", sunset = \"2026-01-01\" }",
        &["`sunset` is before `deprecated`", ":6:62"],
    ),
    ("[api.m]\nversion = { name = \"v1\", after = \"gone\" }", &["without a `sunset`", ":6:34"]),
    (
        "[api.m]\nversion = { name = \"v1\", sunset = \"2026-01-01\", after = \"redirect\" }",
        &["without a `successor` there is nowhere to lead to"],
    ),
    (
        "[api.m]\nversion = { name = \"v1\", by = { header = \"X-V\" }, sunset = \"2026-01-01\", successor = \"v2\", after = \"redirect\" }",
        &["lead in a circle", "after = \"gone\""],
    ),
    (
        "[api.m]\nversion = { name = \"v1\", successor = \"v3\" }\n[api.n]\nversion = \"v2\"",
        &["there is no other version `v3`", "did you mean `v2`?", ":6:38"],
    ),
    ("[api.m]\nversion = \"v1\"\n[api.n]\nversion = \"1\"", &["the versions `v1` and `1` have one name"]),
    (
        "[api.m]\nversion = { name = \"v1\", default = true }\n[api.n]\nversion = { name = \"v2\", default = true }",
        &["two versions are the default"],
    ),
    (
        "[api.m]\nversion = { name = \"v1\", by = \"path\" }\n[api.n]\nversion = { name = \"v2\", by = { query = \"v\" } }",
        &["told apart in one way", ":8:31"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"oo\"", &["there is no upstream `oo`", "did you mean `o`?", ":7:12"]),
    ("[[route]]\nmatch = \"/\"", &["the route leads nowhere"]),
    ("[defaults]\nvalidate = { max_body = 10 }", &["expected a size with its unit", ":6:25"]),
    ("[defaults]\nvalidate = {}", &["`validate` says nothing"]),
    (
        "[[route]]\nmatch = \"/\"\nrespond = {}\nvalidate = { body = { type = \"object\" } }",
        &["the route answers by itself, so no body is looked at"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nrespond = {}\nresponse = { body = { remove = [\"a\"] } }",
        &["the route answers by itself, so no body is looked at"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { openapi = \"u.yaml\" }",
        &["cannot read", "u.yaml", ":8:24"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { openapi = { fiel = \"u.yaml\" } }",
        &["expected the name of a file, or { file", ":8:24"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { body = { type = \"objekt\" } }",
        &["the schema is wrong: at /type: ", ":8:21", "1 error"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { query = { page = { type = \"nteger\" } } }",
        &["the schema is wrong: at /type: ", ":8:31", "1 error"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { query = { page = { minimun = 1 } } }",
        &["`minimun` is no keyword", "did you mean `minimum`?", ":8:43"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { query = { q = { pattern = \"(?=a)\" } } }",
        &["at /pattern: ", "no look-around", ":8:28"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { query = { q = { \"$ref\" = \"https://x.test/q\" } } }",
        &["nothing is fetched", ":8:28"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { query = { page = 1 } }",
        &["expected a schema", ":8:31"],
    ),
    (
        "[[route]]\nmatch = \"/{id}\"\nupstream = \"o\"\nvalidate = { path = { ip = {} } }",
        &["there is no capture `ip`", "did you mean `id`?", ":8:28"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { headers = { \"a b\" = {} } }",
        &["`a b` is not the name of a header field"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { content_types = [\"json\"] }",
        &["`json` is not a content type", ":8:31"],
    ),
    ("[defaults]\ntimeout = 2", &["expected a table"]),
    ("[defaults]\ntimeout = \"2\"", &["has no unit", "\"2s\"", ":6:11"]),
    ("[defaults]\ntimeout = { total = \"0s\", first_bite = \"1s\" }", &["did you mean `first_byte`?"]),
    ("[defaults]\ntimeout = { total = \"0s\" }", &["no time at all", ":6:21"]),
    (
        "[defaults]\nmirror = { upstream = \"oo\" }",
        &["there is no upstream `oo`", "did you mean `o`?", ":6:23", "1 error"],
    ),
    ("[defaults]\nmirror = { upstream = \"o\", share = 10 }", &["more than 0 and at most 1", ":6:36"]),
    ("[defaults]\nmirror = { upstream = \"o\", max_body = \"2MiB\" }", &["at most 1MiB", ":6:39"]),
    (
        "[upstream.e]\nservers = [\"a:1\"]\ntls = {}\n[defaults]\nmirror = { upstream = \"e\" }",
        &["sent by HTTP/1.1 without TLS, which this upstream does not speak", ":9:23", "1 error"],
    ),
    ("[[test]]\nrequest = \"GET /\"\nexpect = { mirror = \"o\" }", &["expected copies for the upstream `o`, got none"]),
    (
        "[defaults]\ngrpc_web = true",
        &["`grpc_web` needs a route to an upstream that speaks HTTP/2", "protocol = \"h2c\"", ":6:12", "1 error"],
    ),
    ("[defaults]\ngrpc_web = { text = true }", &["`text` is not known here"]),
    ("[defaults]\ngrpc_json = true", &["expected a table", ":6:13"]),
    ("[defaults]\ngrpc_json = {}", &["`descriptors` is missing here"]),
    ("[defaults]\ngrpc_json = { descriptors = \"a.pb\" }", &["cannot read", "a.pb", ":6:29", "1 error"]),
    (
        "[defaults]\ngrpc_json = { descriptors = \"portcullis.toml\", stream = \"ndjson\" }",
        &["not a whole descriptor set, as `protoc --include_imports` writes it", ":6:29", "1 error"],
    ),
    ("[defaults]\nretry = true", &["expected a table", ":6:9"]),
    ("[defaults]\nretry = { attempts = 11 }", &["more than 10 further tries", ":6:22"]),
    ("[defaults]\nretry = { on = [\"conect\"], budget = \"1%\" }", &["did you mean `connect`?", "`budget`"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrespond = {}", &["more than one destination"]),
    ("[[route]]\nupstream = \"o\"", &["`match` is missing here"]),
    ("[[route]]\nmatch = \"a\"\nupstream = \"o\"", &["does not begin with `/`"]),
    ("[[route]]\nmatch = \"get /a\"\nupstream = \"o\"", &["methods are written in upper case: GET"]),
    ("[[route]]\nmatch = \"BREW /a\"\nupstream = \"o\"", &["`BREW` is not a method"]),
    ("[[route]]\nmatch = \"/a/{}\"\nupstream = \"o\"", &["a capture has a name"]),
    ("[[route]]\nmatch = \"/a/{x}/{x}\"\nupstream = \"o\"", &["given to two captures"]),
    ("[[route]]\nmatch = \"/a/x{y}\"\nupstream = \"o\"", &["a capture is a whole segment"]),
    ("[[route]]\nmatch = \"/a/{y\"\nupstream = \"o\"", &["a `{` without a `}`"]),
    ("[[route]]\nmatch = \"/a/y}\"\nupstream = \"o\"", &["a `}` without a `{`"]),
    ("[[route]]\nmatch = \"/a/**/b\"\nupstream = \"o\"", &["it is the last segment"]),
    ("[[route]]\nmatch = \"/a//b\"\nupstream = \"o\"", &["an empty segment"]),
    ("[[route]]\nmatch = \"/a/../b\"\nupstream = \"o\"", &["write it as in `/b`"]),
    ("[[route]]\nmatch = \"/%41\"\nupstream = \"o\"", &["write it as in `/A`"]),
    ("[[route]]\nmatch = \"/a/{x:[}\"\nupstream = \"o\"", &["is not a regular expression"]),
    ("[[route]]\nmatch = { path = \"/\", host = \"a:80\" }\nupstream = \"o\"", &["without its port"]),
    ("[[route]]\nmatch = { path = \"/\", host = \"a b\" }\nupstream = \"o\"", &["is not a host"]),
    (
        "[[route]]\nmatch = { path = \"/\", headers = { \"a b\" = \"1\" } }\nupstream = \"o\"",
        &["not the name of a header field"],
    ),
    (
        "[[route]]\nmatch = { path = \"/\", headers = { a = { regex = \"(\" } } }\nupstream = \"o\"",
        &["not a regular expression"],
    ),
    (
        "[[route]]\nmatch = { path = \"/\", headers = { a = 1 } }\nupstream = \"o\"",
        &["expected the value in quotes", "found the number 1"],
    ),
    ("[[route]]\nmatch = { path = \"/\", when = \"request.\" }\nupstream = \"o\"", &["not a CEL expression"]),
    (
        "[[route]]\nmatch = { path = \"/\", when = \"user == 1\" }\nupstream = \"o\"",
        &["`user` is not known", "`request`"],
    ),
    (
        "[[route]]\nmatch = { path = \"/\", when = \"'a' in request.hedaers\" }\nupstream = \"o\"",
        &["`request` has no `hedaers`", "did you mean `headers`?"],
    ),
    ("[[route]]\nmatch = { path = \"/\", when = \"1 + 1\" }\nupstream = \"o\"", &["a condition is true or false"]),
    ("[[route]]\nmatch = { pth = \"/\" }\nupstream = \"o\"", &["`pth` is not known here", "did you mean `path`?"]),
    ("[[route]]\nmatch = 1\nupstream = \"o\"", &["expected a match", "found the number 1"]),
    (
        "[[route]]\nmatch = \"/a/{x}\"\nupstream = \"o\"\n[[route]]\nmatch = \"/{y}/b\"\nupstream = \"o\"",
        &["two routes take GET /a/b", "the other route"],
    ),
    (
        "[[route]]\nmatch = \"/a\"\nupstream = \"o\"\n[[route]]\nmatch = \"/a\"\nupstream = \"o\"",
        &["two routes take GET /a"],
    ),
    (
        "[[route]]\nmatch = \"GET,POST /a\"\nupstream = \"o\"\n[[route]]\nmatch = \"POST,PUT /a\"\nupstream = \"o\"",
        &["two routes take POST /a"],
    ),
    (
        "[[route]]\nmatch = \"/{x:[a-m]+}\"\nupstream = \"o\"\n[[route]]\nmatch = \"/{x:[m-z]+}\"\nupstream = \"o\"",
        &["two routes take GET /m"],
    ),
    (
        "[[route]]\nmatch = { path = \"/a\", when = 'request.host == \"a\"' }\nupstream = \"o\"\n[[route]]\nmatch = { path = \"/a\", when = 'request.host == \"b\"' }\nupstream = \"o\"",
        &["two routes take GET /a", "two `when` are never told apart", "one with no `when` takes the rest"],
    ),
    (
        "[[route]]\nname = \"a\"\nmatch = \"/a\"\nupstream = \"o\"\n[[route]]\nname = \"a\"\nmatch = \"/b\"\nupstream = \"o\"",
        &["two routes have the name `a`"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nuse = [\"x\"]", &["there is no policy `x`"]),
    ("[defaults]\nsoap = {}", &["either the upstream speaks SOAP, or the clients do", ":6:8"]),
    (
        "[defaults]\nsoap.call = { operation = \"m:Get\", namespace = \"\" }",
        &["`m:Get` is not a name of an element", "without its prefix", ":6:27"],
    ),
    (
        "[defaults]\nsoap.serve = { namespace = \"\", operations = { A = { path = \"/\", metod = \"GET\" } } }",
        &["did you mean `method`?"],
    ),
    ("[defaults]\ngraphql = { query = \"query($id: ID!) { a }\" }", &["the query needs the variable `id`"]),
    ("[defaults]\ngraphql = { query = \"{ a(b: ) }\" }", &["syntax error", "at line 1, column 8", ":6:21"]),
    ("[defaults]\ngraphql_guard = { max_depth = 101 }", &["a depth is from 1 to 100", ":6:31"]),
    (
        "[auth.idp]\njwt = { jwks = \"https://id.test/\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauth = \"ipd\"",
        &["there is no auth provider `ipd`", "did you mean `idp`?", ":10:8"],
    ),
    (
        "[auth.idp]\njwt = { jwks = \"https://id.test/\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauth = [\"idp\", \"x\"]",
        &["there is no auth provider `x`", ":10:16"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauth = []", &["nobody could be known", "auth = false"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauth = true", &["expected text in quotes, or a list"]),
    ("[[route]]\nmatch = \"/\"\nsplit = { oo = 1 }", &["there is no upstream `oo`", "did you mean `o`?", "^"]),
    ("[[route]]\nmatch = \"/\"\nsplit = { o = 0 }", &["no upstream has a weight"]),
    ("[[route]]\nmatch = \"/\"\nsplit = { o = 1000001 }", &["cannot be told apart"]),
    ("[[route]]\nmatch = \"/\"\nsplit = { o = 1 }\nupstream = \"o\"", &["more than one destination"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nsticky = \"client\"", &["`sticky` says nothing without a `split`"]),
    ("[[route]]\nmatch = \"/\"\nsplit = { o = 1 }\nsticky = \"cookie:\"", &["not the name of a cookie"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nreponse = {}",
        &["`reponse` is not known here", "did you mean `response`?"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nresponse = { header = {} }", &["did you mean `headers`?"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nresponse = { headers = { set = { \"a b\" = \"1\" } } }",
        &["not the name of a header field"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nresponse = { headers = { set = { Connection = \"x\" } } }",
        &["`connection` cannot be edited"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrequest = { headers = { remove = [\"*\"] } }",
        &["`*` would remove every field"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrequest = { headers = { set = { Host = \"x\" } } }",
        &["has `host` for it"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nresponse = { headers = { set = { A = \"{client.pi}\" } } }",
        &["did you mean `{client.ip}`?"],
    ),
    (
        "[[route]]\nmatch = \"/{id}\"\nupstream = \"o\"\nrequest = { path = \"/{path.di}\" }",
        &["the route's path captures id"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrequest = { path = \"x\" }", &["a path begins with `/`"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrequest = { host = \"a b\" }", &["is not a host"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\naccess = { allow = [\"10.0.0.1/8\"] }",
        &["bits set outside its prefix", "10.0.0.0/8"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\naccess = { allow = [] }", &["nobody could be let in", ":8:20"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\naccess = {}", &["give it `allow` or `deny`"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\naccess = { alow = [] }", &["did you mean `allow`?"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origins = \"*\", credentials = true }",
        &["every page could use its visitors' credentials", "name the origins"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = {}", &["`origins` is missing here"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origins = [] }", &["no page could use the route"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origins = [\"*\"] }",
        &["write origins = \"*\" for all of them"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origins = [\"app.example.com\", \"https://a.test/\", \"https://a.test:443\", \"null\", \"https://a.*.test\"] }",
        &[
            "`app.example.com` is not an origin",
            "write \"https://a.test\"",
            "browsers leave `:443` out",
            "sandboxed pages",
            "`https://a.*.test` is not an origin",
            "5 errors",
        ],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origins = \"*\", methods = [\"get\"], headers = [\"a b\"], expose = [\"*\"] }",
        &[
            "`get` is not the name of a method",
            "`a b` is not the name of a header field",
            "a list of names, without `*`",
        ],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncors = { origin = \"*\" }", &["did you mean `origins`?"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = {}", &["`rate` is missing here"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"100\" }",
        &["is not a rate", "\"100/s\"", ":8:23"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = 100 }",
        &["expected a rate, such as \"100/s\""],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"100/m\" }", &["did you mean \"100/min\"?"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"0/s\" }", &["would let nothing through"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", burst = 0 }",
        &["a burst of 0", ":8:38"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", by = \"clinet\" }",
        &["cannot count by `clinet`", "did you mean `client`?"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", by = [] }",
        &["an empty list counts by nothing"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", by = [\"client\", \"client\"] }",
        &["`client` is given twice"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", by = \"header:a b\" }",
        &["`a b` is not the name of a header field"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", over = \"delay\" }", &["delay"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", over = { delay = \"5m\" } }",
        &["waits for at most 1m", ":8:47"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = [{ rate = \"1/s\" }, { rate = \"1/s\", ipv6_prefix = 129 }]",
        &["1 to 128 bits", ":8:63"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = []", &["an empty list limits nothing"]),
    (
        "[store.shared]\nredis = { url = \"redis://h\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", store = \"share\" }",
        &["there is no store `share`", "did you mean `shared`?", ":10:38"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", store = \"shared\" }",
        &["there is no store `shared`", "no store is defined"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", store_down = \"open\" }",
        &["`store_down` says nothing without a `store`", ":8:43"],
    ),
    (
        "[store.shared]\nredis = { url = \"redis://h\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/s\", store = \"shared\", store_down = \"opne\" }",
        &["`opne`", "`open`"],
    ),
    (
        "[store.shared]\nredis = { url = \"redis://h\" }\n[store.b]\nredis = { url = \"redis://h\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = [{ rate = \"1/s\", store = \"shared\" }, { rate = \"1/h\", store = \"b\" }]",
        &["the limits of one list are counted in one store", ":12:75", "1 error\n"],
    ),
    (
        "[store.shared]\nredis = { url = \"redis://h\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nrate_limit = { rate = \"1/d\", burst = 200, store = \"shared\" }",
        &["a store cannot count so far ahead", "104 days"],
    ),
    ("[store.shared]", &["`redis` is missing here"]),
    ("[store.shared]\nredis = {}", &["`url` is missing here"]),
    ("[store.shared]\nredis = { url = \"http://h\" }", &["begins with redis://"]),
    ("[store.shared]\nredis = { url = \"redis://h/a\" }", &["there is the number of a database"]),
    ("[store.shared]\nredis = { url = \"redis://user@h\" }", &["before the `@` there is a password"]),
    (
        "[store.shared]\nredis = { url = { env = \"PORTCULLIS_NO_SUCH_VARIABLE\" } }",
        &["the environment has no variable"],
    ),
    ("[store.shared]\nredis = { url = \"redis://h\", timeout = \"1m\" }", &["a call takes from 1ms to 5s"]),
    ("[store.shared]\nredis = { url = \"redis://h\", ca = \"none.pem\" }", &["without TLS", "rediss://"]),
    ("[store.shared]\nredis = { url = \"rediss://h\", ca = \"none.pem\" }", &["cannot read"]),
    ("[store.\"a b\"]\nredis = { url = \"redis://h\" }", &["`a b` cannot be the name of a store"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nconcurrency = {}", &["`max` is missing here"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nconcurrency = { max = 0 }", &["nobody could be served", ":8:23"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nconcurrency = { max = 1, queue = { size = 0, wait = \"2m\" } }",
        &["leave `queue` out", "waits for at most 1m", "2 errors"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nconcurrency = { max = 1, queue = { size = 1 } }",
        &["`wait` is missing here"],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nconcurrency = { max = 1, by = \"me\", ipv6_prefix = 0 }",
        &["cannot count by `me`"],
    ),
    ("[[route]]\nmatch = \"/\"\nrespond = { status = 99 }", &["a number from 200 to 599"]),
    ("[[route]]\nmatch = \"/\"\nrespond = { status = \"200\" }", &["from 0 to 65535, found the text"]),
    ("[[route]]\nmatch = \"/\"\nredirect = { to = \"/x\", status = 200 }", &["a redirect has the status 301"]),
    ("[[route]]\nmatch = \"/\"\nredirect = { to = \"/{x\" }", &["a `{` without a `}`"]),
    ("[defaults]\nrat_limit = {}", &["`rat_limit` is not known here"]),
    ("[policy]\nx = 1", &["a bundle of policies is a table"]),
    ("[upstream.e]\nservers = []", &["an upstream without servers"]),
    ("[upstream.e]\nservers = [\"a\"]", &["`a` has no port"]),
    ("[upstream.e]\nservers = [\"http://a:1\"]", &["is a URL, and a server is an address"]),
    ("[upstream.e]\nservers = [\"a:0\"]", &["is not a port from 1 to 65535"]),
    ("[upstream.e]\nservers = [\"a:1\", \"a:1\"]", &["the server `a:1` is given twice"]),
    ("[upstream.e]\nservers = [{ address = \"a:1\", weight = 0 }]", &["a weight is 1 or more"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbalance = \"least_requests\"", &["did you mean `least_request`?"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbalance = { hash = \"head:x\" }", &["hash `header:NAME`"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nhealth = { path = \"x\" }", &["the path of a check begins with `/`"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nhealth = { interval = \"5\" }", &["has no unit", "\"5s\""]),
    ("[upstream.e]\nservers = [\"a:1\"]\nhealth = { interval = \"1ms\" }", &["at least 100ms apart"]),
    (
        "[upstream.e]\nservers = [\"a:1\"]\ntimeouts = { connect = 5 }",
        &["expected a duration with its unit", "found the number 5"],
    ),
    ("[upstream.e]\nservers = [\"a:1\"]\nretry = { on = [\"conect\"] }", &["did you mean `connect`?"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nretry = { budget = \"200%\" }", &["is not a share"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nprotocol = \"h2\"", &["`h2` is HTTP/2 over TLS"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nprotocol = \"h2c\"\ntls = {}", &["`h2c` is HTTP/2 without TLS"]),
    ("[upstream.e]\nservers = [\"a:1\"]\ntls = { verify = false }", &["insecure_skip_verify = true"]),
    ("[upstream.e]\nservers = [\"a:1\"]\ntls = { ca = \"none.pem\" }", &["cannot read", "none.pem: No such file"]),
    ("[upstream.e]\nservers = [\"a:1\"]\ntls = { cert = \"portcullis.toml\" }", &["the certificate needs its `key`"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nslow_start = \"0s\"", &["no time at all is no slow start", ":7:14"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbreaker = { failures = 1.5 }", &["more than 0 and at most 1", "write 0.5"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbreaker = { window = \"0s\" }", &["the time is 10ms or more"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbreaker = { probes = 0 }", &["at least one request decides"]),
    ("[upstream.e]\nservers = [\"a:1\"]\nbreaker = { min_request = 1 }", &["did you mean `min_requests`?"]),
    ("[upstream.e]\nservers = [\"a:1\"]\noutlier = { consecutive = 0 }", &["at least one failure decides"]),
    ("[upstream.e]\nservers = [\"a:1\"]\noutlier = { max_ejected = 0.0 }", &["more than 0 and at most 1"]),
    ("[upstream.e]\nservers = [\"a:1\"]\noutlier = { eject_for = \"0s\" }", &["stays away for some time"]),
    ("[metrics]\nmax_series = 0", &["nothing would be told apart", ":6:14"]),
    ("[metrics]\nmax_serie = 1", &["did you mean `max_series`?"]),
    ("[metrics]\nmax_series = \"1\"", &["found the text"]),
    ("[trace]", &["`endpoint` is missing here"]),
    (
        "[trace]\nendpoint = \"127.0.0.1:4318\"",
        &["is not the address of a collector", "write \"http://127.0.0.1:4318\""],
    ),
    ("[trace]\nendpoint = \"http://a:4318\"\nsample = 2.0", &["from 0 to 1"]),
    ("[trace]\nendpoint = \"http://a:4318\"\nsampel = 0.5", &["did you mean `sample`?"]),
    ("[upstream.\"a b\"]\nservers = [\"a:1\"]", &["cannot be the name of an upstream"]),
    ("[listen.x]\naddress = \"8080\"", &["is not an address to listen on"]),
    ("[listen.x]\naddress = \"127.0.0.1:0\"\nmax_connections = 0", &["nobody could be served"]),
    ("[listen.x]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [] }", &["TLS needs a certificate"]),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"no.pem\", key = \"no.key\" }] }",
        &["no.pem: No such file", "no.key: No such file"],
    ),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [], client_auth = \"optional\" }",
        &["`client_auth` says nothing without a `client_ca`", "add `client_ca`", ":7:42"],
    ),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [\"a.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true }",
        &["need a place to be kept in", "add state_dir", ":8:8"],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [\"*.a.test\", \"127.0.0.1\", \"a_b.test\", \"A.test\", \"a.test\"], challenge = \"tls-alpn-01\" }",
        &[
            "`*.a.test` is a wildcard, which only DNS-01 can prove",
            "`127.0.0.1` is an address",
            "`a_b.test` is not a name",
            "`a.test` is given twice",
            "write agree_to_terms = true",
            "5 errors",
        ],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [], challenge = \"dns-01\", agree_to_terms = true }",
        &["dns-01", "`http-01`, `tls-alpn-01`"],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [], challenge = \"http-01\", agree_to_terms = true, contact = \"ops@a.test\", directory = \"http://a.test\", ca = \"none.pem\", external_account = { kid = \"\", key = { env = \"A\" } } }",
        &[
            "for at least one name",
            "`ops@a.test` is not a contact",
            "`http://a.test` is not the URL of an ACME directory",
            "none.pem: No such file",
            "gives an external account a key identifier",
        ],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [\"a.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true, external_account = { kid = \"k\", key = \"not base64!\" } }",
        &["the key of an external account is base64", "*************"],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = [{ names = [\"a.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true }, { names = [\"a.test\", \"b.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true }]",
        &["an earlier certificate is already obtained for `a.test`"],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { names = [\"a.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true }\n[listen.y]\naddress = \"127.0.0.1:0\"\n[listen.y.tls]\nacme = { names = [\"a.test\"], challenge = \"http-01\", agree_to_terms = true }",
        &["another listener has the certificate for a.test obtained with other settings", "write the same for both"],
    ),
    (
        "[server]\nstate_dir = \"s\"\n[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = { name = [\"a.test\"], challenge = \"tls-alpn-01\" }",
        &["did you mean `names`?", "`names` is missing here"],
    ),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\n[listen.x.tls]\nacme = true",
        &["a table with `names` and `agree_to_terms`"],
    ),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\nclient_ip = { header = \"X-Real-IP\", trust = [] }",
        &["`X-Forwarded-For` or `Forwarded`"],
    ),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\nclient_ip = { header = \"Forwarded\", trust = [\"10.0.0.1/8\"] }",
        &["bits set outside its prefix", "10.0.0.0/8"],
    ),
    ("[listen.x]\naddress = \"127.0.0.1:0\"\nlimits = { max_uri = \"8\" }", &["is not a size"]),
    ("[listen.x]\nadress = \"127.0.0.1:0\"", &["did you mean `address`?", "`address` is missing here"]),
    ("[admin]\naddress = \"0.0.0.0:1\"", &["a loopback address or a Unix socket only"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"\"", &["an empty token would protect nothing"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"a b\"", &["no white space", "token = *****"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = 12345678", &["a token is text in quotes", "token = ********"]),
    (
        "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { envv = \"A\" }",
        &["a table that says where it is", "{ env = \"NAME\" }"],
    ),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"NO_SUCH_TOKEN\" }", &["no variable `NO_SUCH_TOKEN`"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = { file = \"none.token\" }", &["cannot read", "none.token"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntoken = { credential = \"t\" }", &["$CREDENTIALS_DIRECTORY is not set"]),
    ("[admin]\naddress = \"127.0.0.1:0\"\ntokn = { env = \"A\" }", &["did you mean `token`?"]),
    ("[server]\nthreads = 0", &["1 to 1024 threads"]),
    ("[log]\naccess = { to = \"stdot\" }", &["did you mean `stdout`?"]),
    ("[log]\naccess = { fields = [\"stats\"] }", &["stats", "did you mean `status`?"]),
    ("[log]\naccess = { fields = [\"header.Authorization\"] }", &["`authorization` holds secrets"]),
    ("[log]\naccess = { format = { pattern = \"{path\" } }", &["a `{` without its `}`"]),
    ("[log]\naccess = { format = { pattern = \"{path}\" }, fields = [\"path\"] }", &["a pattern says itself"]),
    ("[log]\nlevel = \"loud\"", &["loud"]),
    ("[servers]\nthreads = 1", &["`servers` is not known here", "did you mean `server`?"]),
    ("[auth.x]\njwt = {}", &["there are no keys to check tokens with", "\"discover\""]),
    ("[auth.x]", &["says not how it knows callers", "give it `jwt`"]),
    ("[auth.x]\napi_key = { header = \"X-Key\" }", &["nobody has a key", "portcullis key new"]),
    ("[auth.x]\nbasic = {}", &["nobody has a key"]),
    ("[auth.x]\nbasic = { users = {} }", &["`users` is not known here"]),
    ("[auth.x]\nclient_certificate = {}", &["no listener asks clients for certificates", "tls.client_ca", ":6:22"]),
    ("[auth.x]\nclient_certificate = { name = \"cm\" }", &["did you mean `cn`?"]),
    (
        "[auth.x]\napi_key = { header = \"a b\" }\n[consumer.c]\nkeys = [{ sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]",
        &["`a b` is not the name of a header field"],
    ),
    (
        "[auth.x]\napi_key = { header = \"A\" }\nbasic = {}\n[consumer.c]\nkeys = [{ sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]",
        &["in more than one way", "a route can name several"],
    ),
    (
        "[auth.x]\napi_key = { header = \"A\" }\nconsumer = \"claims.sub\"\n[consumer.c]\nkeys = [{ sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]",
        &["have claims that can name the caller"],
    ),
    ("[consumer.c]\nkeys = [{ sha256 = \"9f86\" }]", &["has 64 hexadecimal digits", "portcullis key new"]),
    (
        "[consumer.c]\nkeys = [{ sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" }]",
        &["the hash of nothing"],
    ),
    (
        "[consumer.c]\nkeys = [{ sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]\n[consumer.d]\nkeys = [{ sha256 = \"9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]",
        &["the consumer `c` has this key already"],
    ),
    (
        "[consumer.c]\ncertificates = [\"a\"]\n[consumer.d]\ncertificates = [\"a\"]",
        &["the consumer `c` has this name already", ":8:17"],
    ),
    ("[auth.\"a b\"]\njwt = { jwks = \"https://id.test/\" }", &["cannot be the name of an auth provider"]),
    ("[auth.x]\nhmac = {}", &["this is not available in this version", ":6:"]),
    (
        "[auth.x]\nintrospection = { url = \"discover\", client_id = \"\", client_secret = { env = \"PORTCULLIS_NO_SUCH\" } }",
        &["to discover the place takes an `issuer`", ":6:25"],
    ),
    (
        "[auth.x]\nintrospection = { url = \"id.test\", client_id = \"\", client_secret = { env = \"PORTCULLIS_NO_SUCH\" }, ttl = \"500ms\", negative_ttl = \"2h\", timeout = \"0s\", groups = \"a\" }",
        &[
            "`id.test` is not a URL with https",
            "the gateway has to say who it is",
            "whole seconds, at most 1h",
            "requests wait for the answer",
            "`a` is not a claim",
            "no variable `PORTCULLIS_NO_SUCH`",
            "7 errors",
        ],
    ),
    (
        "[auth.x]\nintrospection = { url = \"https://id.test\", client_id = \"a\" }",
        &["`client_secret` is missing here"],
    ),
    (
        "[auth.x]\nforward = { url = \"http://id.test\" }",
        &["which field of the service's answer names the caller", ":5:"],
    ),
    (
        "[auth.x]\nforward = { url = \"id.test\", timeout = \"2m\", request_headers = [\"X-Forwarded-For\", \"Host\"], response_headers = [\"X-User\", \"Cookie\"], groups = \"claims.x-group\" }\nconsumer = \"claims.X-User\"",
        &[
            "`id.test` is not a URL with https",
            "requests wait for the answer",
            "the gateway itself says what `x-forwarded-for` is",
            "`host` cannot be edited",
            "no client could send `cookie` any more",
            "`X-User` is none of the response_headers, in lower case",
            "did you mean `x-user`?",
            "`x-group` is none of",
            "7 errors",
        ],
    ),
    (
        "[auth.x]\nforward = { url = \"http://id.test\", response_headers = [\"X-User\", \"Connection\"] }\nheaders = { x-user = \"{consumer}\" }\nconsumer = \"claims.x-user\"",
        &["`X-User` is given twice", "`connection` cannot be edited", "2 errors"],
    ),
    (
        "[auth.x]\nforward = { url = \"http://id.test\" }\nintrospection = { url = \"https://id.test\", client_id = \"a\", client_secret = { env = \"PATH\" } }",
        &["knows callers in more than one way"],
    ),
    ("[auth.x]\njwt = { jwks = \"discover\" }", &["to discover the keys takes an `issuer`"]),
    ("[auth.x]\njwt = { issuer = \"id\", jwks = \"discover\" }", &["`id` is not a URL with https", ":6:18"]),
    ("[auth.x]\njwt = { jwks = \"id.test\" }", &["`id.test` is not a URL with https"]),
    ("[auth.x]\njwt = { jwks = 7 }", &["\"discover\", a URL or { file = \"…\" }"]),
    ("[auth.x]\njwt = { jwks = { file = \"none.json\" } }", &["cannot read", "none.json"]),
    ("[auth.x]\njwt = { jwks = { file = \"portcullis.toml\" } }", &["not a JWK set"]),
    ("[auth.x]\njwt = { key = \"portcullis.toml\" }", &["no public key in PEM form"]),
    ("[auth.x]\njwt = { key = \"a\", secret = { env = \"A\" } }", &["more than one place", "keep one of"]),
    ("[auth.x]\njwt = { secret = \"hunter2\" }", &["at least 32 bytes", "openssl rand", "*******"]),
    (
        "[auth.x]\njwt = { secret = { env = \"PATH\" }, algorithms = [\"RS256\"] }",
        &["RS256 is not for a key of this type", "usual for it: HS256"],
    ),
    (
        "[auth.x]\njwt = { jwks = \"https://id.test/\", algorithms = [\"RS256\", \"HS256\"] }",
        &["take a shared secret, and published keys are none"],
    ),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\", algorithms = [\"none\"] }", &["`none` is not known here"]),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\", algorithms = [] }", &["no token could be good"]),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\", leeway = \"1h\" }", &["lets expired tokens live on"]),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\", refresh = \"1ms\" }", &["asked at most every 1s"]),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\", isuer = \"x\" }", &["did you mean `issuer`?"]),
    ("[auth.x]\njwt = { jwks = \"https://id.test/\" }\nconsumer = \"sub\"", &["`sub` is not a claim", "claims.sub"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = { scopes = [\"a\"] }",
        &["nobody is known on this route", "auth = \"NAME\""],
    ),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = { when = 'claims.a' }",
        &["nobody is known on this route"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = {}", &["nothing is demanded"]),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = { scopes = [\"a b\"] }", &["`a b` is not a scope"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = { when = 'consumer.nam == \"a\"' }",
        &["`consumer` has no `nam`", "did you mean `name`?", ":8:22"],
    ),
    ("[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauthorize = { scope = [] }", &["did you mean `scopes`?"]),
    (
        "[auth.x]\njwt = { jwks = \"https://id.test/\" }\nheaders = { X-A = \"{client.ip}\", Host = \"a\", X-B = \"{consumr}\" }",
        &["made of {consumer}", "`host` cannot be edited", "did you mean `{consumer}`?", "3 errors"],
    ),
    ("[consumer.x]\nquota = {}", &["this is not available in this version"]),
    ("[consumer.x]\nrate_limit = {}", &["`rate` is missing here"]),
    ("[consumer.x]\nrate_limit = { rate = \"1/s\", burst = 0 }", &["a burst of 0 would let nothing through"]),
    (
        "[consumer.x]\nrate_limit = { rate = \"1/d\", burst = 200 }",
        &["a limit with a store could not count so far ahead", "104 days", ":6:38"],
    ),
    ("[consumer.x]\ngroup = []", &["did you mean `groups`?"]),
    ("[test]\nrequest = \"GET /\"", &["`test` is a list: write [[test]]"]),
    (
        "[[test]]\nrequest = \"/\"\nexpect = { status = 200 }",
        &["not a method and a target", "write \"GET /users/7\"", ":6:11"],
    ),
    ("[[test]]\nrequest = \"get /\"\nexpect = { status = 200 }", &["methods are written in upper case: GET"]),
    ("[[test]]\nrequest = \"GET a\"\nexpect = { status = 200 }", &["neither a path nor an absolute URL"]),
    ("[[test]]\nrequest = \"GET http:///a\"\nexpect = { status = 200 }", &["the URL names no host"]),
    ("[[test]]\nrequest = \"GET ftp://a/\"\nexpect = { status = 200 }", &["neither a path nor an absolute URL"]),
    ("[[test]]\nrequest = \"GET /\"", &["`expect` is missing here"]),
    ("[[test]]\nrequest = \"GET /\"\nexpect = {}", &["nothing is expected"]),
    (
        "[[test]]\nrequest = \"GET /\"\nexpect = { sent = {} }",
        &["nothing is expected", "give `path`, `headers` or `body`"],
    ),
    (
        "[[test]]\nrequest = \"GET /\"\nexpect = { rout = \"/**\" }",
        &["`rout` is not known here", "did you mean `route`?"],
    ),
    ("[[test]]\nrequest = \"GET /\"\nexpect = { status = 1 }", &["a number from 200 to 599"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\n[[test]]\nrequest = \"GET /\"\nexpect = { cache = \"hit\" }",
        &["a test finds every cache empty"],
    ),
    ("[defaults]\ncache = { by = [] , ttl = \"0\" }", &["`0` has no unit"]),
    (
        "[defaults]\ncache = { by = [\"uri\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["a key cannot have `uri`", "did you mean `url`?"],
    ),
    (
        "[defaults]\ncache = { by = [\"url\", \"url\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["`url` is given twice"],
    ),
    (
        "[defaults]\ncache = { by = [\"url\", \"query:a\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["has the path and the whole query already"],
    ),
    (
        "[defaults]\ncache = { by = [\"consumer\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["all URLs would be stored under one key"],
    ),
    (
        "[defaults]\ncache = { by = [\"url\", \"header:a b\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["`a b` is not the name of a header field"],
    ),
    (
        "[defaults]\ncache = { tags = \"a b\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["`a b` is not the name of a header field"],
    ),
    (
        "[defaults]\ncache = { across_callers = true, by = [\"url\", \"consumer\"] }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["no answer goes from one caller to another"],
    ),
    (
        "[auth.keys]\napi_key = { header = \"X-Key\" }\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nauth = \"keys\"\ncache = {}",
        &[
            "what one is answered would be given to the others",
            "add \"consumer\" to `by`",
            "`across_callers = true`",
            ":11:9",
        ],
    ),
    ("[[route]]\nmatch = \"/\"\nrespond = {}\ncache = {}", &["there is nothing to cache"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncache = { zone = \"big\" }\n[cache.bog]\nmemory = \"1MiB\"",
        &["there is no cache `big`", "did you mean `bog`?"],
    ),
    (
        "[cache.a]\nmemory = \"1MiB\"\n[cache.b]\nmemory = \"1MiB\"\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\ncache = {}",
        &["there are several caches, and none is named `default`", "`zone = \"a\"`"],
    ),
    (
        "[cache.a]\nmemory = \"10KiB\"\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["10KiB is too little", "at least 1MiB"],
    ),
    (
        "[cache.a]\nmemory = \"1MiB\"\nmax_object = \"1MiB\"\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["at most a quarter"],
    ),
    (
        "[cache.a]\nmemory = \"1MiB\"\ndisk = {}\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["not available in this version"],
    ),
    (
        "[cache.\"a b\"]\nmemory = \"1MiB\"\n[[route]]\nmatch = \"/\"\nupstream = \"o\"",
        &["`a b` cannot be the name of a cache"],
    ),
    ("[cache.a]\n[[route]]\nmatch = \"/\"\nupstream = \"o\"", &["`memory` is missing here"]),
    (
        "[[test]]\nrequest = \"GET /\"\nexpect = { upstream = \"p\" }",
        &["there is no upstream `p`", "did you mean `o`?"],
    ),
    ("[[test]]\nrequest = \"GET /\"\nexpect = { route = \"/*\" }", &["there is no route `/*`", "did you mean `/**`?"]),
    (
        "[[test]]\nrequest = \"GET /\"\nlistener = \"pubic\"\nexpect = { upstream = \"o\" }",
        &["there is no listener `pubic`", "did you mean `public`?"],
    ),
    ("[[test]]\nrequest = \"GET /\"\nas = \"alice\"\nexpect = { upstream = \"o\" }", &["expected a table", ":7:6"]),
    (
        "[[test]]\nrequest = \"GET /\"\nheaders = { \"a b\" = \"c\" }\nexpect = { upstream = \"o\" }",
        &["not the name of a header field"],
    ),
    (
        "[[test]]\nrequest = \"GET http://a/\"\nheaders = { Host = \"b\" }\nexpect = { upstream = \"o\" }",
        &["names its host already"],
    ),
    ("[[test]]\nrequest = \"GET /\"\nexpect = { headers = { a = { regex = \"(\" } } }", &["not a regular expression"]),
    ("[[test]]\nrequest = \"GET /\"\nclient = \"x\"\nexpect = { upstream = \"o\" }", &["IP address", ":7:10"]),
    ("[route]\nmatch = \"/\"", &["`route` is a list: write [[route]]"]),
    ("include = \"x\"", &["include"]),
    (
        "[listen.x]\naddress = \"127.0.0.1:0\"\ninclude = [\"apis/*.toml\"]",
        &["`include` stands in a table", "above the first [table]", ":7:1", "1 error"],
    ),
    ("\ninclude = [\"apis/*.toml\"]", &["`include` stands in a table", "1 error"]),
    (
        "[[route]]\nmatch = \"/\"\nupstream = \"o\"\n[route.response]\ninclude = [\"a.toml\"]",
        &["`include` stands in a table", "1 error"],
    ),
    ("Ͷ]", &["not valid TOML"]),
    ("[[route]]\nmatch = \"/\nupstream = \"o\"", &["not valid TOML"]),
    ("[[route]]\nmatch = \"/\"\nmatch = \"/\"\nupstream = \"o\"", &["not valid TOML", "duplicate key"]),
];

#[test]
fn each_is_refused_with_its_words() {
    assert!(MISTAKES.len() >= 60);
    let mut wrong = Vec::new();
    for (text, expected) in MISTAKES {
        let route = if text.contains("[[route]]") || text.contains("[route]") {
            ""
        } else {
            "\n[[route]]\nmatch = \"/**\"\nupstream = \"o\""
        };
        let base = if text.starts_with("include") { format!("{text}\n{BASE}") } else { format!("{BASE}{text}") };
        let output = gateway().config(&format!("{base}{route}")).check();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let missing: Vec<_> = expected.iter().filter(|words| !said.contains(**words)).collect();
        if output.status.success() || !missing.is_empty() || !said.contains("portcullis.toml:") {
            wrong.push(format!("{text}\n-- lacks {missing:?} in\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n=====\n"));
}

#[test]
fn all_of_a_file_are_reported_at_once() {
    let text = gateway()
        .config("[upstream]\na = []\nb = [\"x\"]\n[[route]]\nmatch = \"x\"\nupstream = \"c\"\n[[route]]\nmatch = \"/\"\nfoo = 1\nupstream = \"a\"")
        .refused();
    for words in [
        "without servers",
        "has no port",
        "does not begin with",
        "no upstream `c`",
        "`foo` is not known here",
        "5 errors",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_report_shows_the_line() {
    let text = gateway().config(BASE).config("[[route]]\nmatch = \"/\"\nupstream = \"oo\"").refused();
    assert!(text.contains("| upstream = \"oo\"\n  |            ^^^^"), "{text}");
}

#[test]
fn the_command_line_explains_itself() {
    let help = portcullis(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    for word in ["run", "check", "demo", "portcullis check FILE"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(String::from_utf8_lossy(&portcullis(&["--version"]).stdout).starts_with("portcullis 0."));
    let missing = portcullis(&["check", "/nonexistent.toml"]);
    assert!(
        !missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("cannot read /nonexistent.toml")
    );
}

#[test]
fn a_challenge_by_http_needs_a_listener_without_tls() {
    let said = gateway()
        .config("[server]\nstate_dir = \"s\"\n[listen.public]\naddress = \"127.0.0.1:0\"")
        .config("tls = { acme = { names = [\"a.test\"], challenge = \"http-01\", agree_to_terms = true } }")
        .config("[[route]]\nmatch = \"/\"\nrespond = {}")
        .refused();
    assert!(said.contains("answered by listeners without TLS, and there is none") && said.contains(":5:"), "{said}");
}

#[test]
fn the_key_of_an_external_account_is_not_shown() {
    let account = "external_account = { kid = \"k\", key = \"c2VjcmV0\" }, agree_to_term = true";
    for acme in [format!("{{ {account} }}"), format!("[{{ {account} }}]")] {
        let said = gateway()
            .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\n[listen.public.tls]\nacme = {acme}"))
            .config("[[route]]\nmatch = \"/\"\nrespond = {}")
            .refused();
        assert!(said.contains("did you mean `agree_to_terms`?") && said.contains("key = **********"), "{said}");
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }
}

#[test]
fn what_an_openapi_document_lacks_or_has_wrong_is_said() {
    let with = |document: &str, validate: &str| {
        gateway()
            .file("u.yaml", document)
            .config(BASE)
            .config(&format!("[[route]]\nmatch = \"GET /users/{{id}}\"\nupstream = \"o\"\nvalidate = {validate}"))
            .refused()
    };
    let users = "openapi: 3.1.0\npaths: { '/users/{id}': { put: { operationId: putUser } } }";
    for (document, validate, words) in [
        (users, "{ openapi = \"u.yaml\" }", "u.yaml has no operation GET /users/{id}"),
        (users, "{ openapi = { file = \"u.yaml\", operation = \"putUsre\" } }", "did you mean `putUser`?"),
        (
            "openapi: 3.1.0\npaths: { /users: { get: {} } }",
            "{ openapi = \"u.yaml\" }",
            "no operation at the route's path",
        ),
        (
            "openapi: 3.1.0\npaths: { '/u/{x}': { get: { operationId: a } } }",
            "{ openapi = { file = \"u.yaml\", operation = \"a\" } }",
            "the route's path has no `{x}`",
        ),
        ("openapi: 3.1.0\npaths: {", "{ openapi = \"u.yaml\" }", "u.yaml: line"),
        (
            "openapi: 3.1.0\ncomponents: { schemas: { a: { type: nteger } } }",
            "{ openapi = \"u.yaml\" }",
            "u.yaml, at /components/schemas/a/type: ",
        ),
    ] {
        let said = with(document, validate);
        assert!(said.contains(words) && said.contains(":9:"), "{said}");
    }
}
