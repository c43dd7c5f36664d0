"""The systems that tasks are sent to: an own stack, or a broker and workers that run elsewhere; and how they settle.

`Stack` is exported here because tests name it as the type of their fixture.
"""

from harness.stack.stack import Stack

__all__ = ["Stack"]
