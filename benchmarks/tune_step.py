"""One change at a time to the training step of a size on one accelerator, beside torch, and where the time goes.

    python benchmarks/tune_step.py [--sizes 1.2b 2.1b 8b-4-layers] [--device cuda] [--steps 8] [--profile DIR]

Each line is a process of its own, in bfloat16: tokens/s, causal MFU, peak memory (the compiler's) and what the change
gave; what helps stays for the changes that follow. Then torch.compile and eager on the same card, and the five
operations that the best step spends most of its time in (the trace stays in DIR for TensorBoard or xprof).
"""

import argparse
import collections
import json
import pathlib
import re
import tempfile

from train_step import SIZES, child

CHANGES = (
    *({"rows": n} for n in (2, 4, 8)),
    *({"remat": policy} for policy in ("none", "dots", "full")),
    {"attends": "xla"},
    *({"chunk": n} for n in (512, 2048, 4096)),
    {"flags": "--xla_gpu_enable_latency_hiding_scheduler=true"},
    {"flags": "--xla_gpu_enable_triton_gemm=false"},
    {"flags": "--xla_gpu_enable_command_buffer="},
)


def heaviest(folder: str, count: int = 5) -> list[dict]:
    """Operations of the device by their share of its time, copies of one (`fusion.3`, `fusion.7`) taken together."""
    from jax.profiler import ProfileData

    (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
    seconds: collections.Counter = collections.Counter()
    planes = list(ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if "/device:" in plane.name and "CUSTOM" not in plane.name]
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not re.match(r"Stream|XLA Ops", line.name) or not devices and "XLA" not in line.name:
                continue
            for event in line.events:
                seconds[re.sub(r"[.\d]+$", "", event.name)] += event.duration_ns / 1e9
    total = sum(seconds.values())
    return [{"operation": name, "share": round(s / total, 3)} for name, s in seconds.most_common(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1.2b", "2.1b", "8b-4-layers"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--profile", type=pathlib.Path)
    options = parser.parse_args()

    def show(**line):
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}), flush=True)

    for size in options.sizes:
        ours = lambda change, size=size: child(size, "ours", options.steps, options.device, **change)  # noqa: E731
        kept: dict = {}
        best = ours(kept)
        if best is None:
            continue
        figures = ("tokens_per_s", "causal_mfu", "peak_gib")
        show(size=size, change="as it is", attention=best["attention"], **{k: best[k] for k in figures})
        for change in CHANGES:
            merged = kept | change
            if "flags" in change and "flags" in kept:
                merged["flags"] = f"{kept['flags']} {change['flags']}"
            found = ours(merged)
            if found is None:
                show(size=size, change=change, failed=True)
                continue
            gain = found["tokens_per_s"] / best["tokens_per_s"]
            show(size=size, change=change, **{k: found[k] for k in figures}, gain=gain)
            if gain > 1.005:
                best, kept = found, merged
        for who in ("compile", "eager"):
            peer = child(size, who, options.steps, options.device)
            if peer:
                ratio = best["tokens_per_s"] / peer["tokens_per_s"]
                show(size=size, peer=peer["who"], tokens_per_s=peer["tokens_per_s"], ours_to_it=ratio)
        folder = str(options.profile / size) if options.profile else tempfile.mkdtemp()
        if ours(kept | {"profile": folder}):
            show(size=size, best=kept, tokens_per_s=best["tokens_per_s"], heaviest=heaviest(folder))


if __name__ == "__main__":
    main()
