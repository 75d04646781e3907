"""An OTLP/HTTP collector that decodes with OpenTelemetry's official protos and prints a JSON object per line.

otlp_sink.py FILE: writes its port to FILE when it listens. A request's path and its decoded body go to standard output:
{"traces": ...} or {"metrics": ...}. A body that the protos refuse, or that has fields they do not know, is answered 400 and
printed as {"error": ...}. GET /fail?status=N&times=M lets the next M exports fail with N.
"""
import gzip
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {"/v1/traces": ("traces", ExportTraceServiceRequest), "/v1/metrics": ("metrics", ExportMetricsServiceRequest)}
failing = {"status": 0, "times": 0}


def unknown(message):
    """Whether a message has fields, at any depth, that the protos do not know."""
    if len(UnknownFieldSet(message)) > 0:
        return True
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = value if hasattr(value, "__len__") else [value]
            if any(unknown(part) for part in parts):
                return True
    return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        failing.update(status=int(query["status"][0]), times=int(query["times"][0]))
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if failing["times"] > 0:
                failing["times"] -= 1
                say({"failed": failing["status"], "path": self.path})
                return self.answer(failing["status"])
            name, kind = KINDS[self.path]
            if self.headers["Content-Type"] != "application/x-protobuf":
                raise ValueError("content type " + str(self.headers["Content-Type"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            message = kind()
            message.ParseFromString(body)
            if unknown(message):
                raise ValueError("unknown fields")
            say({name: MessageToDict(message), "headers": dict(self.headers)})
            self.answer(200)
        except Exception as error:  # whatever is wrong with a body is what the test wants to know
            say({"error": f"{self.path}: {error!r}"})
            self.answer(400)


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
