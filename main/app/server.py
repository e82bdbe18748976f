"""Requests of the app's page: access control, uploads, jobs, files of results.

Other pages in the same browser can send requests here, too, also under their own host name (DNS
rebinding). A request must therefore name this server as its host; one that changes anything and
comes from a page must come from a page of this server; and other computers need the token.
"""

import asyncio
import importlib.util
import logging
import re
import secrets
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast
from urllib.parse import quote, urlsplit

import uvicorn
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from main.app.jobs import Job, Jobs, Kind, command_of, progress_of, python_command
from main.app.people import Choice, Flags, Strict, require_pictures, safe_name
from main.characters.options import FORMATS, MEDIA_TYPES
from utils.errors import UserError, printable, refusal
from utils.files import CONFIG_NAME, DEMO, PRETRAINED
from utils.image import IMAGE_SUFFIXES
from utils.video_read import VIDEO_SUFFIXES

log = logging.getLogger(__name__)

_PAGE: Final = Path(__file__).parent / "page"
_PARTS: Final = {"": "index.html", "app.js": "app.js", "style.css": "style.css"}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    **MEDIA_TYPES,
}
"""Files of other types are sent only as downloads."""
_POLICY: Final = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
_VIEWER_POLICY: Final = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src * data: blob:; "
    "media-src 'self' data: blob:; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "connect-src 'none'; worker-src blob:"
)
"""The viewer is isolated: it can neither read other files here nor send requests."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_COOKIE: Final = "token"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How the app runs.

    Attributes:
        folder: of the jobs.
        host: address to listen on; any but loopback addresses needs a token.
        port: 0: any free port.
        model: MODEL_DIR that is selected at the start.
        limit_mb: the largest upload in megabytes.
        token: required of everyone; None: no token is needed.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7860
    model: str = "smplest_x_demo"
    limit_mb: int = 300
    token: str | None = None


class _App(NamedTuple):
    """The state that requests share; `checks` are the doctor's findings, by model name."""

    settings: Settings
    jobs: Jobs
    checks: dict[str, dict[str, Any]]


class _Start(Strict):
    """The request that starts a task."""

    kind: Kind
    model: str = Field(max_length=1000)
    flags: Flags = Field(default_factory=dict)
    formats: str = Field("", max_length=100)


def create_app(settings: Settings, jobs: Jobs) -> Starlette:
    """The application; `jobs` must be open."""
    app = Starlette(
        routes=[
            Route("/", _page_file),
            Route("/{name:str}", _page_file),
            Route("/api/about", _server_info),
            Route("/api/model", _check_model),
            Route("/api/jobs", _list_jobs),
            Route("/api/jobs", _upload, methods=["POST"]),
            Route("/api/bundled/{name:str}", _bundled, methods=["POST"]),
            Route("/api/jobs/{id:str}", _open_job),
            Route("/api/jobs/{id:str}", _delete, methods=["DELETE"]),
            Route("/api/jobs/{id:str}/choice", _choose, methods=["PUT"]),
            Route("/api/jobs/{id:str}/task", _start, methods=["POST"]),
            Route("/api/jobs/{id:str}/task", _cancel, methods=["DELETE"]),
            Route("/api/jobs/{id:str}/results.zip", _zip),
            Route("/files/{id:str}/{path:path}", _file),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard)],
        exception_handlers=dict.fromkeys((HTTPException, UserError, OSError, KeyError), _refused),
    )
    app.state.app = _App(settings, jobs, {})
    return app


def serve(settings: Settings) -> None:
    """Run the app until it is interrupted.

    Raises:
        UserError: the port is taken, or another app uses the folder.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError, TypeError) as error:
        what = f"--host {settings.host} --port {settings.port}"
        raise UserError(f"{what}: cannot listen there ({error}); choose another port") from None
    port = listener.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    query = "" if settings.token is None else f"/?token={quote(settings.token)}"
    with Jobs(settings.folder).opened() as jobs:
        log.info("open http://%s:%d%s in a browser; Ctrl+C ends the app", shown, port, query)
        config = uvicorn.Config(
            create_app(settings, jobs),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(config).run(sockets=[listener])


# Access control.


async def _guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse requests that are not from this server's own page; add headers to all responses."""
    settings = _app_of(request).settings
    reason = _reason_to_refuse(request, settings)
    if reason is not None:
        response: Response = JSONResponse({"error": reason}, 403)
    elif settings.token is not None and not _knows_token(request, settings.token):
        response = JSONResponse({"error": "open the address that the app printed"}, 401)
    elif settings.token is not None and "token" in request.query_params:
        response = RedirectResponse(request.url.path, 303)
        response.set_cookie(_COOKIE, settings.token, httponly=True, samesite="strict")
    else:
        response = await answer(request)
    response.headers.setdefault("Content-Security-Policy", f"{_POLICY} frame-ancestors 'self'")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _reason_to_refuse(request: Request, settings: Settings) -> str | None:
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if settings.host in _LOOPBACK and name not in _LOOPBACK:
        return f"this app is at 127.0.0.1, not at {printable(host)[:100]}"
    if request.method in ("GET", "HEAD"):
        return None
    own = f"{request.url.scheme}://{host}"
    site = request.headers.get("sec-fetch-site", "none")
    if request.headers.get("origin", own) == own and site in ("same-origin", "none"):
        return None
    return "this request comes from another page"


