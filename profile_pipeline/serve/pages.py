"""The pages. All of them work without script; with it, longer lists grow in place."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Request
from starlette.responses import HTMLResponse, RedirectResponse

from profile_pipeline import decisions, review
from profile_pipeline.errors import PipelineError
from profile_pipeline.serve import asking, audience_pages, policies, questions, weights
from profile_pipeline.serve.desk import Desk
from profile_pipeline.serve.graph import draw
from profile_pipeline.serve.masking import Masks
from profile_pipeline.serve.portrait import Portrait, UnknownProfileError, fields_said, timeline
from profile_pipeline.serve.render import page
from profile_pipeline.serve.search import LONGEST, MOST
from profile_pipeline.serve.shelf import Published

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Text = Annotated[str, Form(max_length=LONGEST)]
FormToken = Annotated[str, Form(max_length=100)]
DIRECT = ("profile id", "retired id")
"""Ways to find a profile that need no saying on its page."""


def _desk(request: Request) -> Desk:
    return request.app.state.desk


def _sent_by_us(desk: Desk, form_token: str) -> None:
    if not desk.gate.sent_by_us(form_token):
        raise PipelineError("this form is not, or no longer, one of these pages; open the page again")


def _page(desk: Desk, published: Published, name: str, **found: Any) -> HTMLResponse:  # noqa: ANN401
    return HTMLResponse(page(name, **found, **desk.common(published)))


@router.get("/")
def home(request: Request) -> HTMLResponse:
    """Search, and what is published."""
    desk = _desk(request)
    published = desk.shelf.live()
    tables = published.manifest["tables"]
    return _page(
        desk,
        published,
        "home.html",
        at="search",
        counts={name: table["rows"] for name, table in tables.items()},
        namespaces=list(published.config.namespaces),
        policies=len(published.config.profiles.policies),
        waiting=sum(questions.reasons_of(published).values()),
    )


@router.post("/search", response_model=None)
def search(request: Request, q: Text = "", form_token: FormToken = "") -> HTMLResponse | RedirectResponse:
    """A form and not an address, so that what was searched for stays in no history."""
    desk = _desk(request)
    _sent_by_us(desk, form_token)
    published = desk.shelf.live()
    found = asking.searched(desk, published, q)
    if len(found) == 1:
        [hit] = found
        by = hit.found_by.replace(" ", "_")
        return RedirectResponse(f"/profiles/{hit.profile_id}?by={by}", 303)
    return _page(desk, published, "results.html", at="search", asked=q, found=found, most=MOST)


@router.get("/profiles/{profile_id}", response_model=None)
def profile(
    request: Request, profile_id: str, policy: str | None = None, by: str = "", retired: str = ""
) -> HTMLResponse | RedirectResponse:
    """A profile; a retired id leads to its successor."""
    desk = _desk(request)
    published, profile_id = desk.shelf.live(), profile_id.lower()
    try:
        found = asking.seen(desk, published, profile_id, policy, _plain(by))
    except UnknownProfileError:
        living = asking.moved_to(published, profile_id)
        if living is None:
            raise
        return RedirectResponse(f"/profiles/{living}?retired={profile_id}&by=retired_id", 302)
    return _profile_page(desk, published, found, by=_plain(by), retired=_plain(retired))


def _plain(text: str) -> str:
    """A code or id from the address; anything else is left out."""
    return text if re.fullmatch(r"[a-z0-9_-]{1,100}", text) else ""


def _profile_page(desk: Desk, published: Published, found: Portrait, **more: Any) -> HTMLResponse:  # noqa: ANN401
    config = published.config
    masks = Masks(config, revealed=not found.hidden)
    events, older = timeline(published, found.profile_id, "", masks)
    keys = [row["record_key"] for row in found.records]
    given = {"by": "", "retired": "", "scores": None, **more}
    return _page(
        desk,
        published,
        "profile.html",
        at="",
        found=found,
        attributes=config.attributes,
        consents=[
            name for name, a in config.attributes.items() if a.type == "consent" and name in found.values
        ],
        fields=fields_said(found.records, list(config.attributes)),
        picture=draw(keys, found.links),
        events=events,
        older=older,
        **given,
    )


@router.post("/profiles/{profile_id}/reveal")
def reveal(
    request: Request, profile_id: str, why: Text = "", policy: str | None = None, form_token: FormToken = ""
) -> HTMLResponse:
    """The profile with nothing hidden, once; the reason goes into the audit file."""
    desk = _desk(request)
    _sent_by_us(desk, form_token)
    if not why.strip():
        raise PipelineError("say why the hidden values are needed; it is recorded")
    published = desk.shelf.live()
    found = asking.seen(desk, published, profile_id.lower(), policy, why.strip(), revealed=True)
    return _profile_page(desk, published, found)


@router.post("/profiles/{profile_id}/weights")
def weigh(request: Request, profile_id: str, form_token: FormToken = "") -> HTMLResponse:
    """The profile, with what each comparison adds to its scored links."""
    desk = _desk(request)
    _sent_by_us(desk, form_token)
    published = desk.shelf.live()
    found = asking.seen(desk, published, profile_id.lower(), None, "weights")
    return _profile_page(desk, published, found, scores=weights.scores(desk.project, found.links))


@router.get("/profiles/{profile_id}/timeline")
def older(
    request: Request, profile_id: str, before: str = "", hx_request: Annotated[str, Header()] = ""
) -> HTMLResponse:
    """Older events: a page of them, or only the rows where script asks for them."""
    desk = _desk(request)
    published, profile_id = desk.shelf.live(), profile_id.lower()
    events, more = timeline(published, profile_id, before, Masks(published.config))
    desk.audit.note("viewed", [profile_id], "timeline")
    name = "events.html" if hx_request else "timeline.html"
    return _page(
        desk, published, name, at="search", profile_id=profile_id, events=events, older=more, first=not before
    )


@router.get("/audiences")
def audiences(request: Request) -> HTMLResponse:
    """Every audience with its size, and how they overlap."""
    desk = _desk(request)
    published = desk.shelf.live()
    found = audience_pages.audiences(published)
    shared = audience_pages.overlaps(published)
    return _page(desk, published, "audiences.html", at="audiences", found=found, shared=shared)


@router.get("/audiences/{name}")
def audience(request: Request, name: str, after: str = "") -> HTMLResponse:
    """One audience and its members, a page at a time."""
    desk = _desk(request)
    published = desk.shelf.live()
    found = audience_pages.audience(published, name, after)
    desk.audit.note("listed", [row["profile_id"] for row in found.members], f"audience {name}")
    return _page(desk, published, "audience.html", at="audiences", found=found, after=after)


@router.get("/review")
def review_queue(request: Request, reason: str | None = None, skip: int = 0, done: int = 0) -> HTMLResponse:
    """Doubtful pairs, with what both records say."""
    desk = _desk(request)
    published = desk.shelf.live()
    found, more = questions.questions(
        published, desk.decided, Masks(published.config), reason or None, max(skip, 0)
    )
    asking.compared(desk, found)
    return _page(
        desk,
        published,
        "review.html",
        at="review",
        found=found,
        more=more,
        skip=max(skip, 0),
        page_size=questions.PAGE,
        reason=reason or "",
        reasons=questions.reasons_of(published),
        texts=review.REASONS,
        done=done,
    )


@router.post("/review")
def decide(
    request: Request,
    decision: Annotated[str, Form(max_length=20)] = "",
    item: Annotated[list[Annotated[str, Form(max_length=40)]] | None, Form()] = None,
    why: Text = "",
    back: Annotated[str, Form(max_length=100)] = "",
    form_token: FormToken = "",
) -> RedirectResponse:
    """Decide the chosen pairs; the next run applies it."""
    desk = _desk(request)
    _sent_by_us(desk, form_token)
    if decision not in decisions.DECISIONS:
        raise PipelineError("say which: one person, two people, or withdrawn")
    number = desk.decided.decide(item or [], decision, desk.audit.who, why.strip())
    kept = back if back in review.REASONS else ""
    return RedirectResponse(f"/review?reason={kept}&done={number}", 303)


@router.get("/policies")
def merge_policies(request: Request) -> HTMLResponse:
    """How many profiles show other values under each merge policy."""
    desk = _desk(request)
    published = desk.shelf.live()
    return _page(desk, published, "policies.html", at="policies", found=policies.differences(published))
