"""One merge policy from a file of its own: what a candidate for profiles.yaml is tried as."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profile_pipeline.config.cross_check import cross_check
from profile_pipeline.config.load import Config, RuleError
from profile_pipeline.config.profiles import Policy
from profile_pipeline.config.reading import read_yaml
from profile_pipeline.config.structs import flat_policy, struct_problems
from profile_pipeline.config.wording import explain
from profile_pipeline.errors import PipelineError


def is_file(text: str) -> bool:
    """Whether a word names a file rather than a policy: no policy has a dot or a slash in its name."""
    return "." in text or "/" in text


def read_policy(path: Path, config: Config) -> Policy:
    """The policy of a file: its keys alone, or below `policies:` the default or only one. Mistakes are RuleErrors, a line each."""
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; name a policy of profiles.yaml or a YAML file with one")
    try:
        data = _only_policy(read_yaml(path))
        policy = Policy.model_validate(data)
    except ValidationError as error:
        raise RuleError([f"{path.name}: {line}" for line in explain(error, Policy)]) from None
    except RuleError:
        raise
    except PipelineError as error:
        raise RuleError([f"{path.name}: {error}"]) from None
    flat = flat_policy(policy, config.structs)
    problems = _struct_problems(config, policy) or policy_problems(config, flat)
    if problems:
        raise RuleError([f"{path.name}: {line}" for line in problems])
    return flat


def _only_policy(data: Any) -> Any:  # noqa: ANN401
    if not isinstance(data, dict):
        raise PipelineError(
            "is not a group of keys; write the keys of a policy, as below its name in profiles.yaml"
        )
    if "policies" not in data:
        return data
    policies = data["policies"] if isinstance(data["policies"], dict) else {}
    chosen = data.get("default") or (next(iter(policies)) if len(policies) == 1 else None)
    if chosen not in policies:
        raise PipelineError(
            f"holds {len(policies)} policies; keep one, or add `default:` with the name of one"
        )
    return policies[chosen]


CANDIDATE = "candidate"
PLACE = f"profiles.yaml: policies.{CANDIDATE}"


def _struct_problems(config: Config, policy: Policy) -> list[str]:
    found = struct_problems(config.structs, {}, {CANDIDATE: policy})
    return [line.removeprefix(PLACE).lstrip(".: ") for line in found if line.startswith(PLACE)]


def policy_problems(config: Config, policy: Policy) -> list[str]:
    """What of a policy does not fit the other rules, a line each."""
    rules = config.profiles.model_copy(update={"default": CANDIDATE, "policies": {CANDIDATE: policy}})
    return [
        line.removeprefix(PLACE).lstrip(".: ")
        for line in cross_check(config.model_copy(update={"profiles": rules}))
        if line.startswith(PLACE)
    ]
