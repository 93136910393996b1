"""Adobe's merge policies, as its API returns them, as policies of profiles.yaml.

What a policy does becomes keys of ours under `adobe_compat: true`. Whatever has no counterpart here is said, a line
each: an import never drops anything silently. Sources: Experience Platform documentation, "Merge policies API".
"""

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profile_pipeline.config.load import Config
from profile_pipeline.config.policy_file import policy_problems
from profile_pipeline.config.profiles import Policy
from profile_pipeline.config.reading import MAX_RULE_BYTES, parse_yaml, read_yaml
from profile_pipeline.config.wording import explain, shown
from profile_pipeline.errors import PipelineError

Json = Any
PROFILE_SCHEMA = "_xdm.context.profile"
METHODS = {"timestampOrdered": "time_ordered", "dataSetPrecedence": "dataset_precedence"}
PLACE = ("imsOrgId", "sandbox", "updateEpoch", "_links")
"""Keys that say where and when a policy was kept, not what it does."""
KNOWN = {
    "id",
    "name",
    "schema",
    "version",
    "identityGraph",
    "attributeMerge",
    "isActiveOnEdge",
    "default",
    *PLACE,
}


@dataclass(frozen=True)
class Imported:
    """Policies for profiles.yaml by name, and a line for each thing that was not carried over.

    `unmapped` are datasets for which no source was named.
    """

    policies: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    unmapped: tuple[str, ...]


# ---------------------------------------------------------------- reading


def read_mapping(file: Path | None, pairs: Sequence[str]) -> dict[str, str]:
    """Sources by dataset id or name, from a file (a mapping in YAML or JSON) and `ID=SOURCE` pairs, which win."""
    found: dict[str, str] = {}
    if file:
        if not file.is_file():
            raise PipelineError(f"{file}: no such file; write lines `dataset id: source`")
        data = read_yaml(file) or {}
        if not isinstance(data, dict) or not all(isinstance(source, str) for source in data.values()):
            raise PipelineError(f"{file.name}: is not a list of `dataset id: source`; write one a line")
        found = {str(dataset): source for dataset, source in data.items()}
    for pair in pairs:
        dataset, sign, source = pair.rpartition("=")
        if not (dataset and sign and source):
            raise PipelineError(f"--dataset: {shown(pair)} is not ID=SOURCE; write both around a `=`")
        found[dataset.strip()] = source.strip()
    return found


def read_documents(file: Path) -> list[dict[str, Json]]:
    """The policies of a file: one, a list, a listing (`children`) or the answer of a bulk request (`results`)."""
    if not file.is_file():
        raise PipelineError(f"{file}: no such file")
    if file.stat().st_size > MAX_RULE_BYTES:
        raise PipelineError(f"{file.name}: larger than {MAX_RULE_BYTES:,} bytes; split it")
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise PipelineError(f"{file.name}: is not JSON{place}; save the answer of the API as it is") from None
    found = _listed(data)
    if not found or not all(isinstance(each, dict) and "attributeMerge" in each for each in found):
        raise PipelineError(
            f"{file.name}: holds no merge policies; each has `attributeMerge`, as `GET /config/mergePolicies` returns it"
        )
    return found


def _listed(data: Json) -> list[Json]:
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        return []
    inner = data.get("children", data.get("results"))
    if inner is None:
        return [data]
    return list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list) else []


# ---------------------------------------------------------------- carrying over


def import_policies(file: Path, config: Config, mapping: Mapping[str, str]) -> Imported:
    """The policies of a file; those that cannot work here are left out, with a note. Raises PipelineError."""
    _check_mapping(config, mapping)
    policies: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    unmapped: list[str] = []
    for document in read_documents(file):
        name = _free_name(str(document.get("name") or "adobe"), policies)
        carried = _Carried(name, config, mapping, notes, unmapped)
        policy = carried.policy(document)
        if policy:
            policies[name] = policy
    return Imported(policies, tuple(notes), tuple(dict.fromkeys(unmapped)))


def _check_mapping(config: Config, mapping: Mapping[str, str]) -> None:
    for dataset, source in mapping.items():
        if source not in config.sources:
            known = ", ".join(config.sources) or "none"
            raise PipelineError(
                f"dataset {dataset}: no source is called `{source}`; the sources are: {known}"
            )


def _free_name(title: str, taken: Iterable[str]) -> str:
    """A name as profiles.yaml allows it, numbered where another policy has it."""
    slug = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:56].strip("_")
    slug = slug if re.match(r"[a-z]", slug) else f"adobe_{slug}".strip("_")
    found, number = slug, 2
    while found in taken:
        found, number = f"{slug}_{number}", number + 1
    return found


