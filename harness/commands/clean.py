"""The command `harness clean`: it removes what killed runs left behind."""

import shutil
from contextlib import closing

import click

from harness.audit.run_folder import RUNS
from harness.commands.shared_options import AS_JSON, examples, print_json
from harness.console import Console
from harness.containers import images
from harness.containers.engine_choice import connect
from harness.containers.ownership import remove_all, sweep


@click.command(epilog=examples("harness clean", "harness clean --runs --images"))
@click.option(
    "--all", "everything", is_flag=True, help="Also what living runs have started, of anybody on this engine."
)
@click.option("--runs", "with_runs", is_flag=True, help="Also the run folders below .harness/runs.")
@click.option("--images", "with_images", is_flag=True, help="Also the images that the harness built.")
@AS_JSON
def clean(*, everything: bool, with_runs: bool, with_images: bool, as_json: bool) -> None:
    """Remove the containers, networks and volumes that killed runs left behind."""
    console = Console(soft_wrap=True, stderr=as_json)
    removed = []

    def tell(name: str) -> None:
        removed.append(name)
        console.print(f"removed {name}")

    with closing(connect()) as engine:
        for name in remove_all(engine) if everything else sweep(engine):
            tell(name)
        if with_images:
            for tag in images.ours(engine):
                engine.remove_image(tag)
                tell(f"image {tag}")
    if with_runs and RUNS.is_dir():
        shutil.rmtree(RUNS)
        tell(str(RUNS))
    if not (removed or with_runs or with_images):
        console.print("nothing was left behind.")
    if as_json:
        print_json({"removed": removed})
