"""The shard restorer, which compares all of a shard's memory with the snapshot after each rollback."""

from xoar.microreboot import restorer, snapshot
from xoar.microreboot.snapshot import PAGE
from xoar.microreboot.teller import Teller
from xoar.shards.restorer import main as shard

_COMPARED = 60  # rollbacks; a comparison takes longer than a rollback


class Compared(snapshot.Snapshot):
    def _begin_life(self):
        if 0 < self.lives <= _COMPARED:
            found = self._differences()
            print(f"compared {self._frames} frames: different {found}")
        super()._begin_life()

    def _differences(self):
        found = []
        for frame in range(self._frames):
            slot = self._slots[frame]
            if slot < -1:
                continue  # it has no copy
            wanted = bytes(PAGE) if slot < 0 else self._copies[slot : slot + PAGE]
            if self._memory[frame * PAGE : (frame + 1) * PAGE] != wanted:
                found.append(frame)
        return found


class Saying(Teller):
    def tell(self, rollback):
        times = [time // 1000 for time in rollback.times]
        steps = [times[i + 1] - times[i] for i in range(len(times) - 1)]
        if rollback.life < 200 or rollback.life % 1000 == 0:
            told = f"{rollback.target} life={rollback.life} cause={rollback.cause} reason={rollback.reason}"
            print(f"rolled back {told} pages={rollback.pages} us={steps}")
        super().tell(rollback)


def main():
    restorer.Snapshot = Compared
    shard.Teller = Saying
    shard.main()
