"""Runs Envoy with envoy.yaml between clients and an app, beside a server of its own, and holds what comes through to what
docs/envoy.md says.

    drive.py <path of ostiary> <path of Envoy>

Needs Python 3.10. What listens listens on this machine alone, and ends with it.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
# How long anything may take to come up, in seconds.
PATIENCE = 30
# The last route of envoy.yaml, and one before it that says all that routes may say.
LAST_ROUTE = "                        - match: { prefix: / }\n"
FURTHER_ROUTE = """                        - match: { prefix: /reports }
                          route: { cluster: app }
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              check_settings:
                                context_extensions:
                                  key_header: x-api-key
                                  rate_limits: reports
                                  cost: "2"
                                  client_ip_header: x-envoy-external-address
"""


class App(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that have come to it."""

    def do_GET(self):
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Answer:
    """What a client gets."""

    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        body = response.read()
        # What the app has seen, if the request got there.
        self.seen = json.loads(body) if self.status == 200 else []

    def app(self, name):
        """The one value that the app has seen of a header, if any."""
        values = [value for seen, value in self.seen if seen == name]
        assert len(values) <= 1, f"the app has seen {name} {len(values)} times"
        return values[0] if values else None

    def told(self):
        """Why not, as the client is told."""
        return self.status, self.headers.get("x-ostiary-code")


