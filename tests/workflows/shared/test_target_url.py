"""Calls to a box go to its recorded address, and never to a forbidden one."""

import pytest

from workflows.shared.target_url import InvalidTarget, Target, target_url


def called(
    url: str | None = "http://box:8000", ip: str | None = "10.0.0.5", *, loopback: bool = False
) -> Target:
    return target_url(ip, url, allow_loopback=loopback)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://box:8000", "http://10.0.0.5:8000/"),
        ("http://box", "http://10.0.0.5:80/"),
        ("https://box/a2a/", "https://10.0.0.5:443/a2a/"),
        ("http://user:password@box:9/p?q=1#f", "http://10.0.0.5:9/p?q=1"),
        ("http://169.254.169.254:80/latest", "http://10.0.0.5:80/latest"),
        ("http://[::1]:81/", "http://10.0.0.5:81/"),
    ],
)
def test_only_scheme_port_and_path_come_from_the_box(url: str, expected: str) -> None:
    assert called(url).url == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://box",
        "file:///etc/passwd",
        "box:8000",
        "http://",
        "https://.box:8000",
        "http://box:x",
        "http://box:99999",
        "http://[::1",
    ],
)
def test_a_malformed_url_is_rejected(url: str) -> None:
    with pytest.raises(InvalidTarget) as rejected:
        called(url)
    assert rejected.value.code == "no_url"


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::ffff:127.0.0.1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_a_forbidden_address_is_rejected(ip: str) -> None:
    with pytest.raises(InvalidTarget) as rejected:
        called(ip=ip)
    assert rejected.value.code == "forbidden_address"


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_only_where_boxes_are_processes(ip: str) -> None:
    assert called(ip=ip, loopback=True).url.startswith("http://")


def test_allowing_loopback_allows_nothing_else() -> None:
    with pytest.raises(InvalidTarget):
        called(ip="169.254.169.254", loopback=True)


def test_a_box_without_a_recorded_address_cannot_be_called() -> None:
    with pytest.raises(InvalidTarget) as rejected:
        called(ip=None)
    assert rejected.value.code == "no_address"


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert called(ip="fd12::5").url == "http://[fd12::5]:8000/"


def test_the_registered_host_is_used_only_for_the_certificate() -> None:
    target = called("https://agent.example.com/a2a")
    assert (target.url, target.host) == ("https://10.0.0.5:443/a2a", "agent.example.com")


@pytest.mark.parametrize("url", [None, ""])
def test_a_box_in_poll_mode_cannot_be_called(url: str | None) -> None:
    with pytest.raises(InvalidTarget) as rejected:
        called(url)
    assert rejected.value.code == "no_url"
