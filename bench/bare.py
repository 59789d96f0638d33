"""What the sidecar is measured against, on the same uvicorn with the same options.

`python -m bench.bare answers PORT FILE` answers with the bytes and headers in FILE and does nothing else;
`route` is a plain FastAPI route; `idle` an application that has imported httpx and cryptography.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn


def main() -> None:
    kind, port, *arguments = sys.argv[1:]
    app = KINDS[kind](*arguments)
    uvicorn.run(
        app,
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
    )


def answers(file: str) -> Any:
    ready = {}
    for path, answer in json.loads(Path(file).read_text()).items():
        headers = [(name.encode(), value.encode()) for name, value in answer["headers"]]
        start = {"type": "http.response.start", "status": answer["status"], "headers": headers}
        ready[path] = start, {"type": "http.response.body", "body": answer["body"].encode()}

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        start, body = ready[scope["path"]]
        await send(start)
        await send(body)

    return app


def route(file: str) -> Any:
    fastapi = importlib.import_module("fastapi")
    app = fastapi.FastAPI()
    body = Path(file).read_bytes()

    @app.get("/chain.pem")
    async def chain() -> Any:
        return fastapi.Response(body, media_type="application/pem-certificate-chain")

    return app


def idle() -> Any:
    for name in ("httpx", "cryptography.x509", "cryptography.hazmat.primitives.asymmetric.rsa"):
        importlib.import_module(name)
    fastapi = importlib.import_module("fastapi")
    app = fastapi.FastAPI()

    @app.get("/readyz")
    async def ready() -> Any:
        return fastapi.Response(b"ok\n", media_type="text/plain")

    return app


KINDS = {"answers": answers, "route": route, "idle": idle}

if __name__ == "__main__":
    main()
