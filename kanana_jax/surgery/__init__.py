"""Surgery: pure functions from one model to another: more layers, fewer layers, narrower ones, tied embeddings.

A `CutList` says which parts of a model stay; `cuts.apply` carries it out on sharded arrays, `streaming.apply_to_folder`
from folder to folder with a layer in memory. `upscale` and `prune` make cut lists; `importance` scores the parts that
`prune` ranks.
"""
