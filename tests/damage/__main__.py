"""python -m tests.damage [--seed 0] [--count 1800] [--only CASE] [--stage NAME]"""

import argparse
import sys
import time

from tests.damage.cases import cases, laboratory, table

TIME_TO_SPEAK = 15


def main() -> int:
    """0 when no case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1800)
    parser.add_argument("--only", help="a case, as the list of failures names it")
    parser.add_argument("--stage", help="cases of stages whose names begin so")
    given = parser.parse_args()
    with laboratory() as lab:
        found = cases(lab.world, given.seed, 10**6 if given.only or given.stage else given.count)
        found = [case for case in found if given.only in (None, case.name)]
        found = [case for case in found if case.stage.name.startswith(given.stage or "")]
        found = found[: given.count]
        verdicts, spoken = [], time.monotonic()
        for number, case in enumerate(found):
            verdicts.append(lab.judge(case))
            if verdicts[-1].verdict != "ok":
                print(f"{verdicts[-1]}", file=sys.stderr, flush=True)
            if time.monotonic() - spoken > TIME_TO_SPEAK:
                spoken = time.monotonic()
                print(f"{number} of {len(found)}", file=sys.stderr, flush=True)
        print("\n".join(table(verdicts)))
    return int(any(one.verdict != "ok" for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())
