"""A model that answers over HTTP: one endpoint, limits on what it accepts, errors that say why.

    electra-tutorial serve FOLDER --port 8000

    curl localhost:8000/predict -H "content-type: application/json" -d '{"texts": ["A text."]}'

FastAPI checks requests, uvicorn speaks HTTP, and ONNX Runtime computes (`export.OnnxModel`). What
a public server needs besides, such as encryption, authentication and a limit on how often one may
ask, belongs to a proxy in front of it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_tutorial import __version__
from electra_tutorial.export import OnnxModel

MOST_BYTES_PER_CHARACTER = 12  # of JSON: a character outside of the basic plane is two escapes
START_SECONDS = 30


@dataclass(frozen=True)
class Limits:
    """What one request may hold: more is refused with status 413."""

    texts: int = 32
    characters: int = 10_000  # of each text

    def __post_init__(self) -> None:
        if min(self.texts, self.characters) < 1:
            raise ValueError(f"Limits must be at least 1, not {self.texts}, {self.characters}.")

    @property
    def body(self) -> int:
        """Bytes of the largest body that can be within the limits."""
        return 1_000 + self.texts * (self.characters * MOST_BYTES_PER_CHARACTER + 10)


class PredictRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)
    texts: list[str]


class PredictedText(BaseModel):
    """What the model says of one text."""

    label: str
    probability: float
    probabilities: dict[str, float]


class PredictReply(BaseModel):
    """The body of a reply, one answer for each text, in their order."""

    answers: list[PredictedText]


class Health(BaseModel):
    """The body of a reply to GET /health."""

    status: str
    labels: list[str]
    max_length: int
    version: str


def create_app(
    folder: str | Path,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    int8: bool = False,
    threads: int | None = None,
) -> FastAPI:
    """An application that classifies texts with a model that `export_onnx()` wrote.

    POST /predict takes {"texts": [...]} and returns {"answers": [...]}; GET /health says what is
    loaded. A request that cannot be answered gets {"detail": "one sentence"} and status 413 where
    it is too large, 422 where it is malformed or a text is empty, 404 or 405 for another address or
    method.

    Args:
        folder, int8, threads: as for `OnnxModel`.
        limits: what one request may hold.

    Raises:
        FileNotFoundError, ValueError: as `OnnxModel`, and if the model is no classifier.
    """
    model = OnnxModel(folder, int8=int8, threads=threads)
    if model.kind != "classification":
        raise ValueError(f"{folder} holds a {model.kind}, but only classifiers can be served.")
    app = FastAPI(title="ELECTRA classifier", version=__version__)
    app.add_middleware(_BodyLimit, most=limits.body)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": _sentence(error.errors()[0])}, status_code=422)

    @app.get("/health")
    def health() -> Health:
        return Health(
            status="ok",
            labels=model.label_names,
            max_length=model.max_length,
            version=__version__,
        )

    # Not `async`: FastAPI runs it in a thread, so that a long batch does not stop other requests.
    @app.post("/predict")
    def predict(request: PredictRequest) -> PredictReply:
        _check_size(request.texts, limits)
        try:
            answers = model.predict(request.texts)
        except ValueError as error:  # says which text is the matter, and why
            raise HTTPException(422, str(error)) from error
        return PredictReply(answers=[PredictedText(**asdict(answer)) for answer in answers])

    return app


def _check_size(texts: list[str], limits: Limits) -> None:
    if len(texts) > limits.texts:
        raise HTTPException(
            413, f"There are {len(texts)} texts: send at most {limits.texts} in one request."
        )
    for place, text in enumerate(texts):
        if len(text) > limits.characters:
            raise HTTPException(
                413,
                f"texts[{place}] has {len(text)} characters: send at most {limits.characters}.",
            )


def _sentence(error: dict[str, Any]) -> str:
    """What is wrong with a body, of what pydantic says of it."""
    place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error["loc"][1:])
    expected = 'The body must be JSON of the form {"texts": ["...", "..."]}'
    if error["type"] == "json_invalid":
        return f"{expected}; this is not JSON."
    return f"{expected}; at {place.lstrip('.') or 'the body'}: {error['msg']}."


class _BodyLimit:
    """Stop reading a body that is larger than any within the limits can be."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                raise HTTPException(413, f"The body is too large: send at most {self.most} bytes.")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


def open_port(host: str, port: int) -> socket.socket:
    """A socket on that port; 0 chooses a free one.

    Raises:
        OSError: if it cannot be had.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"Port {port} of {host} cannot be used ({reason}): choose another one."
        ) from error


@contextmanager
def running(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `app` in a thread while the block runs; gives the address, http://HOST:PORT.

    Raises:
        OSError: if the port cannot be had.
        TimeoutError: if the server does not start.
    """
    import uvicorn

    with open_port(host, port) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise TimeoutError(f"The server did not start within {START_SECONDS} s.")
                time.sleep(0.01)
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def serve(app: FastAPI, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve `app` until Ctrl-C or SIGTERM.

    Raises:
        OSError: if the port cannot be had.
    """
    import uvicorn

    with open_port(host, port) as listening:
        print(
            f"http://{host}:{listening.getsockname()[1]}/predict answers; Ctrl-C ends.", flush=True
        )
        uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run([listening])
