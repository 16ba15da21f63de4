"""Runs ostiary as the container image does, with its environment alone, and asks it with the probes of the image and of
the pod in kubernetes/sidecar.yaml, with the commands of README.md, and as Prometheus does.

    drive.py <path of ostiary>

Needs PyYAML and prometheus-client. No container is made: what is tried is what the program is told, in a place of its own.
"""

import contextlib
import http.client
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

HERE = pathlib.Path(__file__).parent
# How long the server may take to serve or to end, in seconds.
PATIENCE = 30
# Where the image has the program and what it keeps.
PROGRAM, DIRECTORIES = "/usr/local/bin/ostiary", ("/var/lib/ostiary", "/run/ostiary")


def image():
    """The environment of the image, its command and its probe."""
    text = (HERE / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    environment = dict(pair.split("=", 1) for pair in re.search(r"^ENV (.*)$", text, re.M)[1].split())
    read = lambda instruction: json.loads(re.search(rf"^{instruction} .*?(\[.*\])$", text, re.M)[1])
    return environment, read("ENTRYPOINT") + read("CMD"), read("HEALTHCHECK")


def pod():
    """The same of the sidecar, by name of the probe."""
    documents = yaml.safe_load_all((HERE / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8"))
    spec = next(document for document in documents if document["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    sidecar = next(container for container in spec["initContainers"] if container["name"] == "ostiary")
    environment = {entry["name"]: entry["value"] for entry in sidecar["env"]}
    probes = {name: sidecar[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    return environment, sidecar["args"], probes


class Place:
    """Somewhere that stands for the file system of a container."""

    def __init__(self, ostiary, root, environment):
        self.ostiary, self.root = ostiary, root
        for directory in DIRECTORIES:
            (root / directory.lstrip("/")).mkdir(parents=True)
        self.environment = {name: self.within(value) for name, value in environment.items()}

    def within(self, text):
        for directory in DIRECTORIES:
            text = text.replace(directory, f"{self.root}{directory}")
        return text

    def command(self, words):
        return [self.ostiary if word == PROGRAM else self.within(word) for word in words]

    def run(self, words):
        return subprocess.run(self.command(words), env=self.environment, capture_output=True, text=True, errors="replace", check=False)


@contextlib.contextmanager
def serving(place, words):
    with open(place.root / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(place.command(words), env=place.environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0, (place.root / "log").read_text(encoding="utf-8")


def until_good(place, probe):
    late = time.monotonic() + PATIENCE
    while place.run(probe).returncode != 0:
        assert time.monotonic() < late, (place.root / "log").read_text(encoding="utf-8")
        time.sleep(0.05)


def metrics(place):
    """What Prometheus reads, by name."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"{place.root}/run/ostiary/metrics")
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def play(ostiary, root, environment, command, probes):
    place = Place(ostiary, root, environment | {"OSTIARY_ADMIN_LISTEN": "unix:/run/ostiary/metrics"})
    first, *_ = probes
    assert place.run(first).returncode != 0, "nobody is there yet"
    with serving(place, command):
        until_good(place, first)
        for probe in probes:
            assert place.run(probe).returncode == 0, probe
        create = [PROGRAM, "root-key", "create", "--name", "app", "--permission", "apis.*.verify_key"]
        made = place.run(create)
        assert made.returncode == 0 and made.stdout.strip(), made.stderr
        families = metrics(place)
        assert families["ostiary_store_writable"].samples[0].value == 1
        calls = families["ostiary_rpc_duration_seconds"].samples
        created = [call for call in calls if call.labels.get("method", "").endswith("/CreateRootKey")]
        assert any(call.name.endswith("_count") and call.value == 1 for call in created), created
        backup = place.run([PROGRAM, "backup", "-"])
        assert backup.returncode == 0, backup.stderr
        listed = json.loads(place.run([PROGRAM, "root-key", "list", "--output", "json"]).stdout)
        assert [key["name"] for key in listed["rootKeys"]] == ["first root key", "app"]
    for probe in probes:
        assert place.run(probe).returncode != 0, "nobody is there any more"


def main():
    ostiary = str(pathlib.Path(sys.argv[1]).resolve())
    environment, command, healthcheck = image()
    further, arguments, probes = pod()
    with tempfile.TemporaryDirectory() as place:
        play(ostiary, pathlib.Path(place) / "image", environment, command, [healthcheck])
        # A pod gives the image's entrypoint arguments and variables of its own.
        play(ostiary, pathlib.Path(place) / "pod", environment | further, [command[0], *arguments], [*probes.values()])
    print("ostiary serves with what the image and the pod tell it, and their probes see it")


if __name__ == "__main__":
    main()