class Scene:
    """Everything that runs."""

    def __init__(self, ostiary, envoy, place, processes):
        self.ostiary, self.envoy, self.place, self.processes = ostiary, envoy, pathlib.Path(place), processes
        self.address = f"unix:{place}/socket"
        self.port = free_port()

    def start(self, name, arguments):
        log = open(self.place / f"{name}.log", "w", encoding="utf-8")
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.processes.callback(end, process)
        return process

    def command(self, *arguments, root_key=None):
        """What a command of ostiary prints."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
        environment = others | {"OSTIARY_SERVER": self.address}
        if root_key is not None:
            environment["OSTIARY_ROOT_KEY"] = root_key
        done = subprocess.run([self.ostiary, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ostiary {arguments[0]} {arguments[1]}: {done.stderr}"
        return done.stdout.strip()

    def serve(self):
        process = self.start("ostiary", [self.ostiary, "serve", "--data-dir", str(self.place / "data"), "--listen", self.address])
        until(lambda: (self.place / "socket").exists(), "ostiary")
        return process

    def go_between(self, app_port, root_key, api_id):
        """Runs Envoy as configured, but for where it listens and whom it asks."""
        text = (HERE / "envoy.yaml").read_text(encoding="utf-8")
        for there, here in {
            "address: 0.0.0.0, port_value: 8080": f"address: 127.0.0.1, port_value: {self.port}",
            "path: /run/ostiary/socket": f"path: {self.place}/socket",
            "address: 127.0.0.1, port_value: 8000": f"address: 127.0.0.1, port_value: {app_port}",
            "${ROOT_KEY}": root_key,
            "${API_ID}": api_id,
            LAST_ROUTE: FURTHER_ROUTE + LAST_ROUTE,
        }.items():
            assert there in text, f"envoy.yaml has no {there}"
            text = text.replace(there, here)
        configuration = self.place / "envoy.yaml"
        configuration.touch(mode=0o600)
        configuration.write_text(text, encoding="utf-8")
        self.start("envoy", [self.envoy, "--config-path", str(configuration), "--concurrency", "1", "--disable-hot-restart"])
        until(lambda: self.get("/health").status == 200, "Envoy")

    def get(self, path, key=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest("GET", path)
            if key is not None:
                connection.putheader("authorization", f"Bearer {key}")
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            return Answer(connection.getresponse())


def end(process):
    process.terminate()
    process.wait(PATIENCE)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(holds, what):
    late = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if holds():
                return
        assert time.monotonic() < late, f"{what} did not come up"
        time.sleep(0.05)


def play(scene, app_port):
    server = scene.serve()
    first = (scene.place / "data" / "first-root-key").read_text(encoding="utf-8").strip()
    api_id = json.loads(scene.command("api", "create", "--name", "documents", "--output", "json", root_key=first))["api"]["apiId"]
    create = ["key", "create", "--api", api_id, "--name"]
    reader = ["--external-id", "acme", "--permission", "documents.read"]
    limited = ["--rate-limit", "name=requests,limit=1,duration=1h,auto-apply"]
    good = scene.command(*create, "reader", *reader, root_key=first)
    plain = scene.command(*create, "plain", root_key=first)
    slow = scene.command(*create, "slow", *limited, root_key=first)
    asker = scene.command("root-key", "create", "--name", "envoy", "--permission", f"apis.{api_id}.verify_key", root_key=first)
    scene.go_between(app_port, asker, api_id)

    # Whoever has a good key passes, and the app knows whose it was and never sees it.
    forged = [("x-ostiary-identity", "somebody else"), ("x-ostiary-roles", "chief")]
    answer = scene.get("/documents/1", good, forged)
    assert answer.status == 200, answer.told()
    assert answer.app("x-ostiary-identity") == "acme"
    assert answer.app("x-ostiary-permissions") == "documents.read"
    assert answer.app("x-ostiary-key-name") == "reader"
    assert answer.app("x-ostiary-api-id") == api_id
    assert answer.app("authorization") is None and answer.app("x-ostiary-roles") in (None, "")
    assert not any(good in value for _, value in answer.seen)
    key_id = answer.app("x-ostiary-key-id")
    assert key_id.startswith("key_")
    answer = scene.get("/", plain)
    assert answer.status == 200 and answer.app("x-ostiary-permissions") is None

    # All others are told why not.
    assert scene.get("/health").app("x-ostiary-key-id") is None
    assert scene.get("/").told() == (401, "KEY_MISSING")
    assert scene.get("/", good, [("authorization", f"Bearer {good}")]).told() == (401, "KEY_MALFORMED")
    assert scene.get("/", good + "x").told() == (401, "NOT_FOUND")
    assert scene.get("/documents/1", plain).told() == (403, "INSUFFICIENT_PERMISSIONS")
    assert scene.get("/", slow).status == 200
    refused = scene.get("/", slow)
    assert refused.told() == (429, "RATE_LIMITED") and 0 < int(refused.headers["retry-after"]) <= 3600

    # What a route says counts: in which header the key is, by which limit it counts, and what it costs.
    report = ["--rate-limit", "name=reports,limit=100,duration=1h", "--credits", "5"]
    paying = scene.command(*create, "paying", *report, root_key=first)
    by_header = [("x-api-key", paying)]
    answer = scene.get("/reports", headers=by_header)
    assert answer.status == 200 and answer.app("x-ostiary-remaining-credits") == "3", answer.told()
    assert answer.app("x-api-key") is None
    assert scene.get("/reports", paying).told() == (401, "KEY_MISSING")
    assert scene.get("/reports", headers=[("x-api-key", plain)]).told() == (403, "RATE_LIMIT_MISSING")
    assert scene.get("/reports", headers=by_header).status == 200
    assert scene.get("/reports", headers=by_header).told() == (429, "USAGE_EXCEEDED")

    # What a key must not do, it does not.
    for name, flags, told in [
        ("elsewhere", ["--allowed-cidr", "192.0.2.0/24"], (403, "FORBIDDEN")),
        ("disabled", ["--enabled", "false"], (401, "DISABLED")),
        ("short", ["--expires-in", "1s"], (401, "EXPIRED")),
    ]:
        key = scene.command(*create, name, *flags, root_key=first)
        until(lambda: scene.get("/", key).told() == told, f"{name}: {told}")

    # A key that is deleted is refused from the next request on.
    scene.command("key", "delete", key_id, "--yes", root_key=first)
    assert scene.get("/documents/1", good).told() == (401, "NOT_FOUND")

    # Nothing passes that nobody has looked at, and once somebody can again, it does.
    end(server)
    assert scene.get("/", plain).status == 503
    assert scene.get("/health").status == 200
    scene.serve()
    until(lambda: scene.get("/", plain).status == 200, "ostiary")


def main():
    ostiary, envoy = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:])
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
        stack.callback(app.shutdown)
        threading.Thread(target=app.serve_forever, daemon=True).start()
        scene = Scene(ostiary, envoy, place, stack)
        try:
            play(scene, app.server_address[1])
        except BaseException:
            for log in sorted(scene.place.glob("*.log")):
                print(f"--- {log.name}", log.read_text(encoding="utf-8"), sep="\n", file=sys.stderr)
            raise
    print("envoy: it lets pass what ostiary finds good, and nothing else")


if __name__ == "__main__":
    main()
