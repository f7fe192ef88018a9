#!/usr/bin/env python3
"""What a reload costs: how long it takes, and what requests notice of it.

    cargo build --release && python3 benches/reload.py [BINARY] [ROUTES]

A client asks at a fixed rate over kept connections, and the time of each answer is counted from when the request was
due, so that a pause counts for every request that it delays. First nothing is reloaded; then the configuration is
reloaded once a second, each time with every route changed.
"""

import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/portcullis"
ROUTES = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
RATE, CONNECTIONS, SECONDS, ROUNDS = 1000, 20, 8, 5
PUBLIC, ADMIN = 19871, 19872


def configuration(generation):
    yield f'[listen.public]\naddress = "127.0.0.1:{PUBLIC}"\n[admin]\naddress = "127.0.0.1:{ADMIN}"\n'
    yield '[log]\naccess = { to = "off" }\n[upstream]\nusers = ["127.0.0.1:9"]\n'
    yield '[[route]]\nmatch = "GET /hello"\nrespond = { body = "hello" }\n'
    for i in range(ROUTES):
        yield (
            f'[[route]]\nmatch = "GET /api/v1/resource{i}/{{id}}/items"\nupstream = "users"\n'
            f'request = {{ path = "/{generation}/{{path.id}}", headers = {{ set = {{ X-Route = "{i}" }} }} }}\n'
        )


async def client(start, offset, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", PUBLIC)
    for i in range(RATE // CONNECTIONS * SECONDS):
        due = start + offset + i * CONNECTIONS / RATE
        await asyncio.sleep(max(0, due - time.perf_counter()))
        writer.write(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert await reader.readexactly(5) == b"hello"
        times.append(time.perf_counter() - due)
    writer.close()


def post(path):
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN)
    began = time.perf_counter()
    connection.request("POST", path, headers={"Host": "localhost"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    return time.perf_counter() - began


async def traffic(reloads, rewrite):
    times, took = [], []

    async def reload():
        loop = asyncio.get_running_loop()
        for i in range(SECONDS - 1):
            rewrite(i)
            took.append(await loop.run_in_executor(None, post, "/reload"))
            await asyncio.sleep(max(0, 1 - took[-1]))

    start = time.perf_counter() + 0.1
    jobs = [client(start, i / RATE, times) for i in range(CONNECTIONS)]
    await asyncio.gather(*jobs, *([reload()] if reloads else []))
    return sorted(times), took


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "portcullis.toml")
        texts = ["".join(configuration(i)) for i in range(2)]

        def rewrite(i):
            with open(path, "w") as file:
                file.write(texts[i % 2])

        rewrite(1)
        gateway = subprocess.Popen([BINARY, "run", "--config", path], stderr=subprocess.PIPE, text=True)
        for line in gateway.stderr:
            if line.strip() == "ready":
                break
        try:
            rows = {False: [], True: []}
            reloads = []
            for _ in range(ROUNDS):
                for with_reloads in rows:
                    times, took = asyncio.run(traffic(with_reloads, rewrite))
                    rows[with_reloads].append(times)
                    reloads += took
            print(f"{ROUTES} routes: a reload takes {statistics.median(reloads) * 1000:.0f} ms (most {max(reloads) * 1000:.0f})")
            for with_reloads, rounds in rows.items():
                p50, p99, worst = (
                    statistics.median(times[min(len(times) - 1, int(len(times) * q))] for times in rounds) * 1000
                    for q in (0.5, 0.99, 1)
                )
                what = "a reload a second" if with_reloads else "no reload"
                print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {worst:.2f} ms")
        finally:
            gateway.terminate()
            gateway.wait()


main()
