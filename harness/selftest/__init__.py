"""The selftest: plants every defect that the audit claims to see, one at a time, and checks that each is found."""
