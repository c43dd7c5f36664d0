"""A fault: the result tables are locked, and are unlocked again."""

from harness.audit.in_hand import lines_of
from harness.faults.fault import Fault, counted
from harness.faults.write_lock import ResultsLock, lock
from harness.records.event import Kind


class LockResults(Fault):
    """Locked result tables: they can be read, and no worker can store a result.

    A SQLite file is locked by `BEGIN IMMEDIATE`, PostgreSQL's table by `LOCK TABLE`, from this process: if it is
    killed, the lock is gone.

    Proof: when the fault began and when it ended, another writer was refused, and nothing was written in between.

    The tasks that it met are those that ended meanwhile, and whose results had to wait or could not be stored.
    """

    kind = "lock-results"
    breaks_node = False

    def __init__(self) -> None:
        """Describe the fault."""
        super().__init__()
        self._lock: ResultsLock | None = None
        self._was_held: bool | None = None
        """Whether the lock was held until healing began; None before."""

    def inject(self) -> None:
        """Lock the tables. Raises ResultsError if they are locked already, or are not there."""
        self.begun_t = self._now()
        self._lock = lock(self._stack.results)
        self._was_held = None
        if self._lock.is_held():
            self.injected_t = self._now()

    def heal(self) -> None:
        """Unlock the tables, if that was not done before. Raises ResultsError."""
        if self._lock is None or self.healed_t is not None:
            return
        try:
            if self._was_held is None:
                self._was_held = self._lock.is_held()
        finally:
            self._lock.release()
            self.healed_t = self._now()

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := self._unfinished()) is not None:
            return reason
        return None if self._was_held else "the results were written, or could be, while they were said to be locked."

    def follow(self) -> None:
        """Read which tasks stored their results while the tables were locked, or tried to."""
        begin_t, end_t = self.injected_t, self.healed_t
        if begin_t is None or end_t is None:
            return
        self.tasks = tuple(
            dict.fromkeys(
                said["task"]
                for said in lines_of(self._stack.folder.journal, Kind.FINISHED)
                # The line is written after the result is stored, and says how long that took. One that was not stored
                # says nothing.
                if said["t"] >= begin_t and said["t"] - said.get("store_s", 0.0) <= end_t and not said.get("ignored")
            )
        )

    def words(self) -> str:
        """Return what was done, and the tasks that this affected."""
        if not self.tasks:
            return "the results were locked; no task ended meanwhile (overlapped=0)"
        return f"the results were locked; {counted(len(self.tasks), 'task', 'tasks')} ended and had to wait for them"
