"""A gRPC server with every kind of method, its messages plain bytes. Prints its port."""

from concurrent import futures

import grpc


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-told", told.get("x-tell", "")),))
    context.set_trailing_metadata((("x-trailer", "kept"), ("x-trailer-bin", bytes(range(256)))))
    return request


def client_stream(requests, context):
    count, size = 0, 0
    for request in requests:
        count, size = count + 1, size + len(request)
    context.set_trailing_metadata((("x-count", str(count)),))
    return str(size).encode()


def server_stream(request, context):
    count, size = (int(number) for number in request.split())
    for i in range(count):
        yield bytes([i]) * size
    context.set_trailing_metadata((("x-count", str(count)),))


def both_stream(requests, context):
    for i, request in enumerate(requests):
        yield b"%d %s" % (i, request)
    context.set_trailing_metadata((("x-trailer", "kept"),))


def invalid(request, context):
    context.set_trailing_metadata((("x-trailer", "kept"),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no: 100% wrong, ünïcode\nand two lines")


def breaks(request, context):
    yield request
    context.abort(grpc.StatusCode.DATA_LOSS, "after a message")


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "BothStream": grpc.stream_stream_rpc_method_handler(both_stream),
    "Invalid": grpc.unary_unary_rpc_method_handler(invalid),
    "Breaks": grpc.unary_stream_rpc_method_handler(breaks),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("drill.Drill", METHODS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
