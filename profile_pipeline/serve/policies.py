"""How the merge policies differ over all profiles: in how many each field shows another value."""

from dataclasses import dataclass
from functools import lru_cache

from profile_pipeline.serve.portrait import BOOKKEEPING, profile_table
from profile_pipeline.serve.shelf import Published
from profile_pipeline.warehouse import columns_of, quote, records_of


@dataclass(frozen=True)
class Differences:
    """Profiles whose value differs from that under the default policy, by field and policy, and some of them."""

    default: str
    descriptions: dict[str, str]
    profiles: int
    any_field: dict[str, int]
    by_field: dict[str, dict[str, int]]
    examples: dict[str, list[str]]


@lru_cache(maxsize=2)
def differences(published: Published) -> Differences:
    """Compared once a generation: every value of every profile is read."""
    policies = published.config.profiles.policies
    default = published.config.profiles.default
    others = [name for name in policies if name != default]
    by_policy = {name: _against(published, name) for name in others}
    fields = sorted({field for _, counts, _ in by_policy.values() for field, n in counts.items() if n})
    return Differences(
        default,
        {name: policy.description or f"version {policy.version}" for name, policy in policies.items()},
        published.manifest["tables"]["profiles"]["rows"],
        {name: total for name, (total, _, _) in by_policy.items()},
        {
            field: {name: counts.get(field, 0) for name, (_, counts, _) in by_policy.items()}
            for field in fields
        },
        {name: examples for name, (_, _, examples) in by_policy.items()},
    )


def _against(published: Published, policy: str) -> tuple[int, dict[str, int], list[str]]:
    """Profiles that differ in any field, in each field, and the first of them."""
    table = profile_table(published.config, policy)
    with published.read() as con:
        fields = [
            f for f in columns_of(con, table) if f in columns_of(con, "profiles") and f not in BOOKKEEPING
        ]
        differ = {field: f"d.{quote(field)} is distinct from o.{quote(field)}" for field in fields}
        counted = "".join(f", count(*) filter ({test}) as {quote(field)}" for field, test in differ.items())
        any_ = " or ".join(differ.values()) or "false"
        [row] = records_of(
            con,
            f"""select count(*) filter ({any_}) as any_field, min(d.profile_id, 5) filter ({any_}) as examples{counted}
            from profiles d join {table} o using (profile_id)""",
        )
    total, examples = row.pop("any_field"), row.pop("examples") or []
    return total, row, examples
