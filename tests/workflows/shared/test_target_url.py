"""Where traffic to a box goes: to the recorded address, and nowhere that no box may be."""

import pytest

from workflows.shared.target_url import InvalidTarget, Target, target_url


def aim(
    url: str | None = "http://box:8000", ip: str | None = "10.0.0.5", *, loopback: bool = False
) -> Target:
    return target_url(ip, url, allow_loopback=loopback)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://box:8000", "http://10.0.0.5:8000/"),
        ("http://box", "http://10.0.0.5:80/"),
        ("https://box/a2a/", "https://10.0.0.5:443/a2a/"),
        ("http://user:password@box:9/p?q=1#f", "http://10.0.0.5:9/p?q=1"),
        ("http://169.254.169.254:80/latest", "http://10.0.0.5:80/latest"),
        ("http://[::1]:81/", "http://10.0.0.5:81/"),
    ],
)
def test_only_port_and_path_are_the_boxes_own_words(url: str, asked: str) -> None:
    assert aim(url).url == asked


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
def test_a_url_that_cannot_be_asked_is_none(url: str) -> None:
    with pytest.raises(InvalidTarget) as refused:
        aim(url)
    assert refused.value.code == "no_url"


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
def test_an_address_that_no_box_may_have_is_not_asked(ip: str) -> None:
    with pytest.raises(InvalidTarget) as refused:
        aim(ip=ip)
    assert refused.value.code == "forbidden_address"


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_asked_only_where_boxes_are_processes(ip: str) -> None:
    assert aim(ip=ip, loopback=True).url.startswith("http://")


def test_allowing_loopback_allows_nothing_else() -> None:
    with pytest.raises(InvalidTarget):
        aim(ip="169.254.169.254", loopback=True)


def test_a_box_without_a_recorded_address_is_unreachable() -> None:
    with pytest.raises(InvalidTarget) as refused:
        aim(ip=None)
    assert refused.value.code == "no_address"


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert aim(ip="fd12::5").url == "http://[fd12::5]:8000/"


def test_the_name_that_the_box_gives_itself_is_for_its_certificate_only() -> None:
    target = aim("https://agent.example.com/a2a")
    assert (target.url, target.host) == ("https://10.0.0.5:443/a2a", "agent.example.com")


@pytest.mark.parametrize("url", [None, ""])
def test_a_box_in_poll_mode_cannot_be_called(url: str | None) -> None:
    with pytest.raises(InvalidTarget) as refused:
        aim(url)
    assert refused.value.code == "no_url"
