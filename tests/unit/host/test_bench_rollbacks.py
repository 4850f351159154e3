"""The host that `xoar bench rollbacks` compares with, as far as it can be seen without starting it."""

from xoar.host.bench import rollbacks
from xoar.host.cache import CHECKOUT
from xoar.privilege import shardset


def test_all_who_ask_for_rollbacks_have_a_module_that_does_not() -> None:
    shards = shardset.load_all()
    asking = {name for manifest in shards.restarted for name in manifest.restart.by[:1]}
    asking |= {manifest.name for manifest in shards.restarted if manifest.restart.policy == "idle"}
    timed = {manifest.name for manifest in shards.restarted if manifest.restart.seconds}
    assert {*asking, *(("restorer",) if timed else ())} == set(rollbacks.PATIENT)
    for name in rollbacks.PATIENT:
        assert (CHECKOUT / f"src/xoar/shards/{name}/patient.py").exists()
