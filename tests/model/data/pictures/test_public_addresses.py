"""Public and non-public addresses, including the boundaries of every special block."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis.strategies import ip_addresses

from model.data.pictures.public_addresses import GLOBAL_UNICAST_IPV6, SPECIAL_IPV4, SPECIAL_IPV6, is_public

PUBLIC = ("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
          "172.32.0.0", "192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15",
          "2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450:4001:80e::200e", "2001:200::1")  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_recognizes_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("block", [*SPECIAL_IPV4, *SPECIAL_IPV6], ids=str)
def test_first_and_last_address_of_a_special_block_are_not_public(block: object) -> None:
    network = ip_network(str(block))
    assert not is_public(network[0])
    assert not is_public(network[-1])


@given(ip_addresses(v=6))
def test_no_ipv6_address_outside_global_unicast_is_public(address: object) -> None:
    assert not is_public(found) if (found := ip_address(str(address))) not in GLOBAL_UNICAST_IPV6 else True


@given(ip_addresses(v=4))
def test_no_ipv6_address_that_embeds_an_ipv4_address_is_public(address: object) -> None:
    for prefix in (
        "::",
        "::ffff:",
        "::ffff:0:",
        "64:ff9b::",
        "64:ff9b:1::",
        "2001:db9::5efe:",
        "2600::200:5efe:",
    ):
        assert not is_public(ip_address(f"{prefix}{address}"))
    figures = int(ip_address(str(address)))
    six_to_four, teredo = (0x2002 << 112) | figures << 80, (0x20010000 << 96) | (figures ^ 0xFFFFFFFF)
    assert not is_public(ip_address(six_to_four))
    assert not is_public(ip_address(teredo))


@given(ip_addresses())
def test_no_address_that_python_calls_local_is_public(address: object) -> None:
    found = ip_address(str(address))
    local = (
        found.is_private
        or found.is_loopback
        or found.is_link_local
        or found.is_multicast
        or found.is_reserved
    )
    assert not (local and is_public(found))


def test_address_with_a_zone_is_not_public() -> None:
    assert is_public(ip_address("2606:4700:4700::1111"))
    assert not is_public(ip_address("2606:4700:4700::1111%eth0"))
