"""A WebSocket server that sends back what it gets. Prints its port, and how every connection closed."""

import asyncio

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)
    print("closed", connection.close_code, connection.close_reason, flush=True)


async def main():
    async with serve(echo, "127.0.0.1", 0, subprotocols=["drill"]) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