@dataclass
class _Carried:
    """One policy on its way; what is left behind is added to `notes`."""

    name: str
    config: Config
    mapping: Mapping[str, str]
    notes: list[str]
    unmapped: list[str]

    def policy(self, document: dict[str, Json]) -> dict[str, Any] | None:
        """The keys of profiles.yaml, or None when it cannot work here."""
        merge = document["attributeMerge"] if isinstance(document["attributeMerge"], dict) else {}
        method = METHODS.get(str(merge.get("type")))
        schema = _inner(document, "schema", "name")
        self._note_rest(document, merge)
        if schema not in (None, PROFILE_SCHEMA):
            return self._left_out(f"schema {shown(schema)}: profiles here are those of people")
        if not method:
            return self._left_out(
                f"attributeMerge.type {shown(merge.get('type'))}: not one of {', '.join(METHODS)}"
            )
        found: dict[str, Any] = {
            "version": _version(document.get("version")),
            "description": _description(document),
            "adobe_compat": True,
            "method": method,
        }
        if method == "dataset_precedence":
            found["sources"] = self._ranks(merge.get("order"))
            if not found["sources"]:
                return self._left_out("none of its datasets has a source, so nothing would ever win")
        return self._checked(found)

    def _note(self, text: str) -> None:
        self.notes.append(f"policy `{self.name}`: {text}")

    def _left_out(self, why: str) -> None:
        self._note(f"left out; {why}")

    def _note_rest(self, document: dict[str, Json], merge: dict[str, Json]) -> None:
        for text in (*self._no_counterpart(document), *_without_meaning(document, merge)):
            self._note(text)

    def _no_counterpart(self, document: dict[str, Json]) -> Generator[str]:
        """What is no key of a policy here."""
        graph = _inner(document, "identityGraph", "type")
        if graph == "none":
            yield "identityGraph none: profiles of a project are the same under every policy; `graph: none` in identity.yaml"
        elif graph != "pdg":
            yield f"identityGraph {shown(graph)}: not one of none, pdg; identities are linked as identity.yaml says"
        if document.get("default"):
            yield f"default: it is the default of its schema; write `default: {self.name}` in profiles.yaml"
        if document.get("isActiveOnEdge"):
            yield "isActiveOnEdge: there is no edge; every policy has a published table"

    def _ranks(self, order: Json) -> dict[str, int]:
        ranks: dict[str, int] = {}
        for dataset in map(str, order if isinstance(order, list) else []):
            source = self._source(dataset)
            if source in ranks:
                self._note(f"dataset {dataset}: its source `{source}` has rank {ranks[source]} already")
            elif source:
                ranks[source] = len(ranks) + 1
        return ranks

    def _source(self, dataset: str) -> str | None:
        source = self.mapping.get(dataset, dataset if dataset in self.config.sources else None)
        if source is None:
            self.unmapped.append(dataset)
            self._note(f"dataset {dataset}: no source is named for it; give --dataset {dataset}=SOURCE")
        elif source not in self.config.record_sources:
            self._note(f"dataset {dataset}: source `{source}` has events only, which no policy ranks")
            return None
        return source

    def _checked(self, found: dict[str, Any]) -> dict[str, Any] | None:
        try:
            policy = Policy.model_validate(found)
        except ValidationError as error:
            return self._left_out("; ".join(explain(error, Policy)))
        problems = policy_problems(self.config, policy)
        return self._left_out("; ".join(problems)) if problems else found


def _inner(document: dict[str, Json], key: str, inner: str) -> Json:
    part = document.get(key)
    return part.get(inner) if isinstance(part, dict) else part


def _version(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else 1


def _description(document: dict[str, Json]) -> str:
    identity = f" ({document['id']})" if document.get("id") else ""
    return f"Adobe merge policy: {document.get('name') or 'without a name'}{identity}"


def _without_meaning(document: dict[str, Json], merge: dict[str, Json]) -> Generator[str]:
    """What says nothing here, or nothing that we know."""
    if merge.get("order") and merge.get("type") == "timestampOrdered":
        yield "attributeMerge.order: has no meaning under timestampOrdered"
    if "version" in document and _version(document["version"]) != document["version"]:
        yield f"version {shown(document['version'])}: not a whole number from 1; it is version 1 here"
    place = [key for key in PLACE if key in document]
    if place:
        yield f"{', '.join(place)}: where and when it was kept, not what it does"
    yield from (f"{key}: unknown, and so left behind" for key in document if key not in KNOWN)
    yield from _unknown_inner(document, merge)


def _unknown_inner(document: dict[str, Json], merge: dict[str, Json]) -> Generator[str]:
    parts = {"attributeMerge": (merge, {"type", "order"}), "schema": (document.get("schema"), {"name"})}
    parts["identityGraph"] = (document.get("identityGraph"), {"type"})
    for name, (part, known) in parts.items():
        for key in part if isinstance(part, dict) else ():
            if key not in known:
                yield f"{name}.{key}: unknown, and so left behind"


# ---------------------------------------------------------------- writing


def as_yaml(found: Imported) -> str:
    """The policies as a part of profiles.yaml."""
    return "\n".join(["policies:", *_lines(found)]) if found.policies else "policies: {}"


def _lines(found: Imported) -> list[str]:
    lines = []
    for name, policy in found.policies.items():
        lines.append(f"  {name}:")
        for key, value in policy.items():
            lines.append(f"    {key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    plain = isinstance(value, int) or re.fullmatch(r"[a-z_]+", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def add_to_rules(folder: Path, found: Imported) -> str:
    """Add the policies to profiles.yaml, every line that is there left as it is; its path.

    Raises PipelineError, and writes nothing, when a policy of a name exists or a dataset has no source.
    """
    from profile_pipeline.infer.append import insert

    path = folder / "profiles.yaml"
    text = path.read_text(encoding="utf-8")
    known = parse_yaml(text) or {}
    policies = known.get("policies") or {}
    taken = [name for name in found.policies if name in policies]
    if taken:
        raise PipelineError(f"profiles.yaml: policies.{taken[0]} exists already; rename one of the two")
    if found.unmapped:
        raise PipelineError(
            f"dataset {found.unmapped[0]}: no source is named for it; give --dataset {found.unmapped[0]}=SOURCE"
        )
    if not found.policies:
        raise PipelineError(f"nothing to write; {'; '.join(found.notes)}")
    extended = insert(text, "policies", _lines(found))
    if parse_yaml(extended) != {**known, "policies": {**policies, **found.policies}}:
        raise PipelineError(
            "profiles.yaml: `policies:` cannot be extended by machine; paste the policies by hand"
        )
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(extended, encoding="utf-8")
    partial.replace(path)
    return path.name
