"""The codes of all findings of the harness. `harness selftest` plants a defect for each one of them.

A scenario's own checks have codes of their own, which are plain text.
"""

from enum import StrEnum


class Code(StrEnum):
    """The stable name of one kind of finding. docs/accounting.md says what each means."""

    # The fates that have a finding; each has the name of its fate.
    LOST = "lost"
    DUPLICATED = "duplicated"
    WRONG = "wrong"
    UNRECORDED = "unrecorded"
    UNKNOWN = "unknown"
    PENDING = "pending"
    REFUSED = "refused"
    RECOVERED = "recovered"

    # What tasks did, or what was done to them.
    FAILED_UNEXPECTEDLY = "failed-unexpectedly"
    FAILED_ON_ONE_WORKER = "failed-on-one-worker"
    FAILED_RUN = "failed-run"
    REFUSED_BUT_RAN = "refused-but-ran"
    RAN_AGAIN = "ran-again"
    HAD_AGAIN = "had-again"
    EARLY = "early"
    LATE = "late"
    UNFAIR = "unfair"
    FAIRNESS_UNKNOWN = "fairness-unknown"
    RAN_BEFORE_COMMIT = "ran-before-commit"
    LEFT_AFTER_END = "left-after-end"
    RESTLESS = "restless"
    NOTHING_SENT = "nothing-sent"

    # What workers did as such.
    DEAF = "deaf"
    HOARDED = "hoarded"
    MEMORY_GROWS = "memory-grows"
    MEMORY_GROWTH_UNKNOWN = "memory-growth-unknown"

    # What nobody asked for.
    UNEXPECTED_EXECUTIONS = "unexpected-executions"
    UNEXPECTED_ROWS = "unexpected-rows"
    UNEXPECTED_EFFECTS = "unexpected-effects"
    UNEXPECTED_MESSAGES = "unexpected-messages"

    # What a chain, a link, a group or a chord promised.
    NEVER_SENT = "never-sent"
    GROUPS_HALF_SENT = "groups-half-sent"
    CHORDS_HALF_SENT = "chords-half-sent"
    CHORDS_HOPELESS = "chords-hopeless"
    CHORDS_WAITING = "chords-waiting"
    OUT_OF_ORDER = "out-of-order"

    # Rows and queues.
    ROW_EXPIRED = "row-expired"
    ROW_DELETED = "row-deleted"
    UNDECODED = "undecoded"
    UNFINISHED_ROWS = "unfinished-rows"
    QUEUES_DIFFER = "queues-differ"
    SETTINGS_DIFFER = "settings-differ"
    DEAD_LETTERS = "dead-letters"

    # Witnesses that are missing, damaged, or saw only a part.
    JOURNAL_INCOMPLETE = "journal-incomplete"
    JOURNAL_SILENT = "journal-silent"
    JOURNAL_GROWING = "journal-growing"
    JOURNAL_UNREADABLE = "journal-unreadable"
    JOURNAL_TORN = "journal-torn"
    RESULTS_UNREADABLE = "results-unreadable"
    RESULTS_NOT_COPIED = "results-not-copied"
    EFFECTS_UNREADABLE = "effects-unreadable"
    EFFECTS_TORN = "effects-torn"
    EFFECTS_DAMAGED = "effects-damaged"
    EFFECTS_ABSENT = "effects-absent"
    EFFECTS_UNSEEN = "effects-unseen"
    BROKER_UNREAD = "broker-unread"
    MESSAGES_ANONYMOUS = "messages-anonymous"
    CHECKS_UNREADABLE = "checks-unreadable"
    CHECK_CRASHED = "check-crashed"
    UNWITNESSED_EXECUTIONS = "unwitnessed-executions"
    UNWITNESSED_EFFECTS = "unwitnessed-effects"
    UNWITNESSED_BROKER = "unwitnessed-broker"

    # Beat.
    TICK_MISSING = "tick-missing"
    TICK_DOUBLED = "tick-doubled"
    TICK_LATE = "tick-late"
    TICK_EARLY = "tick-early"
    TICK_UNPREDICTABLE = "tick-unpredictable"
    TICKS_DELAYED = "ticks-delayed"
    TICKS_DOUBTFUL = "ticks-doubtful"
    TICKS_STALLED = "ticks-stalled"
    TICKS_SKIPPED = "ticks-skipped"
    TICKS_UNSCHEDULED = "ticks-unscheduled"
    TICKS_UNSENT = "ticks-unsent"
    TICKS_UNWATCHED = "ticks-unwatched"
    TICKS_UNWITNESSED = "ticks-unwitnessed"
    NOTHING_TICKED = "nothing-ticked"
    BEAT_DIED = "beat-died"
    ENTRY_SHADOWED = "entry-shadowed"
    ENTRIES_REMOVED = "entries-removed"

    # The load, and what was broken on purpose.
    OFFER_DIFFERS = "offer-differs"
    SENT_DIFFERS = "sent-differs"
    GENERATOR_BROKEN = "generator-broken"
    FAULT = "fault"
    FAULT_NOT_LANDED = "fault-not-landed"
    FAULT_MET_NOTHING = "fault-met-nothing"
