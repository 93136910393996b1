"""Lets in whom the token lets in, and tells the browser to do nothing but show the page.

Threats that it answers: another program or user of the machine (token), a web page that the browser has open
(SameSite cookie, form token, Origin), a name that is made to lead here (Host check against DNS rebinding), values
that hold markup (no inline script or style, nothing fetched from elsewhere), and requests that are too large.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_TOKEN = 20
"""Characters of a token of one's own."""
LARGEST_BODY = 64 * 1024
LONGEST_QUERY = 4 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}
"""Headers of every answer. `same-origin` instead of `no-referrer`: with the latter forms come without an Origin."""
OPEN = ("/static/",)
"""Paths that hold nothing of anybody."""


@dataclass(frozen=True)
class Gate:
    """Who may come in: the token, and the names under which the pages may be asked for, with their port."""

    token: str
    hosts: frozenset[str]
    cookie: str

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()

    @property
    def pass_(self) -> str:
        """What the cookie holds: proves the token, does not tell it."""
        return self._derived("cookie")

    @property
    def form_token(self) -> str:
        """What every form carries, so that no other page can send one."""
        return self._derived("form")

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def has_pass(self, cookie: str) -> bool:
        """Whether a cookie was given out here."""
        return hmac.compare_digest(cookie.encode(), self.pass_.encode())

    def sent_by_us(self, form_token: str) -> bool:
        """Whether a form is one of ours."""
        return hmac.compare_digest(form_token.encode(), self.form_token.encode())


def gate(token: str, host: str, port: int, names: list[str]) -> Gate:
    """The gate of a server on a host and port; `names` are further names under which a proxy asks."""
    own = LOOPBACK if host in LOOPBACK else (host,)
    known = {f"[{name}]" if ":" in name else name for name in own}
    hosts = (
        {f"{name}:{port}" for name in known} | (known if port == 80 else set()) | {n.lower() for n in names}
    )
    return Gate(token, frozenset(hosts), f"profile_pages_{port}")


class Guard:
    """Stands before the pages: refuses, or passes on and adds the headers."""

    def __init__(self, app: Handler, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        with_headers = _adding(send)
        if refusal:
            await _answer(with_headers, *refusal)
        elif token := _token_in_url(scope):
            await self._welcome(scope, token, with_headers)
        elif not self._may_enter(scope, headers):
            await _answer(
                with_headers, 401, "open the address that `profile-pipeline serve` printed, or send its token"
            )
        else:
            await self._app(scope, _bounded(receive), with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("host", "").lower() not in self._gate.hosts:
            return 421, "these pages are not served under this name"
        if len(scope["query_string"]) > LONGEST_QUERY or len(scope["path"]) > LONGEST_QUERY:
            return 414, "the address is too long"
        if (
            not headers.get("content-length", "0").isdecimal()
            or int(headers.get("content-length", "0")) > LARGEST_BODY
        ):
            return 413, "too much was sent at once"
        if scope["method"] not in {"GET", "HEAD"} and not self._from_here(headers):
            return 403, "another site sent this"
        return None

    def _from_here(self, headers: dict[str, str]) -> bool:
        """Browsers say where a form comes from; programs say nothing."""
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() not in self._gate.hosts:
            return False
        return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}

    def _may_enter(self, scope: Scope, headers: dict[str, str]) -> bool:
        if scope["path"].startswith(OPEN):
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._gate.knows(token.strip()):
            scope["state"] = {**scope.get("state", {}), "by_token": True}
            return True
        return self._gate.has_pass(_cookies(headers.get("cookie", "")).get(self._gate.cookie, ""))

    async def _welcome(self, scope: Scope, token: str, send: Send) -> None:
        """Trade the token of the address for a cookie, and lead to the address without it."""
        if not self._gate.knows(token):
            await _answer(send, 401, "this token is not, or no longer, the one of these pages")
            return
        left = [(k, v) for k, v in parse_qsl(scope["query_string"].decode("latin-1")) if k != "token"]
        # one slash at the beginning: `//name` would lead to another host
        path = "/" + scope["path"].lstrip("/\\")
        target = f"{path}?{urlencode(left)}" if left else path
        cookie = f"{self._gate.cookie}={self._gate.pass_}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, "", {"location": target, "set-cookie": cookie})


def _token_in_url(scope: Scope) -> str:
    if scope["method"] != "GET" or b"token=" not in scope["query_string"]:
        return ""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


def _adding(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            ours = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *ours]}
        await send(message)

    return sent


def _bounded(receive: Receive) -> Receive:
    """A body that never grows beyond the limit, whatever its length was said to be."""
    taken = 0

    async def received() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > LARGEST_BODY else message

    return received


async def _answer(send: Send, status: int, text: str, more: dict[str, str] | None = None) -> None:
    headers = {"content-type": "text/plain; charset=utf-8", **(more or {})}
    listed = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": text.encode()})
