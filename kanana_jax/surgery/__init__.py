"""Surgery: pure functions from a model to another: more layers, fewer layers, narrower ones, tied embeddings.

A `Plan` says what of a model stays; `plan.apply` carries it out on sharded arrays, `streaming.apply_to_folder` from
folder to folder with a layer in memory. `upscale` and `prune` make plans; `importance` scores what `prune` ranks.
"""
