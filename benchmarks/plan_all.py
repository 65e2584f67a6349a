"""Plans of every full-size config on a v5p and a v6e slice, as the table of docs/results/plans.md.

python benchmarks/plan_all.py [--cache DIR] [--only essence_8b] [--slice v5p-128]

Minutes of compiling each on two cores; what was compiled before is found again.
"""

import argparse
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
ROOT = pathlib.Path(__file__).parents[1]
# Config, stage, slice, and the options that a slice needs beside the config as it is. A v6e has a third of a v5p's
# memory: there the guess of `--search` fits the flagship models without a tensor axis, at one row per chip; the last
# two options are those that `kanana plan` advises where the config as it is does not fit.
PLANS = (
    ("essence_8b", "stage1", "v5p-128", ()),
    ("essence_8b", "stage1", "v6e-256", ()),
    ("essence_9_8b", "stage1", "v5p-128", ()),
    ("essence_9_8b", "stage1", "v6e-256", ()),
    ("flag_26_8b", "stage1", "v5p-512", ()),
    ("flag_26_8b", "stage1", "v6e-256", ("mesh.tensor=1",)),
    ("flag_32_5b", "stage1", "v5p-512", ()),
    ("flag_32_5b", "stage1", "v6e-256", ("mesh.tensor=1", "runtime.remat=full")),
    ("chain", "nano_4_5b", "v5p-64", ()),
    ("chain", "nano_4_5b", "v6e-64", ("nano_4_5b.train.accumulate=4",)),
    *(
        ("chain", stage, slice_, ())
        for stage in ("nano_2_1b", "nano_1_3b", "nano_635m", "nano_385m", "nano_192m")
        for slice_ in ("v5p-64", "v6e-64")
    ),
    *(("post_training", "online", slice_, ()) for slice_ in ("v5p-64", "v6e-64")),
    ("slm", "stage1", "v5e-16", ("runtime.remat=full",)),
    ("slm", "stage1", "v6e-8", ()),
    *(("slm", "student", slice_, ()) for slice_ in ("v5e-16", "v6e-8")),
)


def main() -> None:
    from kanana_jax import config
    from kanana_jax.parallel.chips import GIB
    from kanana_jax.plan import cache as plan_cache
    from kanana_jax.plan import plan
    from kanana_jax.plan.request import request
    from kanana_jax.recipe.config import override, parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, default=plan_cache.default_folder())
    parser.add_argument("--only", default="", help="a config's or stage's name")
    parser.add_argument("--slice", default="", help="a slice's name")
    options = parser.parse_args()
    print("| config | slice | mesh | GiB a chip | bound by | MFU at most: overlap / none | days | CPU / wall |")
    print("|---|---|---|---:|---|---:|---:|---:|")
    for name, stage, topology, changes in PLANS:
        if options.only not in ("", name, stage) or options.slice not in ("", topology):
            continue
        made = config.read_config_file(f"{ROOT}/configs/kanana/{name}.py")
        override(made, changes)
        recipe, stages = parse(made)
        found = plan.plan(request(recipe, stages, stage, topology, cache=options.cache), advise=False)
        memory, mesh = found["hbm_bytes_per_device"], found["mesh"]
        shape = " × ".join(f"{axis} {size}" for axis, size in mesh.items() if size > 1)
        took = found["compile_s"]
        cells = [" ".join((name, stage, *(f"`--config.{change}`" for change in changes))), topology, shape]
        cells += [f"{memory['peak'] / GIB:.1f} / {memory['limit'] / GIB:.0f}"]
        if found["fits"]:
            mfu = f"{100 * found['mfu_bound']:.1f} / {100 * found['mfu_no_overlap']:.1f}%"
            cells += [found["bound_by"], mfu, f"{found['days']['bound']:.1f} / {found['days']['no_overlap']:.1f}"]
        else:
            cells += ["does not fit", "", ""]
        print("| " + " | ".join([*cells, f"{took['cpu']:.0f} / {took['wall']:.0f} s"]) + " |", flush=True)


if __name__ == "__main__":
    main()
