"""`serve`: profile pages on loopback, for who has the address that it prints."""

import secrets
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import Author, ProjectFolder, chosen, console, plain_errors, who
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from uvicorn import Server

    from profile_pipeline.config.project import Project
    from profile_pipeline.serve.security import Gate


def serve(
    project: ProjectFolder = None,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8600,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than loopback needs --token-from.")
    ] = "127.0.0.1",
    token_from: Annotated[
        str,
        typer.Option(metavar="VARIABLE", help="Environment variable with the token; default: a new one."),
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further names (with the port, if any) under which a proxy asks."),
    ] = None,
    author: Author = "",
) -> None:
    """Look people up in a browser: search, profiles and why, audiences, review queue; JSON under /api."""
    with plain_errors():
        from profile_pipeline.serve.security import gate

        where = chosen(project)
        token = _token(host, token_from)
        listening = _listen(host, port)
        bound = listening.getsockname()[1]
        app_gate = gate(token, host, bound, allow_host or [])
        serving = _server(where, app_gate, who(author))
        shown = f"http://{_in_address(host)}:{bound}/"
        display.line(
            console, f"Profile pages: {shown}" if token_from else f"Profile pages: {shown}?token={token}"
        )
        display.line(console, "Every profile that is looked at is recorded. Ctrl+C ends.")
        serving.run(sockets=[listening])


def _token(host: str, variable: str) -> str:
    """The token of one's own, or a new one; loopback is the only place where a new one will do."""
    from profile_pipeline.config.secrets import secret
    from profile_pipeline.serve.security import LOOPBACK, SHORTEST_TOKEN

    if not variable:
        if host not in LOOPBACK:
            raise PipelineError(
                f"--host {host}: other machines could connect; name a variable with a token, --token-from VARIABLE"
            )
        return secrets.token_urlsafe(32)
    token = secret(variable, "--token-from")
    if len(token) < SHORTEST_TOKEN:
        raise PipelineError(
            f"--token-from: the token in {variable} is shorter than {SHORTEST_TOKEN} characters"
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PipelineError(f"--host {host} --port {port}: {error.strerror}; choose another") from None
    return listening


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _server(project: "Project", app_gate: "Gate", author: str) -> "Server":
    """A server that waits for nothing once it runs."""
    import uvicorn

    from profile_pipeline.serve.app import make_app, warm

    warm(project)
    config = uvicorn.Config(
        make_app(project, app_gate, author),
        access_log=False,  # addresses hold ids
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
