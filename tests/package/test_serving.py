"""A served model answers as the model does, refuses what is too large, and says why."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from electra_tutorial import __version__, export, serving

LIMITS = serving.Limits(texts=3, characters=50)


@pytest.fixture(scope="module")
def client(exported_classifier: Path) -> Iterator[TestClient]:
    with TestClient(serving.create_app(exported_classifier, limits=LIMITS)) as client:
        yield client


def test_the_answers_are_those_of_the_model(client: TestClient, exported_classifier: Path) -> None:
    texts = ["The ferry.", "A red lamp, the fog.", "x" * 50]
    reply = client.post("/predict", json={"texts": texts})
    assert reply.status_code == 200
    expected = export.OnnxModel(exported_classifier).predict(texts)
    assert reply.json() == {"answers": [asdict(answer) for answer in expected]}


def test_eight_bits_can_be_served(exported_classifier: Path) -> None:
    app = serving.create_app(exported_classifier, int8=True, threads=1)
    reply = TestClient(app).post("/predict", json={"texts": ["The ferry."]})
    (expected,) = export.OnnxModel(exported_classifier, int8=True, threads=1).predict(
        ["The ferry."]
    )
    assert reply.json()["answers"][0]["probability"] == pytest.approx(expected.probability)


def test_health_says_what_is_loaded(client: TestClient) -> None:
    reply = client.get("/health")
    assert reply.status_code == 200
    assert reply.json() == {
        "status": "ok",
        "labels": ["sea", "land", "sky"],
        "max_length": 24,
        "version": __version__,
    }


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"texts": []}, 422, "texts is empty: give at least one text"),
        ({"texts": ["a", " \n"]}, 422, "texts[1] is empty: leave it out or complete it"),
        ({"texts": ["a"] * 4}, 413, "There are 4 texts: send at most 3 in one request"),
        ({"texts": ["a", "b" * 51]}, 413, "texts[1] has 51 characters: send at most 50"),
        ({"texts": "a"}, 422, 'of the form {"texts": ["...", "..."]}; at texts: Input should be'),
        ({"texts": ["a", 1]}, 422, "at texts[1]: Input should be a valid string"),
        ({"text": ["a"]}, 422, "at texts: Field required"),
        ({"texts": ["a"], "more": 1}, 422, "at more: Extra inputs are not permitted"),
        (["a"], 422, "at the body: Input should be"),
        (None, 422, "at the body: "),
        (b"{", 422, "this is not JSON"),
        (b"", 422, "at the body: Field required"),
        (b'{"texts": ["a", "\\ud800"]}', 422, "texts[1] holds half of a character"),
        (b'{"texts": ["' + b"a" * 10_000 + b'"]}', 413, "The body is too large: send at most 28"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(
    client: TestClient, body: object, status: int, message: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status
    detail = reply.json()["detail"]
    assert message in detail
    assert detail.endswith(".")
    assert "\n" not in detail


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b'{"texts": ["\xff"]}', b"[" * 4000, b'{"texts": [' + b"[" * 900]
)
def test_broken_bodies_are_the_sender_s_fault(client: TestClient, content: bytes) -> None:
    reply = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500
    assert isinstance(reply.json()["detail"], str)


def test_a_body_that_never_ends_is_cut_off(exported_classifier: Path) -> None:
    """Without a length in its head, and read no further than to the limit."""
    app = serving.create_app(exported_classifier, limits=LIMITS)
    given, sent = [], []

    async def receive() -> dict[str, object]:
        given.append(b"a" * 1000)
        return {"type": "http.request", "body": given[-1], "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert len(given) == LIMITS.body // 1000 + 1


def test_other_addresses_and_methods_are_refused(client: TestClient) -> None:
    assert client.get("/predict").status_code == 405
    assert client.post("/other", json={}).status_code == 404
    assert client.get("/openapi.json").json()["paths"].keys() == {"/health", "/predict"}


def test_the_largest_request_within_the_limits_is_accepted(exported_classifier: Path) -> None:
    """Characters outside of the basic plane, escaped, are the longest in JSON."""
    limits = serving.Limits(texts=2, characters=300)
    client = TestClient(serving.create_app(exported_classifier, limits=limits))
    body = json.dumps({"texts": ["\U0001f300" * 300] * 2}).encode()
    assert len(body) > 7000
    reply = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200


def test_many_may_ask_at_once(client: TestClient) -> None:
    def ask(number: int) -> tuple[int, float]:
        reply = client.post("/predict", json={"texts": ["the ferry " * (1 + number % 5)]})
        return number % 5, reply.json()["answers"][0]["probability"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(60)))
    by_text: dict[int, set[float]] = {}
    for text, probability in found:
        by_text.setdefault(text, set()).add(round(probability, 5))
    assert [len(answers) for answers in by_text.values()] == [1] * 5


def test_a_real_server_starts_answers_and_stops(exported_classifier: Path) -> None:
    app = serving.create_app(exported_classifier, limits=LIMITS)
    before = threading.active_count()
    with serving.running(app) as address:
        request = urllib.request.Request(
            f"{address}/predict",
            json.dumps({"texts": ["The ferry."]}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert json.load(reply)["answers"][0]["label"] in ("sea", "land", "sky")
        request.data = b'{"texts": []}'
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 422
        assert "texts is empty" in json.load(refused.value)["detail"]
    assert threading.active_count() <= before + 1  # the application's own pool may stay
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/health", timeout=5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
def test_the_command_serves_until_it_is_told_to_end(exported_classifier: Path) -> None:
    command = [sys.executable, "-m", "electra_tutorial.cli", "serve", str(exported_classifier)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        try:
            address = said.split()[0].removesuffix("/predict")
            with urllib.request.urlopen(f"{address}/health", timeout=20) as reply:
                assert json.load(reply)["labels"] == ["sea", "land", "sky"]
        finally:
            server.terminate()
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Port {port} of 127.0.0.1 cannot be used .*another"):
            serving.open_port("127.0.0.1", port)
    with pytest.raises(OSError, match="Port 99999 of 127.0.0.1 cannot be used"):
        serving.open_port("127.0.0.1", 99999)


def test_only_classifiers_are_served(exported_classifier: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported_classifier, tmp_path / "detector")
    facts = (folder / "export.json").read_text(encoding="utf-8")
    (folder / "export.json").write_text(facts.replace("classification", "discriminator"))
    with pytest.raises(ValueError, match="holds a discriminator, but only classifiers can be"):
        serving.create_app(folder)
    with pytest.raises(FileNotFoundError, match=r"no export\.json in absent"):
        serving.create_app("absent")
    with pytest.raises(ValueError, match="Limits must be at least 1"):
        serving.Limits(texts=0)
