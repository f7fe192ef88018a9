"""A service whose answers have content codings, whatever was asked for: /CODING/HOW/COUNT is JSON of so many items. Prints its
port. Codings are those of Python's library and of Google's and Facebook's own."""

import gzip
import json
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import zstandard


def members(text):
    """gzip in several members, one of them empty (RFC 1952, section 2.2)."""
    return b"".join(gzip.compress(part, 6, mtime=0) for part in (text[:10], b"", text[10:]))


def frames(text):
    """zstd in several frames, one of them to be skipped (RFC 8878, section 3.1)."""
    skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00any"
    return skipped.join(zstd(part) for part in (text[:10], text[10:]))


def zstd(text):
    return zstandard.ZstdCompressor(write_checksum=True).compress(text)


def long_window(text):
    """zstd with a window of 16 MiB, twice what RFC 9659 lets the web have; such a frame does not say its length."""
    window = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=True, write_content_size=False)
    coder = zstandard.ZstdCompressor(compression_params=window).compressobj()
    return coder.compress(text) + coder.flush()


CODINGS = {
    "gzip": ("gzip", lambda text: gzip.compress(text, mtime=0)),
    "x-gzip": ("X-GZIP", lambda text: gzip.compress(text, mtime=0)),
    "members": ("gzip", members),
    "br": ("br", lambda text: brotli.compress(text, quality=5)),
    "zstd": ("zstd", zstd),
    "frames": ("zstd", frames),
    "long-window": ("zstd", long_window),
    "deflate": ("deflate", zlib.compress),
    "twice": ("gzip, br", lambda text: brotli.compress(gzip.compress(text), quality=1)),
}


def bomb(coding):
    """A gigabyte of spaces, in parts that come after each other."""
    spaces = b" " * (64 << 20)
    if coding == "br":
        coder = brotli.Compressor(quality=1)
        parts = [coder.process(spaces) + coder.flush() for _ in range(16)]
        return b"".join(parts) + coder.finish()
    return {"gzip": gzip.compress, "zstd": zstd}[coding](spaces) * 16


class Coded(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, kind, how, count = self.path.split("/")
        coding, code = CODINGS[kind]
        items = [{"id": i, "name": f"ä {i * i}", "secret": "x" * (i % 7)} for i in range(int(count))]
        text = json.dumps({"items": items, "secret": 1}, ensure_ascii=False).encode()
        body = bomb(kind) if how == "bomb" else code(text)
        match how:
            case "cut":
                body = body[:-5]
            case "flipped":
                # In what gzip's end says of the whole, and in zstd's.
                at = -6 if coding == "gzip" else -2
                body = body[:at] + bytes([body[at] ^ 1]) + body[len(body) + at + 1 :]
            case "trailed":
                body += b"more"
            case "wrong":
                body = text
        self.send_response(200)
        fields = [("Content-Type", "application/json"), ("Content-Encoding", coding), ("Vary", "Origin, accept-encoding"),
                  ("ETag", '"1"'), ("Accept-Ranges", "bytes"), ("Content-MD5", "AAAA"), ("Cache-Control", "max-age=9")]
        for name, value in fields:
            self.send_header(name, value)
        if how == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 1000):
                part = body[at : at + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except ConnectionError:
                # Who refuses the answer need not read it.
                self.close_connection = True

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Coded)
print(server.server_port, flush=True)
server.serve_forever()
