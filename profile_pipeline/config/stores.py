"""Where deliveries go, as rules/sharing.yaml says it. Secrets are named by environment variable, never written."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from profile_pipeline.config.model import Rule

STORES = {
    "local": ("folder",),
    "s3": ("bucket", "prefix", "region", "endpoint", "access_key_env", "secret_key_env", "session_token_env"),
    "azure": ("container", "account", "prefix", "endpoint", "account_key_env", "sas_token_env"),
    "gcs": ("bucket", "prefix", "endpoint", "credentials_file_env"),
}
"""Keys of each type of store."""
NEEDED = {"local": ("folder",), "s3": ("bucket",), "azure": ("container", "account"), "gcs": ("bucket",)}
OWN_FOLDERS = frozenset(("sources", "inbox", "state", "published", "dagster", "audiences", "truth"))
"""Folders of the data folder that are the pipeline's own."""
SECRET_KEYS = {
    "access_key": "access_key_env", "secret_key": "secret_key_env", "session_token": "session_token_env",
    "account_key": "account_key_env", "sas_token": "sas_token_env", "password": "secret_key_env",
    "token": "sas_token_env", "credentials": "credentials_file_env", "connection_string": "account_key_env",
    "access_key_id": "access_key_env", "secret_access_key": "secret_key_env", "key": "key_env", "secret": "secret_key_env",
}  # fmt: skip
"""Keys under which people write a secret itself, and where its name belongs."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
KNOWN_SECRETS = re.compile(r"(AKIA|ASIA)[A-Z0-9]{16}")


def _is_a_name(text: str) -> str:
    """Refuse what is a secret and not the name of a variable; the message must not repeat it."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", text) or KNOWN_SECRETS.fullmatch(text):
        raise ValueError(
            "is not the name of an environment variable; put the secret into one such as PARTNER_KEY"
            " and write that name here, never the secret itself"
        )
    return text


EnvironmentName = Annotated[str, AfterValidator(_is_a_name)]
"""The name of an environment variable, in capitals."""


def host_of(address: str) -> str | None:
    """The machine of an address."""
    return urlsplit(address).hostname


class WithoutSecrets(Rule):
    """A group of keys in which a secret is refused before anything shows it."""

    @model_validator(mode="before")
    @classmethod
    def _no_secret_itself(cls, data: object) -> object:
        for key in data if isinstance(data, dict) else ():
            if (named := SECRET_KEYS.get(str(key))) and named in cls.model_fields:
                raise ValueError(
                    f"`{key}:` would put a secret into a file; put it into an environment variable and write"
                    f" `{named}: NAME_OF_THE_VARIABLE`"
                )
        return data


class Store(WithoutSecrets):
    """Where files go."""

    type: Literal["local", "s3", "azure", "gcs"] = Field(
        description="local (a folder), s3 (Amazon S3 and what speaks it), azure (Blob storage) or gcs (Google Cloud storage)"
    )
    folder: str | None = Field(
        default=None, min_length=1, description="local: a folder, absolute or below the data folder"
    )
    bucket: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", description="s3, gcs: the bucket"
    )
    container: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", description="azure: the container"
    )
    account: str | None = Field(
        default=None, pattern=r"^[a-z0-9]{3,24}$", description="azure: the storage account"
    )
    prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9._=-]*/?)*$",
        description="s3, azure, gcs: where in the bucket or container everything goes",
    )
    region: str = Field(
        default="us-east-1", pattern=r"^[a-z0-9-]{2,40}$", description="s3: region of the bucket"
    )
    endpoint: str | None = Field(
        default=None,
        description="s3, azure, gcs: address of a store that is not the cloud's own; https, or loopback",
    )
    access_key_env: EnvironmentName = Field(
        default="AWS_ACCESS_KEY_ID", description="s3: variable that holds the access key"
    )
    secret_key_env: EnvironmentName = Field(
        default="AWS_SECRET_ACCESS_KEY", description="s3: variable that holds the secret key"
    )
    session_token_env: EnvironmentName | None = Field(
        default=None, description="s3: variable that holds the token of temporary keys"
    )
    account_key_env: EnvironmentName = Field(
        default="AZURE_STORAGE_KEY", description="azure: variable that holds the account key"
    )
    sas_token_env: EnvironmentName | None = Field(
        default=None,
        description="azure: variable that holds a shared access signature, instead of the account key",
    )
    credentials_file_env: EnvironmentName = Field(
        default="GOOGLE_APPLICATION_CREDENTIALS",
        description="gcs: variable that holds the path of the service account's key file",
    )

    @field_validator("folder")
    @classmethod
    def _outside(cls, folder: str | None) -> str | None:
        parts = folder.split("/") if folder else [""]
        if ".." in parts:
            raise ValueError("must not go up with `..`; write the folder out")
        if parts[0] in OWN_FOLDERS or folder == ".":
            raise ValueError("is a folder of the pipeline's own; write another, such as shared/partner")
        return folder

    @field_validator("endpoint")
    @classmethod
    def _safe(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if "@" in endpoint or parts.query or parts.fragment:
            raise ValueError("holds more than an address; leave out user, password and everything behind `?`")
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise ValueError("must begin with https:// (http:// is for this machine's own address only)")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _of_its_type(self) -> "Store":
        strangers = self.model_fields_set - {"type", *STORES[self.type]}
        for key in sorted(strangers):
            raise ValueError(f"`{key}:` is not for `type: {self.type}`; remove it")
        for key in NEEDED[self.type]:
            if not getattr(self, key):
                raise ValueError(f"`type: {self.type}` needs `{key}:`; add it")
        return self

    @property
    def place(self) -> str:
        """Where it is, in one word, without endpoint and secrets."""
        inside = f"{self.folder or self.bucket or self.container}/{self.prefix}".rstrip("/")
        return f"{self.account}/{inside}" if self.account else inside
