"""The caller's address: reports of trusted proxies count, forged entries do not."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from register_api.http.client_address import client_address

PROXIES = (ip_network("10.0.0.0/24"), ip_network("fd00::/64"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        # a caller that is no trusted proxy
        ("192.0.2.7", ["10.1.1.1"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        # the caller forged the first one
        ("10.0.0.1", ["198.51.100.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.9", "192.0.2.7"], "192.0.2.7"),
        # through two trusted proxies
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7:51234"], "192.0.2.7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        # a proxy that reports no address, or an unreadable one
        ("10.0.0.1", [], None),
        ("10.0.0.1", [""], None),
        ("10.0.0.1", ["192.0.2.7, unknown"], None),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], None),
        (None, ["192.0.2.7"], None),
        ("unix:", ["192.0.2.7"], None),
    ],
)
def test_the_last_address_that_no_trusted_proxy_vouches_for(
    peer: str | None, forwarded: list[str], address: str | None
) -> None:
    found = client_address(peer, forwarded, PROXIES)
    assert found == (None if address is None else ip_address(address))


@given(st.lists(st.text(max_size=30), max_size=4))
def test_whatever_a_caller_writes_it_is_who_the_proxy_saw(written: list[str]) -> None:
    assert client_address("10.0.0.1", [*written, "192.0.2.7"], PROXIES) == ip_address("192.0.2.7")


@given(st.lists(st.text(max_size=60), max_size=4), st.none() | st.text(max_size=40))
def test_nothing_that_can_be_written_is_an_error(written: list[str], peer: str | None) -> None:
    client_address(peer, written, PROXIES)
    client_address("10.0.0.1", written, PROXIES)
