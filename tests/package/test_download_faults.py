"""A small hub on loopback, with one data set and every fault that a download can have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Runs in a process of its own: where the hub is, and how long to wait for it, is read on import.
PROGRAM = r'''
import hashlib, io, json, os, shutil, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import pyarrow
import pyarrow.parquet

COMMIT = "0a" * 20
NAME = "fancyzhx/ag_news"


def table(rows):
    file = io.BytesIO()
    columns = {"text": [f"text {i}" for i in range(rows)], "label": [i % 4 for i in range(rows)]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.parquet
  - split: test
    path: data/test.parquet
---
"""
FILES = {"README.md": CARD, "data/train.parquet": table(20), "data/test.parquet": table(5)}


class Hub(BaseHTTPRequestHandler):
    fault = "none"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, path):
        content = FILES[path]
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": oid}

    def do_GET(self):
        path = self.path.split("?")[0]
        api, files = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/{COMMIT}/"
        wanted = path.removeprefix(files)
        train = wanted == "data/train.parquet"
        if self.fault == "unknown id":
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        elif self.fault == "500":
            self.answer(500)
        elif self.fault == "403" and train:
            self.answer(403)
        elif self.fault == "404" and train:
            self.answer(404, X_Error_Code="EntryNotFound")
        elif self.fault == "script" and wanted == "ag_news.py":
            self.answer(200, b"print()", ETag='"1"', X_Repo_Commit=COMMIT)
        elif self.fault in ("stall", "truncation") and train and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", str(len(FILES[wanted])))
            self.end_headers()
            self.wfile.write(FILES[wanted][:100])
            self.wfile.flush()
            if self.fault == "stall":
                released.wait(20)
        elif path in (api, f"{api}/revision/{COMMIT}"):
            known = [{"rfilename": name} for name in FILES]
            facts = {"id": NAME, "sha": COMMIT, "siblings": known, "private": False}
            self.answer(200, json.dumps(facts | {"downloads": 0, "tags": []}).encode())
        elif path.startswith(f"{api}/tree/{COMMIT}"):
            folder = path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
            found = [self.entry(name) for name in FILES if name.startswith(folder)]
            self.answer(200, json.dumps(found).encode())
        elif wanted in FILES:
            tag = hashlib.sha1(FILES[wanted]).hexdigest()
            self.answer(200, FILES[wanted], ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(404, b"{}", X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


def serve():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


server, released = serve(), threading.Event()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from electra_tutorial import tasks
from huggingface_hub import constants

constants.HF_HUB_DOWNLOAD_TIMEOUT = constants.HF_HUB_ETAG_TIMEOUT = 0.3
time.sleep = lambda seconds: None  # between the client's attempts
for fault in sys.argv[1:]:
    Hub.fault = fault
    if fault == "no network":
        server.shutdown()
        server.server_close()
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    try:
        found = tasks.load_task("ag_news", source="hub", quiet=True).revision
    except ConnectionError as error:
        found = str(error)
    print(json.dumps([fault, found]), flush=True)
released.set()
'''
EXPECTED = {
    "none": "0a" * 20,
    "unknown id": "the hub knows no such data set, or keeps it private): check the id, or use",
    "script": "there it is a script, and scripts are not run): get a copy in plain files, or use",
    "404": "the hub answered 404: a file is not there): see on its page what has become of it, or",
    "403": "the hub answered 403): ask for access on its page and log in, or use source=",
    "500": "the hub answered 500): try again later, or use source='directory'",
    "stall": "the hub stopped sending): try again: what was received is kept, or use",
    "truncation": "the download broke off): try again, or use source='directory'",
    "no network": "): check the network, or use source='directory'",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `load_task()` says of each fault, in one process that asks for all."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        name: value
        for name, value in os.environ.items()
        if "proxy" not in name.lower() and not name.startswith(("HF_", "TRANSFORMERS_"))
    } | {"HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *EXPECTED],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment,
        cwd=home,
    )
    lines: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(EXPECTED), done.stderr[-3000:]
    return dict(lines)


@pytest.mark.slow
@pytest.mark.parametrize("fault", EXPECTED)
def test_each_fault_is_said_in_one_sentence(found: dict[str, str], fault: str) -> None:
    assert EXPECTED[fault] in found[fault]
    if fault != "none":
        assert found[fault].startswith("Task 'ag_news' cannot be had from the hub as 'fancyzhx/")
        assert found[fault].endswith("or the built-in task 'topics'.")
        assert "\n" not in found[fault]
        assert str(Path.cwd()) not in found[fault]
