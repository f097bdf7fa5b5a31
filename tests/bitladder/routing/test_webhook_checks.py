"""bitladder/routing/webhook_checks.py: what webhooks may reach."""

from __future__ import annotations

import pytest

from bitladder.errors import RequestError
from bitladder.routing.webhook_checks import check_url, is_allowed
from bitladder.settings.intake_section import WebhookSettings

PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1"),  # noqa: S104  (refused)
    *("169.254.169.254", "100.64.0.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "239.1.1.1"),
    *("fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1", "fec0::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_reserved_addresses_are_refused_however_they_are_written(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, ())


def test_networks_of_the_settings_are_allowed_and_no_others() -> None:
    assert is_allowed("10.1.2.3", ("10.1.0.0/16",))
    assert is_allowed("::ffff:10.1.2.3", ("10.1.0.0/16",))
    assert not is_allowed("10.2.2.3", ("10.1.0.0/16", "fd00::/8"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "at most 2048"),
        ("https://x.example/" + "a" * 2048, "at most 2048"),
        ("https://x.example/a b", "without blanks"),
        ("https://x.example/\r\nX: y", "printable"),
        ("https://bücher.example/", "ASCII"),
        ("ftp://x.example/", "https://"),
        ("https:///path", "a host"),
        ("https://user:password@x.example/", "no user"),
        ("https://x.example/#part", "fragment"),
        ("https://x.example:99999/", "must be a URL"),
        ("https://[::1", "must be a URL"),
        ("https://127.0.0.1/", "private"),
        ("https://[::ffff:10.0.0.1]/", "private"),
        ("http://x.example/", "allow_http"),
        ("http://8.8.8.8/", "allow_http"),
    ],
)
def test_a_url_that_no_webhook_may_have_is_refused_with_the_reason(url: str, problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as refusal:
        check_url(url, WebhookSettings(), param="url")
    assert refusal.value.param == "url"
    assert "password@" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "allows_http"),
    [("https://x.example/a?b=c", False), ("http://x.example:8080/", True), ("http://127.0.0.1:1/", False)],
)
def test_other_urls_are_taken(url: str, allows_http: bool) -> None:
    check_url(url, WebhookSettings(allowed_networks=("127.0.0.0/8",), allow_http=allows_http), param="url")
