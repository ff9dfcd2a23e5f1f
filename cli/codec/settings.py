"""Settings of the codec server. Keys and tokens have no default."""

import re
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from workers.settings.common import CommaSeparated, LogSettings, PayloadSettings, split_commas
from workers.settings.listen_address import ListenAddress
from workflows.shared.encryption import PayloadKeys


class CodecSettings(LogSettings, PayloadSettings):
    """Settings of the codec server; it needs no database, Temporal or AWS."""

    codec_bind: ListenAddress = "127.0.0.1:8081"
    """Host and port that the codec server listens on."""
    codec_token_hashes: CommaSeparated
    """SHA-256 (hexadecimal) of the tokens that give access to decrypted payloads."""
    codec_origins: CommaSeparated = ()
    """Origins of the Temporal UI, as in the browser's address bar (`https://temporal.example.com`). Only
    their pages get decrypted payloads. Empty: only the CLI does."""

    @field_validator("codec_token_hashes", "codec_origins", mode="before")
    @classmethod
    def _split_lists(cls, value: object) -> object:
        return split_commas(value)

    @field_validator("codec_token_hashes")
    @classmethod
    def _are_hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(not re.fullmatch("[0-9a-f]{64}", each) for each in value):
            raise ValueError(
                "each entry must be 64 hexadecimal digits, the SHA-256 of a token; at least one is required"
            )
        return value

    @field_validator("codec_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            parts = urlsplit(each)
            if parts.scheme not in ("http", "https") or each != f"{parts.scheme}://{parts.netloc}":
                raise ValueError("each entry must be scheme://host[:port], without a path")
        return value

    @field_validator("payload_keys")
    @classmethod
    def _has_keys(cls, value: SecretStr) -> SecretStr:
        if not PayloadKeys.parse(value.get_secret_value()).keys:
            raise ValueError("the codec server needs at least one key")
        return value
