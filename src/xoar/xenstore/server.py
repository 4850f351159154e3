"""State, gate and Logic in one domain, or one process: Logic is called straight away."""

from xoar.xenstore import logic
from xoar.xenstore.gate import Gate, Host, LogicPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.xenstore.domains import Domains
    from xoar.xenstore.request import Outcome, Request


class Direct(LogicPort):
    """Logic behind a call. It keeps nothing, so there is nothing to roll back."""

    def hand(self, gate: Gate, request: "Request") -> None:
        def operate(kind: str, *arguments: "Any") -> "Outcome":
            return gate.operate(request.number, kind, arguments)

        answer = logic.answer(request.asked, operate)
        gate.answer(request.number, answer.refusal, answer.payload)

    def roll_back(self, gate: Gate) -> None:
        gate.logic_started()


class Server(Gate):
    """All of a XenStore."""

    def __init__(self, domains: "Domains", limits: "dict[str, int]", host: "Host | None" = None) -> None:
        super().__init__(domains, limits, Direct(), host)
