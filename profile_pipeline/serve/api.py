"""JSON beside the pages: the same answers, described by /api/openapi.json. Sensitive values are hidden here as well."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse

from profile_pipeline.errors import PipelineError
from profile_pipeline.serve import asking, audience_pages, questions
from profile_pipeline.serve.desk import Desk
from profile_pipeline.serve.masking import Masks
from profile_pipeline.serve.portrait import UnknownProfileError, timeline
from profile_pipeline.serve.search import LONGEST

router = APIRouter(prefix="/api", tags=["profiles"])
ProfileId = Annotated[str, Path(max_length=asking.LONGEST_ID, description="living or retired profile id")]


class Hit(BaseModel):
    """A profile that was found."""

    profile_id: str
    found_by: str = Field(
        description="namespace of the identifier, `profile id`, `retired id`, `source record` or `name`"
    )
    name: str
    facts: dict[str, Any]


class Found(BaseModel):
    """What a lookup led to."""

    generation: int
    profiles: list[Hit]


class Why(BaseModel):
    """Why somebody looks at what is hidden."""

    why: str = Field(min_length=1, max_length=200, description="goes into the audit file")


class Decision(BaseModel):
    """What is decided about questions of the review queue."""

    items: list[str] = Field(
        min_length=1, max_length=questions.MOST_DECIDED, description="item ids of /api/review"
    )
    decision: Literal["match", "no_match", "withdrawn"]
    reason: str = Field(default="", max_length=1000)


class Written(BaseModel):
    """How many decisions were written; the next run applies them."""

    written: int


def _desk(request: Request) -> Desk:
    return request.app.state.desk


@router.get("/lookup", summary="Find profiles by any identifier, id or name")
def lookup(
    request: Request, q: Annotated[str, Query(max_length=LONGEST, description="as somebody would type it")]
) -> Found:
    """Normalised as the pipeline does; retired ids lead to their successor."""
    desk = _desk(request)
    published = desk.shelf.live()
    found = asking.searched(desk, published, q)
    return Found(generation=published.number, profiles=[Hit(**asdict(hit)) for hit in found])


@router.get("/profiles/{profile_id}", summary="A profile with all that explains it", response_model=None)
def profile(
    request: Request, profile_id: ProfileId, policy: str | None = None
) -> dict[str, Any] | RedirectResponse:
    """Values with reasons, records, links, history, audiences. A retired id answers 308 with its successor."""
    desk = _desk(request)
    published, profile_id = desk.shelf.live(), profile_id.lower()
    try:
        return asdict(asking.seen(desk, published, profile_id, policy, "api"))
    except UnknownProfileError:
        living = asking.moved_to(published, profile_id)
        if living is None:
            raise
        return RedirectResponse(f"/api/profiles/{living}", 308)


@router.post("/profiles/{profile_id}/reveal", summary="A profile with nothing hidden", response_model=None)
def reveal(
    request: Request, profile_id: ProfileId, asked: Why, x_form_token: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """The reason goes into the audit file."""
    desk = _desk(request)
    _meant(request, desk, x_form_token)
    return asdict(asking.seen(desk, desk.shelf.live(), profile_id.lower(), None, asked.why, revealed=True))


@router.get("/profiles/{profile_id}/timeline", summary="Events of a profile, newest first")
def events(
    request: Request,
    profile_id: ProfileId,
    before: Annotated[str, Query(max_length=500, description="`older` of the page before")] = "",
) -> dict[str, Any]:
    """`older` leads to the next page; empty on the last."""
    desk = _desk(request)
    published, profile_id = desk.shelf.live(), profile_id.lower()
    found, older = timeline(published, profile_id, before, Masks(published.config))
    desk.audit.note("viewed", [profile_id], "api timeline")
    return {"events": found, "older": older}


@router.get("/audiences", summary="Audiences with their sizes and overlap")
def audiences(request: Request) -> dict[str, Any]:
    """The largest first."""
    published = _desk(request).shelf.live()
    return {"audiences": audience_pages.audiences(published), "overlap": audience_pages.overlaps(published)}


@router.get("/audiences/{name}", summary="One audience and a page of its members")
def audience(
    request: Request, name: str, after: Annotated[str, Query(max_length=asking.LONGEST_ID)] = ""
) -> dict[str, Any]:
    """`after` leads to the next page; empty on the last."""
    desk = _desk(request)
    found = audience_pages.audience(desk.shelf.live(), name, after)
    desk.audit.note("listed", [row["profile_id"] for row in found.members], f"api audience {name}")
    return asdict(found)


@router.get("/review", summary="Pairs of records that a person should decide")
def review(
    request: Request, reason: str | None = None, skip: Annotated[int, Query(ge=0)] = 0
) -> dict[str, Any]:
    """Those of most value first."""
    desk = _desk(request)
    published = desk.shelf.live()
    found, more = questions.questions(published, desk.decided, Masks(published.config), reason, skip)
    asking.compared(desk, found)
    return {"questions": [asdict(question) for question in found], "more": more}


@router.post("/review", summary="Decide pairs")
def decide(request: Request, asked: Decision, x_form_token: Annotated[str, Header()] = "") -> Written:
    """All or none; 503 while a run is at work."""
    desk = _desk(request)
    _meant(request, desk, x_form_token)
    return Written(written=desk.decided.decide(asked.items, asked.decision, desk.audit.who, asked.reason))


def _meant(request: Request, desk: Desk, form_token: str) -> None:
    """A browser could be led to send this with its cookie; a program sends the token itself."""
    if not (getattr(request.state, "by_token", False) or desk.gate.sent_by_us(form_token)):
        raise PipelineError("send the token as `Authorization: Bearer ...`")
