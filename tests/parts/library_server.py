"""The service of library.yaml. Prints its port, and then a line for each request that the document does not allow: those it
answers with a 500. It reads requests by itself, with nothing of the gateway's or of the client's."""

import json
import os
import re
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml
from jsonschema import Draft202012Validator

with open(os.path.join(os.path.dirname(__file__), "library.yaml"), encoding="utf-8") as file:
    DOCUMENT = yaml.safe_load(file)

BOOK = {"id": 1, "title": "Maps", "year": None, "authors": [{"name": "Ada", "teacher": {"name": "Mary"}}]}
ANSWERS = {"findBooks": (200, [BOOK]), "addBook": (201, BOOK), "getBook": (200, BOOK), "changeBook": (200, BOOK)}


def followed(part):
    while "$ref" in part:
        target = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        part = target
    return part


def wrong(schema, value):
    """Whether a value is not what a schema says. What is `readOnly` need not be in a request."""
    whole = {**schema, "components": {"schemas": dict(DOCUMENT["components"]["schemas"])}}
    book = whole["components"]["schemas"]["Book"]
    whole["components"]["schemas"]["Book"] = {**book, "required": ["title", "authors"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return next((error.message for error in validator.iter_errors(value)), None)


def typed(schema, text):
    """A text as what its schema wants."""
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "null" in kinds and text in ("", "null"):
        return None
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if {"integer", "number"} & set(kinds) and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text, re.ASCII):
        return json.loads(text)
    return text


def schema_of(parameter):
    return parameter.get("schema") or parameter["content"]["application/json"]["schema"]


def given(parameter, request, captures, query):
    """The value of a parameter in a request, in a list; an empty one without it."""
    name = parameter["name"]
    schema = schema_of(parameter)
    match parameter["in"]:
        case "path":
            texts = [captures[name]]
        case "header":
            texts = request.headers.get_all(name, [])
        case "cookie":
            cookies = SimpleCookie(request.headers.get("Cookie", ""))
            texts = [cookies[name].value] if name in cookies else []
        case "query" if parameter.get("style") == "deepObject":
            found = {key[len(name) + 1 : -1]: text for key, text in query if re.fullmatch(name + r"\[.*\]", key, re.DOTALL)}
            return [{key: typed(schema["properties"].get(key, {}), text) for key, text in found.items()}] if found else []
        case "query":
            texts = [text for key, text in query if key == name]
    if schema.get("type") != "array":
        assert len(texts) < 2, f"{name} is there twice"
        if "content" in parameter:
            return [json.loads(text) for text in texts]
        return [typed(schema, text) for text in texts]
    if parameter["in"] == "header" or not parameter.get("explode", True):
        separator = "|" if parameter.get("style") == "pipeDelimited" else ","
        texts = [item.strip() for text in texts for item in text.split(separator)]
    return [[typed(schema["items"], text) for text in texts]] if texts else []


class Library(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        try:
            status, content = self.checked(body)
        except Exception as error:
            print("not allowed:", self.command, ascii(self.path), self.headers.items(), body, error, flush=True)
            status, content = 500, {}
        content = b"" if status == 204 else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("X-Total", "1")
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def checked(self, body):
        url = urlsplit(self.path)
        for template, item in DOCUMENT["paths"].items():
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape("/v1" + template))
            match = re.fullmatch(pattern, url.path)
            operation = item.get("get" if self.command == "HEAD" else self.command.lower())
            if match and operation:
                break
        else:
            raise ValueError("there is no such operation")
        captures = {name: unquote(text, errors="strict") for name, text in match.groupdict().items()}
        query = parse_qsl(url.query, keep_blank_values=True, errors="strict")
        for parameter in map(followed, item.get("parameters", []) + operation.get("parameters", [])):
            values = given(parameter, self, captures, query)
            assert values or not parameter.get("required"), f"{parameter['name']} is missing"
            for value in values:
                assert not (fault := wrong(schema_of(parameter), value)), f"{parameter['name']}: {fault}"
        rules = operation.get("requestBody", {})
        if body or self.headers.get("Content-Type"):
            if rules:
                content = rules["content"].get(self.headers.get_content_type())
                assert content, "its content type"
                is_json = self.headers.get_content_type().endswith("json")
                assert not is_json or not (fault := wrong(content["schema"], json.loads(body))), f"body: {fault}"
        else:
            assert not rules.get("required"), "the body is missing"
        return ANSWERS.get(operation["operationId"], (204, None))

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Library)
print(server.server_port, flush=True)
server.serve_forever()
