"""Portcullis for the load harness."""
import types

NAME = "portcullis"

# All that is said of requests: metrics are always on, and of traces one in ten is sampled, for a collector that is down.
TELEMETRY = '[trace]\nendpoint = "http://127.0.0.1:9/v1/traces"\nsample = 0.1\n'


def variants():
    all_of_it = types.SimpleNamespace(NAME=NAME + "-telemetry", setup=lambda g: setup(g, telemetry=True), EXTRA=True)
    return [types.SimpleNamespace(NAME=NAME, setup=setup), all_of_it]


def setup(g, telemetry=False):
    access = '{ to = { file = "%s/access.log" } }' % g.dir if g.profile == "log" or telemetry else '{ to = "off" }'
    routes = [("/**", 0)]
    if g.profile in ("routes", "auth"):
        routes = [(r + "/**", i % 4) for i, r in enumerate(g.bed.routes(g.params.get("n", 20)))]
    timeouts = 'timeouts = { idle = "1h" }\nmax_connections = 19000'
    policies = []
    if g.profile == "auth":
        alg = g.params["alg"]
        key = f'secret = "{g.bed.secret}"' if alg.startswith("HS") else f'key = "{g.bed.jwt_pub[alg]}"'
        policies = [
            f'[auth.idp]\njwt = {{ issuer = "bench", audience = "api", {key} }}',
            '[defaults]\nauth = "idp"\nrate_limit = { rate = "100000/s", by = "header:X-Api-Key" }',
            'request = { headers = { set = { X-Caller = "{consumer}" } } }\nresponse = { headers = { remove = ["Server"] } }',
        ]
    if g.profile == "reject":
        policies = ['[defaults]\nrate_limit = { rate = "100/s", by = "header:X-Api-Key" }']
    if g.profile == "gzip":
        policies = ['[defaults]\ncompress = { algorithms = ["gzip"] }']
    if g.profile == "cache":
        policies = ["[defaults]\ncache = {}"]
    conf = [
        "[server]\nthreads = 1",
        f"[log]\naccess = {access}",
        TELEMETRY if telemetry else "",
        f'[listen.http]\naddress = "127.0.0.1:{g.http}"\n{timeouts}',
        f'[listen.https]\naddress = "127.0.0.1:{g.https}"\n{timeouts}\n'
        f'tls = {{ certificates = [{{ cert = "{g.cert}", key = "{g.key}" }}] }}',
        "[upstream]",
        *[f'up{i} = ["{up}"]' for i, up in enumerate(g.up)],
        *policies,
        *[f'[[route]]\nmatch = "{path}"\nupstream = "up{i}"' for path, i in routes],
    ]
    return [g.bin("portcullis"), "run", "--config", g.write("portcullis.toml", "\n".join(conf))]
