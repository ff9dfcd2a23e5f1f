"""Payloads are encrypted and decrypted, keys rotate, and other payloads pass unchanged."""

import asyncio
from collections.abc import Sequence

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from workflows.shared.data_converter import Undecodable
from workflows.shared.encryption import (
    ENCODING,
    NO_KEYS,
    Encryption,
    InvalidPayloadKeys,
    KeyUnknown,
    PayloadKeys,
    converter,
)

OLD, NEW = f"old:{'1a' * 32}", f"new:{'2b' * 32}"
CANARY = "canary-of-the-payloads"


def encode(keys: str, value: object) -> Payload:
    [payload] = asyncio.run(converter(PayloadKeys.parse(keys)).encode([value]))
    return payload


def decode(keys: str, payload: Payload, hint: type | None = None) -> object:
    changed = converter(PayloadKeys.parse(keys))
    return asyncio.run(changed.decode([payload], [hint] if hint else None))[0]


def test_an_encrypted_payload_hides_text_and_metadata_and_names_its_key() -> None:
    payload = encode(OLD, {"reason": CANARY})
    raw = payload.SerializeToString()
    assert CANARY.encode() not in raw
    assert b"json/plain" not in raw
    assert dict(payload.metadata) == {"encoding": ENCODING, "encryption-key-id": b"old"}
    assert decode(OLD, payload) == {"reason": CANARY}


def test_the_same_value_is_never_encrypted_to_the_same_bytes() -> None:
    assert len({encode(OLD, "same").data for _ in range(50)}) == 50


def test_after_a_rotation_the_new_key_encrypts_and_the_old_one_still_decrypts() -> None:
    before, after = encode(OLD, CANARY), encode(f"{NEW},{OLD}", CANARY)
    assert after.metadata["encryption-key-id"] == b"new"
    assert [decode(f"{NEW},{OLD}", each) for each in (before, after)] == [CANARY, CANARY]
    assert decode(f"{OLD},{NEW}", after) == CANARY


def test_off_before_the_keys_encrypts_nothing_and_still_decrypts() -> None:
    assert encode(f"off,{OLD}", CANARY) == encode("", CANARY)
    assert decode(f"off,{OLD}", encode(OLD, CANARY)) == CANARY


def test_payloads_from_before_encryption_was_enabled_pass() -> None:
    assert decode(OLD, encode("", {"reason": CANARY})) == {"reason": CANARY}


@pytest.mark.parametrize("keys", ["", "off", NEW, f"off,{NEW}"])
def test_a_missing_key_is_an_error_that_names_it_and_the_setting(keys: str) -> None:
    # Not `Undecodable`: otherwise a worker without the key would record the rejection of a valid request.
    with pytest.raises(KeyUnknown, match=r"key 'old', which is not in PAYLOAD_KEYS"):
        decode(keys, encode(OLD, CANARY))


def tampered(payload: Payload, *, data: bytes | None = None, key_id: bytes | None = None) -> Payload:
    changed = Payload()
    changed.CopyFrom(payload)
    if data is not None:
        changed.data = data
    if key_id is not None:
        changed.metadata["encryption-key-id"] = key_id
    return changed


def test_a_corrupt_payload_reaches_its_handler_as_undecodable() -> None:
    good = encode(OLD, CANARY)
    flipped = bytes([good.data[0] ^ 1]) + good.data[1:]
    bad = [
        tampered(good, data=flipped),
        tampered(good, data=good.data[:-1]),
        tampered(good, data=b""),
        tampered(good, data=b"short"),
        tampered(good, key_id=b""),
        tampered(good, key_id=b"\xff\xfe"),
        tampered(good, key_id=b"No Key's ID"),
    ]
    for payload in bad:
        assert isinstance(decode(f"{OLD},{NEW}", payload), Undecodable)


def test_a_key_id_cannot_be_exchanged_even_where_the_key_is_the_same() -> None:
    twins = f"one:{'3c' * 32},two:{'3c' * 32}"
    moved = tampered(encode(twins, CANARY), key_id=b"two")
    assert isinstance(decode(twins, moved), Undecodable)


def failure(keys: PayloadKeys) -> Failure:
    changed, into = converter(keys), Failure()

    async def convert() -> None:
        try:
            raise ApplicationError(CANARY, {"detail": CANARY})
        except ApplicationError as error:
            await changed.encode_failure(error, into)

    asyncio.run(convert())
    return into


def test_a_failures_message_details_and_stack_trace_are_encrypted_and_come_back() -> None:
    keys = PayloadKeys.parse(OLD)
    encoded = failure(keys)
    assert CANARY.encode() not in encoded.SerializeToString()
    assert b"test_encryption.py" not in encoded.SerializeToString()
    error = asyncio.run(converter(keys).decode_failure(encoded))
    assert isinstance(error, ApplicationError)
    assert (error.message, error.details) == (CANARY, ({"detail": CANARY},))
    assert "test_encryption.py" in failure(NO_KEYS).stack_trace


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k1", "entry 1 is not ID:HEX"),
        (f"K1:{'1a' * 32}", "entry 1 is not ID:HEX"),
        (f"{OLD},{OLD}", "entry 2 is not ID:HEX with a unique ID"),
        (f"{OLD},off", "entry 2 is not ID:HEX"),
        (f"off:{'1a' * 32}", "entry 1 is not ID:HEX"),
        (f"{OLD},", "entry 2 is not ID:HEX"),
        ("k1:secret-in-the-wrong-form", "the key 'k1' is not hexadecimal"),
        ("k1:abcdef", "the key 'k1' has 3 bytes, not 32"),
        (f"k1:{'1a' * 33}", "the key 'k1' has 33 bytes, not 32"),
    ],
)
def test_invalid_keys_are_rejected_without_being_shown(text: str, expected: str) -> None:
    with pytest.raises(InvalidPayloadKeys, match=expected) as caught:
        PayloadKeys.parse(text)
    for digits in ("1a1a", "abcdef", "secret-in"):
        assert digits not in str(caught.value)


def test_keys_do_not_show_in_their_own_text() -> None:
    assert "1a1a" not in repr(PayloadKeys.parse(OLD))


def test_a_payload_of_megabytes_and_an_empty_one_come_back() -> None:
    values: tuple[object, ...] = ("", "x" * 3_000_000, None, [], {"a": {"b": ["c"]}})
    for value in values:
        assert decode(OLD, encode(OLD, value)) == value


def both_ways(payloads: Sequence[Payload]) -> list[Payload]:
    codec = Encryption(PayloadKeys.parse(OLD))
    return asyncio.run(codec.decode(asyncio.run(codec.encode(payloads))))


def test_payloads_of_other_encodings_pass_unchanged() -> None:
    given = [Payload(metadata={"encoding": b"binary/plain", "x": b"\x00"}, data=b"\xff\x00"), Payload()]
    assert both_ways(given) == given
