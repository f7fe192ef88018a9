"""A gRPC client for the server beside it: grpc_client.py HOST:PORT"""

import queue
import sys

import grpc

WITHIN = 15


def main(target):
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        unary(channel)
        client_stream(channel)
        server_stream(channel)
        both_stream(channel)
        errors_of_the_server(channel)
        errors_of_the_gateway(channel)
    print("ok")


def unary(channel):
    method = channel.unary_unary("/drill.Drill/Unary")
    for message in [b"", b"x", bytes(range(256)) * 4000]:
        answer, call = method.with_call(message, timeout=WITHIN, metadata=(("x-tell", "me"),))
        assert answer == message
        assert dict(call.initial_metadata())["x-told"] == "me"
        trailers = dict(call.trailing_metadata())
        assert trailers["x-trailer"] == "kept" and trailers["x-trailer-bin"] == bytes(range(256)), trailers
        assert call.code() == grpc.StatusCode.OK


def client_stream(channel):
    method = channel.stream_unary("/drill.Drill/ClientStream")
    answer, call = method.with_call((b"x" * 100_000 for _ in range(50)), timeout=WITHIN)
    assert answer == b"5000000", answer
    assert dict(call.trailing_metadata())["x-count"] == "50"
    answer, call = method.with_call(iter(()), timeout=WITHIN)
    assert answer == b"0", answer


def server_stream(channel):
    call = channel.unary_stream("/drill.Drill/ServerStream")(b"50 100000", timeout=WITHIN)
    assert list(call) == [bytes([i]) * 100_000 for i in range(50)]
    assert dict(call.trailing_metadata())["x-count"] == "50"
    call = channel.unary_stream("/drill.Drill/ServerStream")(b"0 0", timeout=WITHIN)
    assert list(call) == []
    assert dict(call.trailing_metadata())["x-count"] == "0"


def both_stream(channel):
    # Each message is sent only when the one before it came back: neither direction waits for the other's end.
    messages = queue.Queue()
    call = channel.stream_stream("/drill.Drill/BothStream")(iter(messages.get, None), timeout=WITHIN)
    for i in range(20):
        messages.put(b"message")
        assert next(call) == b"%d message" % i
    messages.put(None)
    assert list(call) == []
    assert dict(call.trailing_metadata())["x-trailer"] == "kept"


def errors_of_the_server(channel):
    error = failure(channel.unary_unary("/drill.Drill/Invalid"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    assert error.details() == "no: 100% wrong, ünïcode\nand two lines", error
    assert dict(error.trailing_metadata())["x-trailer"] == "kept"
    error = failure(channel.unary_unary("/drill.Drill/Missing"))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), error

    call = channel.unary_stream("/drill.Drill/Breaks")(b"one", timeout=WITHIN)
    assert next(call) == b"one"
    error = failure(lambda *_, **__: next(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "after a message"), error


def errors_of_the_gateway(channel):
    error = failure(channel.unary_unary("/unrouted.Service/Method"))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    assert "HTTP" not in error.details(), f"the client had to make up a status: {error.details()}"
    call = channel.stream_stream("/unrouted.Service/Method")(iter([b"x"] * 3), timeout=WITHIN)
    assert failure(lambda *_, **__: next(call)).code() == grpc.StatusCode.UNIMPLEMENTED
    # The upstream of this one has no server.
    error = failure(channel.unary_unary("/lost.Service/Method"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    # The connection is as good as before.
    assert channel.unary_unary("/drill.Drill/Unary")(b"still here", timeout=WITHIN) == b"still here"


def failure(method):
    try:
        method(b"", timeout=WITHIN)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


main(sys.argv[1])
