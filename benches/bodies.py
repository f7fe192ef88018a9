#!/usr/bin/env python3
"""What a gateway does to bodies, in CPU time: two fields are removed from an answer of 4 KiB and of 1 MiB, and an aggregate
of four parts stands against four proxied requests, and in latency against its slowest part.

    cargo build --release && python3 benches/bodies.py target/release/portcullis

Needs nginx, wrk and two cores: the gateway has one; the load and the upstreams have the other. Rounds of what is compared
alternate, and medians are told. The gateway's CPU time is that of its process, kernel included."""

import http.client
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROUNDS, SECONDS, CONNECTIONS = 9, 2, 16
SLOW = 0.020

CONFIG = """
[server]
threads = 1
[log]
access = {{ to = "off" }}
[listen.http]
address = "127.0.0.1:{port}"
[upstream]
up   = ["127.0.0.1:{up}"]
slow = ["127.0.0.1:{slow}"]
[[route]]
match    = "GET /part/**"
upstream = "up"
[[route]]
match    = "GET /slow"
upstream = "slow"
[[route]]
match    = "GET /plain/**"
upstream = "up"
request  = {{ path = "/{{**}}" }}
[[route]]
match    = "GET /removed/**"
upstream = "up"
request  = {{ path = "/{{**}}" }}
response = {{ body = {{ remove = ["items.*.cost", "items.*.internal"] }} }}
"""

PART = 'aggregate.part.{name} = {{ upstream = "{upstream}", path = "{path}" }}\n'

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{up}; default_type application/json; root {folder};
    location / {{ return 200 '{body}'; }}
    location /file/ {{ }}
  }}
}}
"""


def main(binary):
    body = json.dumps({"items": [{"id": i, "name": f"item {i}", "price": i * 1.5} for i in range(20)]})
    parts = [(name, "up", "/part/" + name) for name in ("user", "orders", "reviews", "messages")]
    slow, late = slow_server(), parts[:3] + [("slow", "slow", "/slow")]
    port, up = free(), free()
    routes = [("/all", parts), ("/late", late)]
    with tempfile.TemporaryDirectory() as folder:
        write = lambda name, *texts: pathlib.Path(folder, name).write_text("".join(texts))
        # nginx may run its workers as another user.
        os.chmod(folder, 0o755)
        pathlib.Path(folder, "file").mkdir()
        for name, size in (("4k", 4 << 10), ("1m", 1 << 20)):
            write(f"file/{name}", document(size))
        write("nginx.conf", NGINX.format(folder=folder, up=up, body=body))
        write("portcullis.toml", CONFIG.format(port=port, up=up, slow=slow), *[
            f'[[route]]\nmatch = "GET {path}"\n' + "".join(PART.format(name=n, upstream=u, path=p) for n, u, p in of)
            for path, of in routes])
        nginx = subprocess.Popen(["taskset", "-c", "1", "nginx", "-c", f"{folder}/nginx.conf"])
        gateway = subprocess.Popen(["taskset", "-c", "0", binary, "run", "--config", f"{folder}/portcullis.toml"])
        try:
            whole = answer(port, "/all")
            assert whole == {name: json.loads(body) for name, _, _ in parts}, whole
            measure(gateway.pid, port)
        finally:
            for process in (gateway, nginx):
                process.terminate()
                process.wait()


def document(size):
    """A list of orders, of about so many bytes."""
    order = lambda i: {"id": i, "name": f"Customer number {i}", "cost": round(i * 1.07, 2), "internal": {"margin": 0.25},
                       "tags": ["a", "long tag", "another one"], "text": "Lorem ipsum dolor sit amet, consectetur elit."}
    items, length = [], 0
    while length < size - 200:
        items.append(order(len(items)))
        length += len(json.dumps(items[-1]))
    return json.dumps({"total": len(items), "items": items})


def measure(pid, port):
    for name in ("4k", "1m"):
        paths = [f"/plain/file/{name}", f"/removed/file/{name}"]
        [cost(pid, port, path) for path in paths]
        rounds = [[cost(pid, port, path) for path in paths] for _ in range(ROUNDS)]
        plain, removed = (statistics.median(column) for column in zip(*rounds))
        more = statistics.median(removed - plain for plain, removed in rounds)
        print(f"{name}: as it is {plain:.1f} us, without two fields of each item {removed:.1f} us: {more:+.1f} us")
    cost(pid, port, "/all"), cost(pid, port, "/part/user")
    rounds = [(cost(pid, port, "/part/user"), cost(pid, port, "/all")) for _ in range(ROUNDS)]
    ratios = [all / (4 * one) for one, all in rounds]
    one, all = (statistics.median(column) for column in zip(*rounds))
    print(f"CPU: a part {one:.1f} us, four in one {all:.1f} us, {statistics.median(ratios):.2f} of four "
          f"({min(ratios):.2f} to {max(ratios):.2f})")
    rounds = [(latency(port, "/slow"), latency(port, "/late")) for _ in range(100)]
    alone, late = (statistics.median(column) for column in zip(*rounds))
    print(f"Latency: the slowest part by itself {alone:.2f} ms, with three others {late:.2f} ms: {late - alone:+.2f} ms")


def cost(pid, port, path):
    """Microseconds of CPU time a request."""
    before = cpu(pid)
    wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"http://127.0.0.1:{port}{path}"]
    said = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    return (cpu(pid) - before) * 1e6 / int(re.search(r"(\d+) requests in", said)[1])


def cpu(pid):
    user, system = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def latency(port, path):
    """Milliseconds, on a connection that was there."""
    connection = connections.setdefault(port, http.client.HTTPConnection("127.0.0.1", port))
    began = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    assert response.status == 200, response.status
    return (time.perf_counter() - began) * 1e3


connections = {}


def answer(port, path):
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", path)
            return json.load(connection.getresponse())
        except (ConnectionError, json.JSONDecodeError):
            time.sleep(0.1)
    sys.exit("the gateway does not answer")


def slow_server():
    """An upstream that takes a while; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        while connection.recv(65536):
            time.sleep(SLOW)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
