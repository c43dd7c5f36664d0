"""Shared parts of stacks that start nothing, for tests of what is decided around them."""


class NoParts:
    """Takes the place of `SharedParts` where no stack is started."""

    def __init__(self, _say: object) -> None:
        """Start nothing."""

    def __enter__(self) -> None:
        """Start nothing."""

    def __exit__(self, *_: object) -> None:
        pass
