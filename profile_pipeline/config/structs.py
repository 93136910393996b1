"""Structs: a field of several fields, merged one by one, or as a whole where it is atomic.

Reading the rules turns a struct into its parts, attributes named `<struct>_<field>`: what follows (mapping, matching,
merging, lineage, pins) knows plain attributes only, and an atomic struct is a locked group of them. The profile
table shows the parts, and the struct beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from profile_pipeline.config.profiles import FieldRule, Group, Policy, ProfileRules
from profile_pipeline.config.sources import Attribute, Source
from profile_pipeline.config.sources import Mapping as Reading

Structs = dict[str, dict[str, str]]
"""Struct to its fields and the attributes that they are."""
Attributes = Mapping[str, Attribute]
OF_FIELDS_ONLY = ("sources", "when", "keep", "max", "primary", "key")
"""What a rule of a field can say and one of a locked group cannot."""
GROUP_CHOICE = Group.model_fields["choose"].default


def structs_of(attributes: Attributes) -> Structs:
    """Every declared struct with the names of its parts."""
    return {
        name: {field: f"{name}_{field}" for field in attribute.fields}
        for name, attribute in attributes.items()
        if attribute.type == "struct"
    }


def struct_problems(
    attributes: Attributes, sources: Mapping[str, Source], policies: Mapping[str, Policy]
) -> list[str]:
    """Lines `file: key.path: what is wrong; how to mend it`, of the rules as written."""
    structs = structs_of(attributes)
    return [
        *_names_taken(attributes, structs),
        *_mapped_twice(sources, structs),
        *(line for name, policy in policies.items() for line in _policy_problems(name, policy, attributes)),
    ]


def _names_taken(attributes: Attributes, structs: Structs) -> Iterator[str]:
    taken = set(attributes)
    for name, parts in structs.items():
        for field, part in parts.items():
            if part in taken:
                yield (
                    f"sources.yaml: attributes.{name}.fields.{field}: becomes `{part}`, which is there already;"
                    " rename one of them"
                )
            taken.add(part)


def _mapped_twice(sources: Mapping[str, Source], structs: Structs) -> Iterator[str]:
    for source, rules in sources.items():
        for name, parts in structs.items():
            twice = [part for part in parts.values() if part in rules.attributes]
            if name in rules.attributes and twice:
                yield (
                    f"sources.yaml: sources.{source}.attributes.{twice[0]}: `{name}` maps it already; keep one of them"
                )


def _policy_problems(policy: str, rules: Policy, attributes: Attributes) -> Iterator[str]:
    for name, parts in structs_of(attributes).items():
        own, where = rules.fields.get(name), f"profiles.yaml: policies.{policy}"
        if not attributes[name].atomic:
            continue
        apart = [part for part in parts.values() if part in rules.fields or rules.group_of(part)]
        if apart:
            yield f"{where}: `{apart[0]}` has a rule, but `{name}` is atomic; write `fields.{name}` instead"
        if name in rules.groups:
            yield f"{where}.groups.{name}: is an atomic struct; rename the group"
        for option in OF_FIELDS_ONLY:
            if own and getattr(own, option) != FieldRule.model_fields[option].default:
                yield f"{where}.fields.{name}.{option}: `{name}` is atomic, its record is chosen as a whole; remove it"


def flattened(
    attributes: Attributes, sources: Mapping[str, Source], profiles: ProfileRules
) -> dict[str, Any]:
    """The same rules with the parts of each struct in its place, and the structs: what a Config is made of."""
    structs = structs_of(attributes)
    policies = {name: flat_policy(policy, attributes) for name, policy in profiles.policies.items()}
    return {
        "attributes": flat_attributes(attributes),
        "structs": {name: attributes[name] for name in structs},
        "sources": {name: flat_source(source, structs) for name, source in sources.items()},
        "profiles": profiles.model_copy(update={"policies": policies}),
    }


def flat_attributes(attributes: Attributes) -> dict[str, Attribute]:
    """The attributes with the parts of each struct in its place."""
    found: dict[str, Attribute] = {}
    for name, attribute in attributes.items():
        if attribute.type == "struct":
            found |= {f"{name}_{field}": _part(name, attribute, field) for field in attribute.fields}
        else:
            found[name] = attribute
    return found


def _part(name: str, struct: Attribute, field: str) -> Attribute:
    """A field of a struct; what it does not say itself, it has from the struct."""
    own = struct.field(field)
    inherited = {
        key: getattr(struct, key)
        for key in ("personal", "sensitive", "match", "placeholders")
        if key in struct.model_fields_set and key not in own.model_fields_set
    }
    description = own.description or f"{field.replace('_', ' ').capitalize()} of {name.replace('_', ' ')}."
    return own.model_copy(update={**inherited, "description": description})


def flat_source(source: Source, structs: Structs) -> Source:
    """A source whose mapped structs are mapped part by part, from the JSON object that the expression gives."""
    mapped: dict[str, Reading | str] = {}
    for name, mapping in source.attributes.items():
        if name in structs:
            whole = source.mapping(name)
            mapped |= {
                part: whole.model_copy(update={"field": field}) for field, part in structs[name].items()
            }
        else:
            mapped[name] = mapping
    return source.model_copy(update={"attributes": mapped})


def flat_policy(policy: Policy, attributes: Attributes) -> Policy:
    """A policy whose rules for structs are rules for their parts, or for their group where the struct is atomic."""
    fields, groups = dict(policy.fields), dict(policy.groups)
    for name, parts in structs_of(attributes).items():
        own = fields.pop(name, None)
        if attributes[name].atomic:
            groups[name] = _group(policy, own, list(parts.values()))
        elif own:
            fields |= {
                part: own for part in parts.values() if part not in fields and not policy.group_of(part)
            }
    return policy.model_copy(update={"fields": fields, "groups": groups})


def _group(policy: Policy, own: FieldRule | None, parts: list[str]) -> Group:
    """A locked group as an atomic struct needs it. It is constructed: one field alone may be atomic too."""
    said = (own and own.choose) or GROUP_CHOICE
    choose = said if policy.method == "per_field" else policy.ranking(parts[0]).choose
    options = {key: getattr(own, key) for key in ("trust", "decay", "custom")} if own else {}
    return Group.model_construct(fields=parts, choose=list(choose), **options)
