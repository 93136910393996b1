"""Match fields: which profile fields matching looks at, and as what, from their semantic types."""

from profile_pipeline.config.load import Config

FIELDS = {
    "given": ("given_name",), "middle": ("middle_name",), "family": ("family_name",), "full": ("full_name",),
    "birth_date": ("birth_date",), "email": ("email",), "phone": ("phone",), "street": ("street_address",),
    "house": ("house_number",), "city": ("city",), "region": ("region",), "postcode": ("postcode",),
    "national_id": ("national_id",), "gender": ("gender",),
}  # fmt: skip
IDENTIFYING = ("email", "phone", "national_id")
"""Semantic types whose values name one person or household: a value shared by many strangers is generic."""


def match_fields(config: Config) -> dict[str, list[str]]:
    """Match field to the profile fields that feed it, in order of declaration; only those in use."""
    mapped = {
        field for source in config.record_sources.values() if source.matching for field in source.attributes
    }
    found = {}
    for name, kinds in FIELDS.items():
        fields = [
            field
            for field, attribute in config.attributes.items()
            if attribute.type in kinds and field in mapped and attribute.match is not False
        ]
        if fields:
            found[name] = fields
    for field, attribute in config.attributes.items():
        if attribute.match and attribute.type in {"category", "text", "id"} and field in mapped:
            found[f"x_{field}"] = [field]
    return found
