"""The country of a source's national phone numbers: from prefixes, country columns and postcodes; else asked."""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.infer.evidence import most_common, phone_prefixes, phone_regions
from profile_pipeline.infer.meaning import Meaning

REGIONS = ("GB", "IE", "US", "DE", "FR", "ES", "IT", "NL", "BE", "AT", "CH", "PL", "PT", "SE", "DK", "NO", "FI", "CZ",
           "AU", "CA", "NZ", "BR", "MX", "IN", "ZA")  # fmt: skip
ZONES = {
    "GB": ("Europe/London",), "IE": ("Europe/Dublin",), "DE": ("Europe/Berlin",), "FR": ("Europe/Paris",),
    "ES": ("Europe/Madrid",), "IT": ("Europe/Rome",), "NL": ("Europe/Amsterdam",), "BE": ("Europe/Brussels",),
    "AT": ("Europe/Vienna",), "CH": ("Europe/Zurich",), "PL": ("Europe/Warsaw",), "PT": ("Europe/Lisbon",),
    "SE": ("Europe/Stockholm",), "DK": ("Europe/Copenhagen",), "NO": ("Europe/Oslo",), "FI": ("Europe/Helsinki",),
    "CZ": ("Europe/Prague",), "NZ": ("Pacific/Auckland",), "IN": ("Asia/Kolkata",), "ZA": ("Africa/Johannesburg",),
    "US": ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    "CA": ("America/Toronto", "America/Vancouver"), "AU": ("Australia/Sydney", "Australia/Perth"),
    "BR": ("America/Sao_Paulo",), "MX": ("America/Mexico_City",),
}  # fmt: skip
VALID = 0.6


@dataclass(frozen=True)
class CountryGuess:
    """The country, or those between which a person has to choose; neither when it does not matter."""

    country: str = ""
    choices: tuple[str, ...] = ()


def zones_of(country: str) -> tuple[str, ...]:
    """Time zones of a country, for a question; a common European one where it is not known."""
    return ZONES.get(country, ("Europe/London",))


def guess_country(con: DuckDBPyConnection, used: list[Meaning], phone: Meaning | None) -> CountryGuess:
    """Candidates from other columns, proved on the numbers; a question when national numbers fit several."""
    likely = _from_columns(con, used)
    if not phone:
        return CountryGuess(likely[0] if likely else "")
    world, _ = phone_regions(con, phone.evidence.index, ())
    prefixes = phone_prefixes(con)
    total = sum(prefixes.values())
    likely += [region for region, n in sorted(prefixes.items(), key=lambda item: -item[1]) if n > 0.3 * total]
    if world > 0.95:
        return CountryGuess(likely[0] if likely else "")
    _, valid = phone_regions(con, phone.evidence.index, dict.fromkeys(likely))
    proved = [region for region in likely if valid[region] >= VALID]
    if proved:
        return CountryGuess(max(proved, key=lambda region: valid[region]))
    _, valid = phone_regions(con, phone.evidence.index, REGIONS)
    ranked = sorted(REGIONS, key=lambda region: -valid[region])
    if valid[ranked[0]] >= VALID and valid[ranked[1]] < 0.5 * valid[ranked[0]]:
        return CountryGuess(ranked[0])
    return CountryGuess(choices=tuple(ranked[:4]) if valid[ranked[0]] > 0.2 else ())


def _from_columns(con: DuckDBPyConnection, used: list[Meaning]) -> list[str]:
    found = []
    for m in used:
        if m.type == "country":
            code, share = most_common(con, m.evidence.index, "country")
            found += [code] if code and share >= 0.5 else []
        elif m.type == "postcode":
            found += [
                code for code in ("GB", "IE", "NL", "CA", "PL") if m.evidence.share(f"postcode_{code}") >= 0.7
            ]
    return list(dict.fromkeys(found))
