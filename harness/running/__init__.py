"""Complete runs: a scenario from start to report, beat through days in seconds, a stack that stays up."""
