"""Gradients of the mean next-token loss, of a model of `transformers` and of ours, tensor by tensor."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import torch

from kanana_jax.interop.families import family_of
from kanana_jax.interop.weights import at


def compare(architecture, params, theirs, tokens, logits_of, lengths=()):
    """Fails where the loss or a gradient differs by more than 1e-4; returns our logits.

    Args:
      theirs: the class's model, with the tensors' names of the architecture's family.
      tokens: int `[B, T]`.
      logits_of: params → `[B, T, V]` of these tokens.
      lengths: of the documents that each row holds; theirs reads each alone.
    """
    theirs.zero_grad()
    ends = list(itertools.accumulate(lengths or (tokens.shape[1],)))
    starts = [0, *ends[:-1]]
    inside = np.setdiff1d(np.arange(1, tokens.shape[1]), starts)  # targets
    documents = [torch.tensor(tokens[:, start:end]) for start, end in zip(starts, ends)]
    alone = [theirs(part, labels=part).loss * (part.shape[1] - 1) for part in documents]  # means over targets
    loss = sum(alone) / len(inside)
    loss.backward()

    def ours(params):
        logits = logits_of(params)
        read = logits[:, inside - 1]
        picked = jnp.take_along_axis(read, jnp.asarray(tokens)[:, inside, None], -1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(read, -1) - picked), logits

    (value, logits), grads = jax.jit(jax.value_and_grad(ours, has_aux=True))(params)
    np.testing.assert_allclose(value, loss.item(), atol=1e-4)
    named = dict(theirs.named_parameters())
    for group in family_of(architecture).groups(architecture):
        for tensor in group:
            grad = at(grads, tensor.path)
            grad = np.asarray(grad if tensor.layer is None else grad[tensor.layer])
            want = named[tensor.name].grad.numpy()
            np.testing.assert_allclose(tensor.to_theirs(grad), want, atol=1e-4, err_msg=tensor.name)
    return logits
