"""Public internet addresses: the only addresses that `model.data.pictures.image_fetcher` may connect to.

`ipaddress.is_global` does not fit this purpose. It describes routing, differs between versions of Python, and is true
for NAT64, 6to4, multicast and internal services of cloud providers. Here, an IPv6 address must belong to the global
unicast block and to none of the special blocks within it. It must not embed an IPv4 address, because a gateway on the
path could translate it to an internal address.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IpAddress = IPv4Address | IPv6Address

SPECIAL_IPV4 = tuple(
    IPv4Network(block)
    for block in (
        # IANA IPv4 special-purpose address registry (RFC 6890)
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is the metadata service of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is the metadata service of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved and broadcast
        # not in the registry, but not public either
        "168.63.129.16/32",  # platform services of Azure, reachable from its virtual machines
    )
)

GLOBAL_UNICAST_IPV6 = IPv6Network("2000::/3")
"""Block of global unicast addresses (RFC 4291, section 2.4).

All other addresses are loopback, mapped, translated, local, multicast or unassigned.
"""

SPECIAL_IPV6 = tuple(
    IPv6Network(block)
    for block in (
        # IANA IPv6 special-purpose address registry
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

ISATAP_QUARTERS = (0x00005EFE, 0x02005EFE)
"""Values of the third 32-bit group that mark an ISATAP address (RFC 5214, section 6.1).

The last 32 bits of an ISATAP address are an IPv4 address.
"""


def is_public(address: IpAddress) -> bool:
    """Return whether `address` may belong to a public server."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in SPECIAL_IPV4)
    return (
        address in GLOBAL_UNICAST_IPV6
        and address.scope_id is None
        and not any(address in block for block in SPECIAL_IPV6)
        and (int(address) >> 32) & 0xFFFFFFFF not in ISATAP_QUARTERS
    )