def _knows_token(request: Request, token: str) -> bool:
    tokens = (request.query_params.get("token"), request.cookies.get(_COOKIE))
    return any(secrets.compare_digest((text or "").encode(), token.encode()) for text in tokens)


def _app_of(request: Request) -> _App:
    app: _App = request.app.state.app
    return app


def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, OSError):  # such as a full disk, or no permission
        return JSONResponse({"error": refusal(error)}, 500)
    if isinstance(error, KeyError):
        return JSONResponse({"error": "there is no such job; it may have been deleted"}, 404)
    return JSONResponse({"error": str(error)}, 422)


# The page, and information for it.


def _page_file(request: Request) -> Response:
    name = _PARTS.get(request.path_params.get("name", ""))
    if name is None:
        raise HTTPException(404, "there is no such page")
    return FileResponse(_PAGE / name, media_type=_TYPES[Path(name).suffix])


def _server_info(request: Request) -> Response:
    settings = _app_of(request).settings
    return JSONResponse(
        {
            "models": _models(settings),
            "model": settings.model,
            "bundled": {name: path.name for name, path in _bundled_files().items()},
            "suffixes": IMAGE_SUFFIXES + VIDEO_SUFFIXES,
            "limit_mb": settings.limit_mb,
            "formats": FORMATS,
        }
    )


def _models(settings: Settings) -> list[str]:
    there = sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_NAME}"))
    return list(dict.fromkeys([settings.model, *there]))


def _check_model(request: Request) -> Response:
    """The doctor's finding about a model, examined once, in a process of its own."""
    app, model = _app_of(request), request.query_params.get("name", "")
    if model not in _models(app.settings):
        raise HTTPException(404, "there is no such model")
    if model not in app.checks:
        command = python_command("main.doctor", model)
        done = subprocess.run(**command, capture_output=True, text=True, check=False)
        app.checks[model] = {"usable": done.returncode & 1 == 0, "says": _network_line(done.stdout)}
    return JSONResponse(app.checks[model])


def _network_line(report: str) -> str:
    found = re.search(r"^. network [^\n]*?: (.*)\n( {4}.*)?", report, re.MULTILINE)
    if found is None:
        return "the model could not be checked; run python -m main.doctor"
    return ": ".join(part.strip() for part in found.groups() if part)


# Jobs.


async def _list_jobs(request: Request) -> Response:
    jobs = await asyncio.to_thread(_app_of(request).jobs.all)
    return JSONResponse([_summary(request, job) for job in jobs])


def _summary(request: Request, job: Job) -> dict[str, Any]:
    folder = _app_of(request).jobs.folder / job.id
    thumbnail = next(iter(sorted((folder / "found" / "frames").glob("*.jpg"))), None)
    return {
        "id": job.id,
        "name": job.name,
        "created": job.created,
        "bytes": job.bytes,
        "kind": job.task and job.task.kind,
        "state": job.task and job.task.state,
        "ended": job.task and job.task.ended,
        "picture": thumbnail and f"found/frames/{thumbnail.name}",
        "has_result": (folder / job.result).is_dir(),
    }


def _open_job(request: Request) -> Response:
    """Everything about one job that the page shows."""
    jobs = _app_of(request).jobs
    job = jobs.get(request.path_params["id"])
    folder, task = jobs.path(job.id), job.task
    progress, lines = progress_of(folder)
    files = _results(folder, job)
    about = _summary(request, job) | {
        "model": job.model,
        "flags": job.flags,
        "choice": job.choice.model_dump(),
        "found": _address(folder, "found/people.json"),
        "task": task and task.model_dump(exclude={"arguments"}),
        "command": task and command_of(task),
        "progress": progress if task and task.state == "running" else None,
        "log": lines,
        "trial": _address(folder, "trial/result_beginning.mp4"),
        "overlay": _address(folder, *(f"{job.result}{end}" for end in (".mp4", ".jpg", ".png"))),
        "viewer": _address(folder, f"{job.result}/viewer.html"),
        "people": _address(folder, "people.json"),
        "files": [[str(path.relative_to(folder)), path.stat().st_size] for path in files],
    }
    return JSONResponse(about)


def _address(folder: Path, *names: str) -> str | None:
    """The address of the first of these files that exists; it changes when the file changes."""
    for name in names:
        if (folder / name).is_file():
            return f"/files/{folder.name}/{name}?{(folder / name).stat().st_mtime_ns}"
    return None


def _results(folder: Path, job: Job) -> list[Path]:
    """The files for the user to download."""
    there = [*folder.glob(f"{job.result}.*"), *(folder / job.result).rglob("*")]
    return [
        path
        for path in sorted(there)
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    ]


