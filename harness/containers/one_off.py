"""A container that does one thing and ends, such as an installation."""

from harness.containers.engine import HOST_NETWORK, Engine, NodeSpec, Status
from harness.errors import noted_on
from harness.wait import wait_until

_KILLED = 137


def run_to_end(engine: Engine, spec: NodeSpec, *, timeout_s: float, on_host: bool = False) -> tuple[int, str]:
    """Run a container to its end, remove it, and return its exit code and its output.

    Args:
        engine: runs it.
        spec: what to run.
        timeout_s: the longest time that it may take.
        on_host: run it on the engine's own network.

    Raises:
        EngineError: the engine refused.
        WaitTimeout: it did not end in time.
    """
    container = engine.run(spec, network=HOST_NETWORK if on_host else None)
    failed: BaseException | None = None
    try:
        wait_until(
            lambda: container.state().status in {Status.EXITED, Status.GONE},
            what=f"{spec.name} ({spec.image}) ends",
            timeout_s=timeout_s,
            interval_s=0.2,
            last_seen=lambda: container.logs(5),
        )
        state, said = container.state(), container.logs()
    except BaseException as error:
        failed = error
        raise
    finally:
        with noted_on(failed):
            container.remove()
    code = _KILLED if state.exit_code is None else state.exit_code
    return code, f"{said}\nERROR: it ran out of memory; see HARNESS_MEMORY_MB.\n" if state.out_of_memory else said
