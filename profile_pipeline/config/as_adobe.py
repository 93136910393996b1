"""What `graph: none` and `adobe_compat: true` of identity.yaml make of the other rules.

Both are other rules, not other code: everything downstream reads rules that say in full what holds. Which of
Adobe's behaviour that reaches, and what it does not, is in docs/adobe.md.
"""

from collections.abc import Mapping

from profile_pipeline.config.identity import IdentityRules, Namespace
from profile_pipeline.config.sources import Source

NO_LIMIT = 2**31 - 1


def acting_identity(rules: IdentityRules) -> IdentityRules:
    """The identity rules as they act."""
    if not (rules.adobe_compat or rules.graph == "none"):
        return rules
    changed = {"matching": rules.matching.model_copy(update={"enabled": False})}
    if rules.adobe_compat:
        # nothing screens a value there, however many share it
        changed["clustering"] = rules.clustering.model_copy(update={"generic_limit": NO_LIMIT})
    spaces = {name: _acting_namespace(rules, space) for name, space in rules.namespaces.items()}
    return rules.model_copy(update={**changed, "namespaces": spaces})


def _acting_namespace(rules: IdentityRules, space: Namespace) -> Namespace:
    """Under adobe_compat every identity of a person links, as it is written; under graph none no identity does."""
    changed: dict[str, object] = {}
    if rules.adobe_compat:
        changed = {"type": "id", "blocked": [], "link": True}
    if rules.graph == "none":
        changed["link"] = False
    return space.model_copy(update=changed)


def acting_sources(rules: IdentityRules, sources: Mapping[str, Source]) -> dict[str, Source]:
    """Under adobe_compat records have no time of their own: a later delivery of a record replaces the earlier one."""
    if not rules.adobe_compat:
        return dict(sources)
    return {
        name: source.model_copy(update={"time": None}) if source.kind == "record" else source
        for name, source in sources.items()
    }
