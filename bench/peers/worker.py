"""One peer in a process of its own, so that one runtime's threads do not disturb another's.

    python worker.py ENGINE        (`peers.py` starts it; a line of JSON in, a line of JSON out)

    {"load": {model, side, batch, threads, folder}} -> {"chosen": label, "tried": {label: images/s}} or {"skipped": why}
    {"measure": seconds}                            -> {"rate": images/s}
"""
import gc
import json
import os
import sys

import engines


def main():
    name = sys.argv[1]
    # what libraries print must not get between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = None
    for line in sys.stdin:
        work = json.loads(line)
        try:
            if "load" in work:
                run = None
                gc.collect()
                label, run, tried = engines.fastest(engines.Case(**work["load"]), name)
                gc.collect()
                answer = {"chosen": label, "tried": tried}
            else:
                answer = {"rate": run(work["measure"])}
        # whatever a runtime throws: its column says so, the others go on
        except Exception as error:  # noqa: BLE001
            text = str(error).strip() or type(error).__name__
            answer = {"skipped": text.splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
