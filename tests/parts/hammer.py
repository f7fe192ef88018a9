"""Asks a server on and on, over connections that are kept and over new ones, until it is told to stop by SIGTERM.

Prints how many requests were answered with 200, and fails with what went wrong first if one was not.
"""

import http.client
import signal
import sys
import threading

stop = threading.Event()
failures = []
counts = []


def ask(address, keep):
    """A connection that the server closed after an answer is opened again by the next request."""
    count = 0
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        while not stop.is_set() and not failures:
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            count += 1
            if not keep:
                connection.close()
            stop.wait(0.002)
    except Exception as error:
        failures.append(f"{'kept' if keep else 'new'} connection, after {count} requests: {error!r}")
    counts.append(count)


signal.signal(signal.SIGTERM, lambda *_: stop.set())
clients = [threading.Thread(target=ask, args=(sys.argv[1], keep)) for keep in (True, False, True, False)]
for client in clients:
    client.start()
for client in clients:
    client.join()
print(sum(counts))
sys.exit("; ".join(failures) or None)
