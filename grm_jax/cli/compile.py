"""`grm compile`: what a step of a model takes on a TPU slice, said by the TPU compiler on a machine without one."""

import argparse
from typing import Any

_DESCRIPTION = """\
Compiles a step ahead of time for a TPU slice, which need not be there (libtpu must: pip install "grm-jax[tpu]"), and
prints for each program what a chip needs: memory, model FLOPs, exchanges, and the time of a roofline. No weights are read.
It fails when the program does not fit."""
_EPILOG = """\
examples:
  grm compile --model 27b --step judge --topology v5e:4x4 --gin.DecodeMesh.tensor=16
  grm compile --model 27b --step judge --topology v5e:2x4 --weights int8 --prompts 1 --gin.DecodeMesh.tensor=8
  grm compile --model 27b --step sft --topology v6e:8x8 --gin_file configs/meshes/devices_64.gin \\
    --gin.Sft.steps=1 --gin.Sft.rows=64 --gin.Sft.length=4096 --gin.Sft.remat=True --gin.Sft.dtype="'bfloat16'"

Every chip is a device: the product of a mesh's axes is the number of chips. A roofline is what takes longest if all else
went on beside it: model FLOPs at the chip's peak, bytes that each token reads at the bandwidth of its memory, exchanges at
the speed of all its links."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments

    parser = subparsers.add_parser(
        "compile", help="what a step takes on a TPU slice, without one", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", default="27b", metavar="27b|9b|2b|tiny|DIR", help="whose shape (default: 27b)")
    parser.add_argument("--step", required=True, choices=["sft", "grpo", "meta_rm", "judge"], help="what is compiled")
    parser.add_argument("--topology", required=True, metavar="KIND:SHAPE", help="such as v5e:4x4 or v5p:4x4x4")
    parser.add_argument("--prompt", type=int, default=2048, metavar="N", help="tokens a prompt (default: 2048)")
    parser.add_argument("--completion", type=int, default=1024, metavar="N", help="tokens a critique (default: 1024)")
    parser.add_argument("--prompts", type=int, default=4, metavar="N", help="prompts judged together (default: 4)")
    parser.add_argument("--k", type=int, default=32, help="critiques a prompt (default: 32)")
    parser.add_argument("--weights", choices=["int8"], help="projections in 8 bits, of a judge (default: bfloat16)")
    parser.add_argument("--cache", choices=["int8"], help="keys and values in 8 bits, of a judge (default: bfloat16)")
    quick = "least effort: in a tenth of the time, and perhaps a little more memory"
    parser.add_argument("--quick", action="store_true", help=f"compile with {quick}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_gin_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compiles and prints, also what came before a program that does not fit; returns 0."""
    import dataclasses
    import json

    from rich.console import Console

    from grm_jax.checkpoints.folder import leaves
    from grm_jax.cli import configure
    from grm_jax.cli.sampling_arguments import check_counts
    from grm_jax.errors import UserError
    from grm_jax.judge.loading import model_folder
    from grm_jax.model.config import PRESETS
    from grm_jax.parallel.chips import topology
    from grm_jax.parallel.compiling import check_fits, compile_program
    from grm_jax.parallel.layout import make_layouts
    from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
    from grm_jax.spct.programs import Shape, programs
    from grm_jax.train.grpo import Grpo
    from grm_jax.train.meta_rm import MetaRm
    from grm_jax.train.sft import Sft

    check_counts(args, "prompt", "completion", "prompts", "k")
    for name, kind in (("weights", args.weights), ("cache", args.cache)):
        if kind and args.step != "judge":
            raise UserError(f"--{name} {kind}: is of --step judge, which alone can have it; leave it out")
    configure.load(args.gin_file, args.gin_bindings, meshes=False)
    stage = {"sft": Sft, "grpo": Grpo, "meta_rm": MetaRm}.get(args.step)
    settings = configure.make(stage) if stage else None
    config = PRESETS[args.model] if args.model in PRESETS else leaves(model_folder(args.model))[0]
    chip, devices = topology(args.topology)
    layouts = make_layouts(configure.make(TrainMesh), configure.make(DecodeMesh), devices)
    int8, int8_cache = args.weights == "int8", args.cache == "int8"
    shape = Shape(args.prompt, args.completion, args.prompts, args.k, int8=int8, int8_cache=int8_cache)
    found = []
    try:
        for program in programs(config, settings, shape, layouts):
            each = compile_program(
                program.name, program.lower(), chip, flops=program.flops / len(devices), beside=program.beside,
                read=program.read, quick=args.quick,
            )  # fmt: skip
            found.append(each)
            if not args.json:
                Console().print(_table(each, args.topology, chip.memory))
            check_fits(each, chip)
    finally:
        if args.json:
            totals = ({"total": each.total, "seconds": each.seconds, "memory": int(chip.memory)} for each in found)
            print(json.dumps([dataclasses.asdict(each) | more for each, more in zip(found, totals, strict=True)]))
    return 0


def _table(found: Any, topology: str, memory: float) -> Any:
    from rich.table import Table

    from grm_jax.parallel.chips import GIB

    table = Table("", "a chip", title=f"{found.name} on {topology}", title_justify="left", title_style="bold")
    sizes = {
        "arguments": found.arguments, "of these, overwritten by outputs": found.aliased, "other outputs": found.outputs,
        "temporaries": found.temporaries, **found.beside,
    }  # fmt: skip
    for name, size in sizes.items():
        table.add_row(name, f"{size / GIB:.2f} GiB")
    table.add_row("together", f"{found.total / GIB:.2f} of {memory / GIB:.2f} GiB", style="bold", end_section=True)
    for kind, size in found.exchanges.items():
        table.add_row(kind, f"{size / GIB:.3f} GiB")
    table.add_row("model FLOPs", f"{found.flops:.3g}", end_section=True)
    for name, seconds in (
        ("arithmetic", found.arithmetic), ("reading", found.reading), ("exchanges", found.sending),
    ):  # fmt: skip
        if seconds:
            table.add_row(name, f"{1000 * seconds:.2f} ms")
    table.add_row("roofline", f"{1000 * found.seconds:.2f} ms", style="bold")
    table.caption = f"compiled in {found.compile_seconds:.0f} s"
    return table
