"""NetBack's agent: makes the network of its domain what XenStore says (docs/devices.md).

| module | what it is |
|---|---|
| `errors`, `declared` | what the Toolstack declares: networks and vifs, checked |
| `layout` | from what is declared to interfaces, bridges and their ports |
| `ruleset` | the layout's nftables rules: anti-spoofing, NAT |
| `names` | DHCP and DNS: dnsmasq's configuration |
| `lease` | the uplink's address, from udhcpc's output |
| `reconcile` | makes the kernel's interfaces match a layout |
| `kernel` | the kernel's interfaces, over pyroute2 |
| `programs` | nft, dnsmasq and udhcpc |
| `arp` | addresses that guests are seen to use |
| `parties` | whom NetBack serves: the host, and tenants with the networks that they may use |
| `records`, `reports` | XenStore: what is declared, what is said |
| `agent` | the loop |

All decisions are in the modules before `kernel`, which do no I/O. For CPython on Linux. Imports are kept few:
starting Python is what takes longest in an emulated domain.
"""
