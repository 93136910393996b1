"""Puts the pages together: routes, errors as pages, the guard before everything."""

from importlib.resources import files
from typing import TYPE_CHECKING

from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import BusyError, PipelineError
from profile_pipeline.serve.audience_pages import UnknownAudienceError
from profile_pipeline.serve.desk import Desk, desk
from profile_pipeline.serve.portrait import UnknownProfileError
from profile_pipeline.serve.render import page
from profile_pipeline.serve.security import Gate, Guard
from profile_pipeline.serve.shelf import NothingPublishedError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.telemetry import TelemetryConfig
    from starlette.responses import Response

TITLE = "Profiles"
QUIET: "TelemetryConfig" = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI would tell whoever the environment names about requests, with messages of errors."""
STATUS = (
    (UnknownProfileError, 404),
    (UnknownAudienceError, 404),
    (NothingPublishedError, 503),
    (BusyError, 503),
)


def make_app(project: Project, gate: Gate, who: str) -> Guard:
    """The pages and JSON of a project behind their guard; `who` is whom the audit file names."""
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    from profile_pipeline.serve import api, pages

    at_work = desk(project, gate, who)
    app = FastAPI(
        title="Customer profiles",
        summary="Published profiles of one project: look up, explain, review.",
        docs_url=None,  # they would fetch from other hosts
        redoc_url=None,
        openapi_url="/api/openapi.json",
        telemetry=QUIET,
    )
    app.state.desk = at_work
    app.include_router(pages.router)
    app.include_router(api.router)
    app.mount("/static", StaticFiles(directory=str(files("profile_pipeline.serve") / "static")))
    _answer_errors(app, at_work)
    return Guard(app, gate)


def warm(project: Project) -> None:
    """Load what the first visitor would wait for: readers of identifiers and templates, which a process keeps."""
    from profile_pipeline.lookup import identifier_keys
    from profile_pipeline.serve.render import templates

    identifier_keys(load_config(project.rules), "+442079460000")
    templates()


def _answer_errors(app: "FastAPI", at_work: Desk) -> None:
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def known(request: "Request", error: Exception) -> "Response":
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 400)
        return _answer(request, at_work, status, str(error))

    def invalid(request: "Request", _: Exception) -> "Response":
        return _answer(
            request, at_work, 422, "something that was sent is missing, too long or not what it should be"
        )

    def http(request: "Request", error: Exception) -> "Response":
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _answer(
            request, at_work, status, "there is no such page" if status == 404 else "this cannot be asked"
        )

    def unforeseen(request: "Request", error: Exception) -> "Response":
        # its message can hold values
        return _answer(request, at_work, 500, f"something went wrong here ({type(error).__name__})")

    app.add_exception_handler(PipelineError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unforeseen)


def _answer(request: "Request", at_work: Desk, status: int, text: str) -> "Response":
    from starlette.responses import HTMLResponse, JSONResponse

    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": text}, status)
    try:
        frame = at_work.common(at_work.shelf.live())
    except PipelineError:
        frame = {"generation": None, "as_of": None, "form_token": at_work.gate.form_token}
    return HTMLResponse(page("problem.html", status=status, text=text, **frame), status)
