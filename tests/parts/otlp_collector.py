"""A collector of traces by the messages that OpenTelemetry publishes. Prints its port, then each export as JSON.

OTLP's JSON is protobuf's but for ids, which are hex and not base64, and enums, which are numbers only. All else that
protobuf does not know is refused, with the reason as the line.
"""

import base64
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LENGTHS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}


def unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError(f"two members of one name in {list(members)}")
    return members


def to_protobuf(value):
    """The same with ids in base64."""
    if isinstance(value, list):
        return [to_protobuf(item) for item in value]
    if not isinstance(value, dict):
        return value
    for name in ["kind", "code"]:
        if not isinstance(value.get(name, 0), int):
            raise ValueError(f"{name} is {value[name]!r}")
    converted = {name: to_protobuf(item) for name, item in value.items()}
    for name, length in LENGTHS.items():
        if name in value:
            identity = bytes.fromhex(value[name])
            if len(identity) != length and not (name == "parentSpanId" and not identity):
                raise ValueError(f"{name} is {value[name]!r}")
            converted[name] = base64.b64encode(identity).decode()
    return converted


def plain(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def attributes(pairs):
    return {pair.key: plain(pair.value) for pair in pairs}


def understood(text):
    request = Parse(json.dumps(to_protobuf(json.loads(text, object_pairs_hook=unique))), ExportTraceServiceRequest())
    return [
        {
            "resource": attributes(resource.resource.attributes),
            "scope": scope.scope.name,
            "trace": span.trace_id.hex(),
            "span": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "name": span.name,
            "kind": span.SpanKind.Name(span.kind),
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "status": span.status.StatusCode.Name(span.status.code),
            "attributes": attributes(span.attributes),
        }
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if (self.path, self.headers["Content-Type"]) != ("/v1/traces", "application/json"):
                raise ValueError(f"{self.path} {self.headers['Content-Type']}")
            line, status = {"spans": understood(body)}, 200
        except Exception as error:
            line, status = {"refused": str(error)}, 400
        print(json.dumps(line), flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
