"""Settings of the codec server and of Temporal clients; errors name the variable."""

import pytest

from cli.codec.settings import CodecSettings
from workers.settings.common import InvalidSettings, PayloadSettings, load

GOOD = {
    "PAYLOAD_KEYS": f"k1:{'1a' * 32}",
    "CODEC_TOKEN_HASHES": f"{'0' * 64}, {'f' * 64}",
    "CODEC_ORIGINS": "https://temporal.example.com,http://127.0.0.1:8233",
}


def configure(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in (GOOD | changes).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DATABASE_URL", raising=False)


def test_the_codec_server_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    settings = load(CodecSettings)
    assert settings.codec_bind == "127.0.0.1:8081"
    assert len(settings.codec_token_hashes) == len(settings.codec_origins) == 2
    assert "1a1a" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYLOAD_KEYS", ""),
        ("PAYLOAD_KEYS", "off"),
        ("PAYLOAD_KEYS", "k1:abcdef"),
        ("CODEC_TOKEN_HASHES", ""),
        ("CODEC_TOKEN_HASHES", "the token itself"),
        ("CODEC_ORIGINS", "*"),
        ("CODEC_ORIGINS", "temporal.example.com"),
        ("CODEC_ORIGINS", "https://temporal.example.com/"),
        ("CODEC_BIND", "8081"),
    ],
)
def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    configure(monkeypatch, **{name: value})
    with pytest.raises(InvalidSettings, match=f"^{name}: ") as caught:
        load(CodecSettings)
    for secret in ("abcdef", "the token itself"):
        assert secret not in str(caught.value)


def test_without_the_setting_payloads_are_in_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, PAYLOAD_KEYS="")
    assert load(PayloadSettings).payload_key_ring.current is None
