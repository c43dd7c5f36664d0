"""A loop that only sleeps until its next time: what the machine itself adds to the lateness of whoever waits.

`python -m tests.bench.asleep RATE FILE` goes on until it is ended; FILE then has a line for each time: when it was due,
Unix time, and by how many seconds it came too late.
"""

import signal
import sys
import time
from pathlib import Path


def main(rate: float, file: Path) -> None:
    """Sleep, from one time to the next."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    due_t = time.time()
    with file.open("w") as out:
        while True:
            due_t += 1 / rate
            # As an arrival that is overdue, one that the machine slept through is made at once.
            time.sleep(max(due_t - time.time(), 0))
            out.write(f"{due_t} {time.time() - due_t}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
