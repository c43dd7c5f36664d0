"""Time limits for mailing a receipt, in seconds."""

import os

SOFT_LIMIT_S = float(os.environ.get("EMAILS_SOFT_TIME_LIMIT_S", "10"))
"""A conversation with the mail server that lasts longer ends in FAILURE, SoftTimeLimitExceeded."""

HARD_LIMIT_S = float(os.environ.get("EMAILS_HARD_TIME_LIMIT_S", "15"))
"""The run is killed after this time, and no conversation continues beyond it."""

LEASE_S = HARD_LIMIT_S + 5
"""The duration of a claim. After it, its run has ended: by itself, by the hard limit, or by a SIGKILL."""

LOCK_TIMEOUT_S = 5
"""The longest wait of the outbox for a locked database; less than the soft limit, which has no effect meanwhile."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt."""
