"""BlkBack's agent: volumes on an LVM thin pool, for a Linux driver domain that owns one disk controller.

| module | what it is |
|---|---|
| `names`, `layout`, `requests` | names of volumes, the pool's layout, requests, checked |
| `parties` | whom BlkBack serves: the host, and tenants with their quotas and images |
| `claims`, `vbds` | who has which volume: devices of guests |
| `desks` | what each party asks and is told |
| `disks`, `direct`, `dm`, `lvm`, `volumes` | the controller's disks, and the volumes on one of them |
| `transfer`, `qcow2` | images between the exchange disk and volumes |
| `jobs`, `agent` | the thread that does a request, and the loop |

docs/devices.md is the contract with the other domains. CPython 3.11 on Linux only.
"""