async def _upload(request: Request) -> Response:
    """Create a job from the body of the request; the query has the name of the file."""
    app = _app_of(request)
    name = request.query_params.get("name", "")
    file = safe_name(name, IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    limit = app.settings.limit_mb * 1_000_000
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise HTTPException(413, _too_large(name, app.settings.limit_mb))
    received = 0
    try:
        with app.jobs.new(printable(Path(name).name)[:100], file, app.settings.model) as path:
            with path.open("wb") as output:
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > limit:
                        raise HTTPException(413, _too_large(name, app.settings.limit_mb))
                    await asyncio.to_thread(output.write, chunk)
            if not received:
                raise UserError(f"{printable(name)[:60]} is empty")
            await asyncio.to_thread(require_pictures, path)
    except ClientDisconnect:
        return Response(status_code=400)
    return JSONResponse({"id": path.parents[1].name}, 201)


def _too_large(name: str, limit_mb: int) -> str:
    shown = printable(name)[:60]
    return f"{shown} is larger than {limit_mb} MB; shorten it, or start the app with --limit-mb"


def _bundled_files() -> dict[str, Path]:
    """The bundled video and photograph, by name."""
    files = {"video": DEMO / "test_video.mp4"}
    skimage = importlib.util.find_spec("skimage")
    if skimage is not None and skimage.origin is not None:
        files["photograph"] = Path(skimage.origin).parent / "data" / "astronaut.png"
    return {name: path for name, path in files.items() if path.is_file()}


def _bundled(request: Request) -> Response:
    app, path = _app_of(request), _bundled_files().get(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "there is no such bundled file")
    with app.jobs.new(path.name, path.name, app.settings.model) as place:
        shutil.copyfile(path, place)
    return JSONResponse({"id": place.parents[1].name}, 201)


async def _content(request: Request, kind: type[Any]) -> Any:
    """The validated JSON of a request. Raises UserError with one line about the first error."""
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{printable(where)}: {first['msg']}") from None


async def _choose(request: Request) -> Response:
    choice = await _content(request, Choice)
    await asyncio.to_thread(_app_of(request).jobs.choose, request.path_params["id"], choice)
    return Response(status_code=204)


async def _start(request: Request) -> Response:
    app, start = _app_of(request), await _content(request, _Start)
    if start.model not in _models(app.settings):
        raise UserError(f"model {printable(start.model)[:60]}: it is not in pretrained_models/")
    job_id = request.path_params["id"]
    await asyncio.to_thread(
        app.jobs.start, job_id, start.kind, start.model, start.flags, start.formats
    )
    return Response(status_code=204)


def _cancel(request: Request) -> Response:
    _app_of(request).jobs.cancel(request.path_params["id"])
    return Response(status_code=204)


def _delete(request: Request) -> Response:
    _app_of(request).jobs.delete(request.path_params["id"])
    return Response(status_code=204)


# Files.


def _file(request: Request) -> Response:
    """A file in the folder of a job, with range requests; links out of it are not followed."""
    folder = _app_of(request).jobs.path(request.path_params["id"]).resolve()
    name = request.path_params["path"]
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder) and path.is_file()
    except (OSError, ValueError):  # a NUL character, or a name that is too long
        inside = False
    if not inside or path.is_symlink() or any(part[0] == "." for part in Path(name).parts):
        raise HTTPException(404, "there is no such file")
    is_viewer = path.parent.parent == folder and path.name == "viewer.html"
    suffix = path.suffix.lower()
    if is_viewer or (suffix in _TYPES and suffix not in (".html", ".js", ".css")):
        headers = {"Content-Security-Policy": _VIEWER_POLICY if is_viewer else "sandbox"}
        return FileResponse(path, media_type=_TYPES[suffix], headers=headers)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def _zip(request: Request) -> Response:
    """All results of a job as one archive, which is not stored on the disk."""
    jobs = _app_of(request).jobs
    job = jobs.get(request.path_params["id"])
    folder = jobs.path(job.id)
    files = _results(folder, job)
    if not files:
        raise HTTPException(404, "there is no result yet")
    name = quote(f"{job.result}.zip")  # headers are ASCII
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return StreamingResponse(_zipped(folder, files), 200, headers, "application/zip")


class _Chunks(list[bytes]):
    """A write-only file that keeps what is written until it is cleared."""

    def write(self, data: Any) -> int:
        self.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing, as every write is complete."""


def _zipped(folder: Path, files: list[Path]) -> Iterator[bytes]:
    chunks = _Chunks()
    with zipfile.ZipFile(cast(IO[bytes], chunks), "w") as archive:
        for path in files:
            info = zipfile.ZipInfo.from_file(path, str(path.relative_to(folder)))
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                while data := source.read(_CHUNK):
                    entry.write(data)
                    yield b"".join(chunks)
                    chunks.clear()
    yield b"".join(chunks)
