"""What a column is: its name and its values weighed together, with a confidence and a reason without values."""

from dataclasses import dataclass

from profile_pipeline.config.sources import SemanticType
from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.dates import DateReading
from profile_pipeline.infer.evidence import POSTCODES, Evidence

NAMED_SHARE = 0.5
SURE_SHARE = 0.8
FREE_TEXT_LENGTH = 60
TESTS = {
    "email": "e-mail addresses", "phone": "shaped like phone numbers", "birth_date": "dates",
    "gender": "known gender words", "country": "known countries", "consent": "yes or no",
    "postcode": "shaped like postcodes", "house_number": "shaped like house numbers",
    "street_address": "shaped like streets", "given_name": "words", "middle_name": "words", "family_name": "words",
    "full_name": "words", "city": "words", "region": "words", "national_id": "codes",
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What a column was found to be; `type` is None for one that is only an identifier, or empty."""

    evidence: Evidence
    type: SemanticType | None
    confidence: float
    reason: str
    namespace: str | None = None
    dates: DateReading | None = None
    matched: bool = False

    @property
    def name(self) -> str:
        """The column, with the path inside it."""
        return self.evidence.leaf.name


def meaning_of(found: Evidence, dates: DateReading | None) -> Meaning:
    """Weigh a column's name against the shapes of its values."""
    name = found.leaf.name
    if not found.filled:
        return Meaning(found, None, 0.0, "it is empty")
    named, space = vocabulary.field_of(name), vocabulary.namespace_of(name)
    if vocabulary.names_event(name):
        return Meaning(found, None, 0.9, "its name is that of an event's number", dates=None)
    if space and (not named or space.strength > named.strength):
        confidence = round(space.strength * (0.6 + 0.35 * found.share("code")), 2)
        return Meaning(found, "id", confidence, f"its name means {space.meaning}", space.meaning)
    if named and named.meaning == "matched_category":
        return Meaning(found, "category", 0.85, "its name is a fact that seldom changes", matched=True)
    if named:
        by_name = _by_name(found, named, dates)
        if by_name:
            return by_name
    return _by_value(found, dates)


def _by_name(found: Evidence, named: vocabulary.NameMatch, dates: DateReading | None) -> Meaning | None:
    share = _agreement(found, named.meaning, dates)
    if share < NAMED_SHARE:
        return None
    whole = 0.7 if named.meaning == "birth_date" and found.longest == 4 else named.strength
    confidence = round(0.55 * whole + 0.43 * share, 2)
    reason = f"name means {named.meaning}; {share:.0%} of the values are {TESTS[named.meaning]}"
    space = named.meaning if named.meaning in {"email", "phone"} else None
    kind: SemanticType = named.meaning  # ty: ignore[invalid-assignment]
    return Meaning(found, kind, confidence, reason, space, dates if kind == "birth_date" else None)


def _agreement(found: Evidence, meaning: str, dates: DateReading | None) -> float:
    """Share of values that could be of the field that the name means."""
    if meaning == "birth_date":
        years = found.share("integer") if found.longest == 4 else 0.0
        return max(dates.fitted if dates else 0.0, years)
    if meaning == "postcode":
        return _postcodes(found)
    if meaning == "consent":
        return found.share("boolean")
    if meaning == "street_address":
        return max(found.share("street_like"), found.share("words"))
    if meaning in {"given_name", "middle_name", "family_name", "full_name", "city", "region"}:
        return found.share("words")
    shape = {"phone": "phone_like", "house_number": "house_like", "national_id": "code"}.get(meaning, meaning)
    return found.share(shape)


def _postcodes(found: Evidence) -> float:
    return max(found.share(f"postcode_{code}") for code in POSTCODES)


def _by_value(found: Evidence, dates: DateReading | None) -> Meaning:
    if found.share("email") >= SURE_SHARE:
        share = found.share("email")
        return Meaning(
            found, "email", round(0.9 * share, 2), f"{share:.0%} of the values are e-mail addresses", "email"
        )
    if dates and dates.fitted >= SURE_SHARE:
        kind: SemanticType = "timestamp" if dates.has_time else "date"
        words = "times" if dates.has_time else "dates"
        return Meaning(
            found,
            kind,
            round(0.9 * dates.fitted, 2),
            f"{dates.fitted:.0%} of the values are {words}",
            dates=dates,
        )
    lettered = max(found.share(f"postcode_{code}") for code in ("GB", "IE", "NL", "CA"))
    if lettered >= 0.9:
        return Meaning(
            found,
            "postcode",
            round(0.8 * lettered, 2),
            f"{lettered:.0%} of the values are shaped like postcodes",
        )
    return _plain(found)


def _plain(found: Evidence) -> Meaning:
    """Types that any column may have, from the narrowest to `text`."""
    asks = vocabulary.words(found.leaf.name)[:1] in (["is"], ["has"])
    flags = found.share("boolean") if asks else found.share("flag")
    few = found.distinct <= 50 or (found.repeats >= 20 and found.distinct <= 500)
    options: list[tuple[bool, SemanticType, str]] = [
        (flags >= 0.9 and found.distinct <= 6, "boolean", "its values are yes and no"),
        (found.leaf.kind == "texts", "list", "it is a list"),
        (found.share("list_like") >= 0.3 and found.share("street_like") < 0.3, "list", "it holds lists"),
        (found.share("integer") >= 0.98, "integer", "its values are whole numbers"),
        (found.share("number") >= 0.98, "number", "its values are numbers"),
        (
            few and found.mean_length <= FREE_TEXT_LENGTH,
            "category",
            f"it has {found.distinct} different values",
        ),
        (found.share("code") >= 0.9 and found.share("spaced") < 0.1, "id", "its values are codes"),
    ]
    for holds, kind, reason in options:
        if holds:
            return Meaning(found, kind, 0.7, f"no known name; {reason}")
    return Meaning(found, "text", 0.5, "no known name; its values are free text")
