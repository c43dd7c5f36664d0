"""A shop reminds its customers at the time they asked for, and reports at fixed hours."""
