"""Portcullis for the load harness."""
NAME = "portcullis"


def setup(g):
    if g.profile not in ("proxy", "log", "routes"):
        g.na("not in this version")
    access = '{ to = { file = "%s/access.log" } }' % g.dir if g.profile == "log" else '{ to = "off" }'
    routes = [("/**", 0)]
    if g.profile == "routes":
        routes = [(r + "/**", i % 4) for i, r in enumerate(g.bed.routes(g.params.get("n", 20)))]
    timeouts = 'timeouts = { idle = "1h" }\nmax_connections = 19000'
    conf = [
        "[server]\nthreads = 1",
        f"[log]\naccess = {access}",
        f'[listen.http]\naddress = "127.0.0.1:{g.http}"\n{timeouts}',
        f'[listen.https]\naddress = "127.0.0.1:{g.https}"\n{timeouts}\n'
        f'tls = {{ certificates = [{{ cert = "{g.cert}", key = "{g.key}" }}] }}',
        "[upstream]",
        *[f'up{i} = ["{up}"]' for i, up in enumerate(g.up)],
        *[f'[[route]]\nmatch = "{path}"\nupstream = "up{i}"' for path, i in routes],
    ]
    return [g.bin("portcullis"), "run", "--config", g.write("portcullis.toml", "\n".join(conf))]
