"""A WebSocket client for the server beside it: websocket_client.py URL [CA]"""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect

SIZES = [0, 1, 125, 126, 65_535, 65_536, 100_000]


async def exchange(connection):
    assert connection.subprotocol == "drill", connection.subprotocol
    for size in SIZES:
        for message in ["é" * size, os.urandom(size)]:
            await connection.send(message)
            answer = await connection.recv()
            assert answer == message, f"{type(message)} of {size} came back as {type(answer)} of {len(answer)}"
    await connection.send(chunk for chunk in ["in ", "three ", "frames"])
    assert await connection.recv() == "in three frames"
    pong = await connection.ping(b"are you there?")
    assert await pong >= 0
    await connection.close(1000, "that was all")
    assert (connection.close_code, connection.close_reason) == (1000, "that was all")


async def main(url, ca=None):
    options = {"subprotocols": ["drill"]}
    if ca:
        options |= {"ssl": ssl.create_default_context(cafile=ca), "server_hostname": "gateway.test"}
    # Compressed and not: random bytes hide nothing behind compression, frames of a known size need none.
    for compression in ["deflate", None]:
        async with asyncio.timeout(15), connect(url, proxy=None, compression=compression, **options) as connection:
            await exchange(connection)
    print("ok")


asyncio.run(main(*sys.argv[1:]))
