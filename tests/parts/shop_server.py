"""A gRPC server of conf/examples/shop.proto: shop_server.py DESCRIPTOR_SET. Writes that file and prints its port, and then a
line for each thing that a test may wait for."""

import os
import sys
import threading
from concurrent import futures

import google.api
import grpc
import grpc_tools.protoc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

EXAMPLES = os.path.join(os.path.dirname(__file__), "../../conf/examples")
INCLUDE = os.path.dirname(os.path.dirname(list(google.api.__path__)[0]))
WELL_KNOWN = os.path.join(os.path.dirname(grpc_tools.protoc.__file__), "_proto")

flags = [f"-I{EXAMPLES}", f"-I{INCLUDE}", f"-I{WELL_KNOWN}", "--include_imports", f"--descriptor_set_out={sys.argv[1]}"]
assert grpc_tools.protoc.main(["protoc", *flags, "shop.proto"]) == 0

sys.path[:0] = [EXAMPLES, INCLUDE]
shop, services = grpc.protos_and_services("shop.proto")


def say(line):
    print(line, flush=True)


class Shelves(services.ShelvesServicer):
    def __init__(self):
        self.created = threading.Event()

    def Get(self, request, context):
        match request.name:
            case "shelves/none":
                details = (
                    error_details_pb2.ResourceInfo(resource_type="shelf", resource_name=request.name),
                    error_details_pb2.ErrorInfo(reason="NO_SUCH_SHELF", domain="shop", metadata={"near": "shelves/7"}),
                )
                packed = []
                for detail in details:
                    packed.append(any_pb2.Any())
                    packed[-1].Pack(detail)
                status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such shelf: élève", details=packed)
                context.abort_with_status(rpc_status.to_status(status))
            case "shelves/slow":
                ended = threading.Event()
                context.add_callback(ended.set)
                say(f"deadline {context.time_remaining() is not None and context.time_remaining() < 3}")
                ended.wait(30)
                say("slow ended")
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-told", metadata.get("x-tell", "")),))
        return shop.Shelf(name=request.name, theme="maps", books=2**60 + 1)

    def Create(self, request, context):
        self.created.set()
        return request.shelf

    def Watch(self, request, context):
        """The shelves after the first come once one was created."""
        self.created.clear()
        ended, done = threading.Event(), threading.Event()

        def end():
            # A generator whose client left may never be asked again.
            ended.set()
            if not done.is_set():
                say("watch cancelled")

        context.add_callback(end)
        if request.theme == "denied":
            done.set()
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        for i in range(request.count):
            yield shop.Shelf(name=f"shelves/{i}", theme=request.theme)
            if request.theme == "breaks":
                done.set()
                context.abort(grpc.StatusCode.DATA_LOSS, "the warehouse burns")
            if i == 0 and request.theme == "patient":
                while not self.created.wait(0.05):
                    if ended.is_set():
                        return
        done.set()

    def Fill(self, requests, context):
        shelves = list(requests)
        return shop.Shelf(name=shelves[0].name, theme=",".join(shelf.theme for shelf in shelves), books=len(shelves))


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
services.add_ShelvesServicer_to_server(Shelves(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
say(port)
server.wait_for_termination()
