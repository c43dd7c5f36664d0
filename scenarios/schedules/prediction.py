"""What is expected of `remind`, for each reminder."""

from harness import Drive, Expect


def reminder_id(number: int, seed: int) -> str:
    """The id of the reminder with this number."""
    return f"{seed}-{number:06d}"


def kind_of(number: int) -> str:
    """How the reminder with this number is sent: every fourth in the same way."""
    return ("eta", "countdown", "expired", "busy")[number % 4]


def expectation(number: int, seed: int) -> Expect:
    """The task's result and effect; none of either, if the reminder expires before it is due."""
    if kind_of(number) == "expired":
        return Expect(state="REVOKED", effects=[])
    reminder = reminder_id(number, seed)
    return Expect(result=reminder, effects=[f"row:reminder-{reminder}"])


def reminders(drive: Drive, kind: str) -> set[str]:
    """The reminders of one kind."""
    return {reminder_id(number, drive.seed) for number in drive.numbers if kind_of(number) == kind}
