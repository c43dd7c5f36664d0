"""The expected outcome of `remind`, for each reminder."""

from harness import Drive, Expect


def reminder_id(number: int, seed: int) -> str:
    """Return the id of the reminder with this number."""
    return f"{seed}-{number:06d}"


def kind_of(number: int) -> str:
    """Return how the reminder with this number is sent: every fourth in the same way."""
    return ("eta", "countdown", "expired", "busy")[number % 4]


def expectation(number: int, seed: int) -> Expect:
    """Return the expected result and effect; for a reminder that expires before it is due, REVOKED and no effect."""
    if kind_of(number) == "expired":
        return Expect(state="REVOKED", effects=[])
    reminder = reminder_id(number, seed)
    return Expect(result=reminder, effects=[f"row:reminder-{reminder}"])


def reminders(drive: Drive, kind: str) -> set[str]:
    """Return the ids of the reminders of one kind."""
    return {reminder_id(number, drive.seed) for number in drive.numbers if kind_of(number) == kind}
