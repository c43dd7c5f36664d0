"""What tasks are sent to: a stack of our own, or a broker and workers that run elsewhere; and when all is at rest.

`Stack` is offered here because tests name it as the type of their fixture.
"""

from harness.stack.stack import Stack

__all__ = ["Stack"]
