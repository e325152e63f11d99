"""Try many inputs, collect all kinds of faults, and print how many of each: ``make fuzz N=10000``.

python tests/fuzz/long.py N [AREA...]: at least N inputs in rounds over the areas, in each of which every area has about
the same time, so that what is quick is tried more often. Exit status 1 where there was a fault.
"""

from __future__ import annotations

import collections
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from fuzz_areas import AREAS, PATIENT, Area  # noqa: E402
from fuzz_judge import FAULTS, Fault  # noqa: E402
from fuzz_world import World, quiet_home, tiny_checkpoint  # noqa: E402
from hypothesis import Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

FIRST, LEAST, MOST, SECONDS = 8, 4, 40, 1.5  # inputs of an area in a round, and about how long they compute


def main(count: int, names: Sequence[str]) -> int:
    """Print a line for each kind of fault as it is found, the inputs of each round, and the sums at the end."""
    chance = random.randrange(2**32)
    print(f"seed {chance}", flush=True)
    faults: dict[tuple[str, str, str], list[Fault]] = collections.defaultdict(list)
    tried: collections.Counter[str] = collections.Counter()
    each = dict.fromkeys(names or AREAS, FIRST)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "world"
        home.mkdir()
        with quiet_home(home):
            world = World(home, *tiny_checkpoint(Path(place) / "tiny"))
            while world.judge.inputs < count:
                chance += 1
                for name, examples in each.items():
                    before, began = world.judge.inputs, time.process_time()
                    _try(name, AREAS[name], examples, world, Path(place), chance, faults)
                    tried[name] += world.judge.inputs - before
                    seconds = (time.process_time() - began) / examples
                    each[name] = round(min(max(SECONDS / seconds, LEAST), MOST))
                print(f"{world.judge.inputs} inputs, {sum(map(len, faults.values()))} faults", flush=True)
    by_kind = collections.Counter(kind for (_, kind, _), found in faults.items() for _ in found)
    print(", ".join(f"{name}: {number}" for name, number in tried.items()))
    print(f"{world.judge.inputs} inputs, {world.judge.accepted} accepted")
    print(", ".join(f"{kind}: {by_kind[kind]}" for kind in FAULTS))
    return 1 if faults else 0


def _try(name: str, area: Area, count: int, world: World, place: Path, chance: int, faults: dict) -> None:
    @seed(chance)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=PATIENT)
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        try:
            area(data, world, place)
        except Fault as fault:
            kind = (name, fault.kind, fault.where)
            if kind not in faults:
                print(f"FAULT {name}: {fault!s:.1200}", flush=True)
            faults[kind].append(fault)

    tried()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
