"""What the hub answers, through its own library: a server on this machine plays its part."""

import errno
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.cards import Weights
from harness.errors import ModelError
from harness.weights.hub import fetch

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"the weights",
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"import os",
    "onnx/model.onnx": b"another format",
}
WANTED = ("*.safetensors", "*.json")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: one good repository, one with terms, none of another name."""

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0].removeprefix("/api/models")
        owner, name, *rest = path.strip("/").split("/")
        if f"{owner}/{name}" == "someone/terms":
            self.answer(403, X_Error_Code="GatedRepo")
        elif f"{owner}/{name}" == "someone/down":
            self.answer(503)
        elif f"{owner}/{name}" != "someone/good":
            self.answer(404, X_Error_Code="RepoNotFound")
        elif rest[0] == "revision" and rest[1] not in ("main", "v1", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif rest[0] == "revision":
            content = {"id": "someone/good", "sha": COMMIT, "siblings": []}
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")
        elif rest[0] == "tree":
            tree = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        else:
            content = FILES["/".join(rest[2:])]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, ETag=tag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, *_): ...


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's library, pointed at a server and a cache of this test's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    # It looks so often whether it is to end, which every test waits for.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(place, text):
    with pytest.raises(ModelError, match="^" + re.escape(f"card.yaml: weights.hub: {text}")):
        fetch(Weights(**place), WANTED, where="card.yaml: weights.hub", advice="or not at all.")


def test_wanted_files_are_fetched_once(hub):
    place = Weights(hub="someone/good")
    folder = fetch(place, WANTED, where="card", advice="")

    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"the weights"
    assert not any("modeling" in path or "resolve/onnx" in path for path in hub.asked)
    hub.asked.clear()
    assert fetch(place, WANTED, where="card", advice="") == folder
    assert not any("resolve" in path for path in hub.asked)


def test_what_was_fetched_is_there_without_a_network(hub, monkeypatch):
    folder = fetch(Weights(hub="someone/good"), WANTED, where="card", advice="")
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert fetch(Weights(hub="someone/good"), WANTED, where="card", advice="") == folder
    assert hub.asked == []


def test_terms_that_were_not_agreed_to(hub):
    refused(
        {"hub": "someone/terms"},
        "'someone/terms' cannot be had (its owner asks every user to agree to terms first). Agree "
        "to them on the repository's page, then log in with `hf auth login` or set HF_TOKEN, and "
        "run this again. Without the hub: or not at all.",
    )


def test_a_name_that_is_wrong(hub):
    refused(
        {"hub": "someone/godo"},
        "'someone/godo' cannot be had (there is no such repository, or it is private). Correct the "
        "id on the card; if it is private, log in with `hf auth login` or set HF_TOKEN. ",
    )
    refused(
        {"hub": "not an id"},
        "'not an id' cannot be had (it is no hub id). An id reads 'owner/name'. Correct the key.",
    )


def test_a_revision_that_is_not_there(hub):
    refused(
        {"hub": "someone/good", "revision": "v2"},
        "'someone/good' cannot be had (it has no revision 'v2'). A branch, a tag or a commit is "
        "needed. Correct 'revision' on the card. Without the hub: or not at all.",
    )


def test_the_network_is_forbidden(hub, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "cache" / "models--someone--good"
    refused(
        {"hub": "someone/good", "revision": "v1"},
        "'someone/good' cannot be had (HF_HUB_OFFLINE forbids the network, and there is no "
        f"{folder}). It must lie in that folder. Run `hf download someone/good --revision v1` on a "
        "machine that reaches the hub, and copy the folder of that name from its cache to here. ",
    )
    assert hub.asked == []


def test_only_another_revision_is_there(hub, monkeypatch):
    fetch(Weights(hub="someone/good"), WANTED, where="card", advice="")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(
        {"hub": "someone/good", "revision": "v9"},
        "'someone/good' cannot be had (HF_HUB_OFFLINE forbids the network, and ",
    )
    with pytest.raises(ModelError, match=r"holds only a part of it or another revision\). It must"):
        fetch(Weights(hub="someone/good", revision="v9"), WANTED, where="card", advice="")


def test_no_hub_can_be_reached(hub, monkeypatch):
    hub.shutdown()
    hub.server_close()
    refused(
        {"hub": "someone/good"},
        "'someone/good' cannot be had (no answer from the hub: Connect",
    )


def test_the_hub_is_down(hub):
    refused({"hub": "someone/down"}, "'someone/down' cannot be had (no answer from the hub: HfHub")


def test_the_disk_is_full(hub, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    refused(
        {"hub": "someone/good"},
        "'someone/good' cannot be had (the disk is full). The cache ",
    )


def test_any_other_answer_is_shown(hub, monkeypatch):
    def odd(*_, **__):
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", odd)
    refused(
        {"hub": "someone/good"},
        "'someone/good' cannot be had (ConnectionError: no route). The repository must be "
        "reachable or in the hub's cache. or not at all.",
    )
