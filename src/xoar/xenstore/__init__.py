"""XenStore: docs/misc/xenstore.txt of Xen 4.17, with no I/O inside (docs/xenstore.md of this project).

| module | what it is |
|---|---|
| `errors`, `wire`, `paths` | the protocol's errors, messages and path rules |
| `quotas`, `domains`, `nodes`, `overlay`, `contents`, `request` | state: nodes, access, quotas |
| `watches`, `connection`, `gate` | gate: who asks for something, and what they have open |
| `logic` | logic: what they ask for, and the answers; keeps nothing |
| `logiclink`, `statelink` | the two ends of the link to a Logic in a domain of its own |
| `server` | state, gate and Logic in one domain |
| `ringlink` | one client's shared page, served by a connection |
| `client` | the other end: requests and watch events over two byte rings |
| `linux` | the same over a file of Linux; the only module that does not run on nano |

Logic and state import nothing of each other but the protocol, path rules and quotas. Nothing is imported
here, so that a client's image holds no server.
"""
