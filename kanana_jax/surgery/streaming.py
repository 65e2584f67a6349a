"""Surgery from folder to folder, a layer in memory at a time: a model of any size on a machine of any size."""

import pathlib

from kanana_jax.interop import model_folder
from kanana_jax.interop.card import Card
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.surgery.cuts import CutList, cut_layer, cut_outer


def apply_to_folder(cuts: CutList, source: ModelFolder, destination: pathlib.Path, card: Card) -> None:
    """Writes the new model atomically; every process calls this, and layers are distributed among them.

    Raises:
      UserError: the source lacks a tensor, is truncated, or the disk is full.
    """

    weights = model_folder.open_weights(source)

    def outer():
        return cut_outer(cuts, weights.outer())

    def layer(index: int):
        return cut_layer(cuts, index, weights.layer(cuts.layers[index]))

    model_folder.write_layers(destination, cuts.after, outer, layer, card, weights)
