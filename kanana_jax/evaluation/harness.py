"""An adapter that lets lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness) evaluate our models."""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kanana_jax import progress
from kanana_jax.data.tokens.rendering import ChatRefused
from kanana_jax.data.tokens.tokenizer import continuation
from kanana_jax.errors import UserError
from kanana_jax.inference.generate import generate
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.scoring import Score, score
from kanana_jax.inference.session import Session

log = logging.getLogger("kanana")


class HarnessModel(TemplateLM):
    """Log-likelihoods and generation for the harness.

    Text is encoded as by the harness's `hf` model: the tokenizer's special tokens are added unless the text begins with
    BOS; special tokens spelt out in the text are encoded as such; chats use the folder's own template.

    Args:
      session: the model and its tokenizer.
      batch_size: rows per forward pass.
      max_new_tokens: for tasks that do not set it.
      seed: seed of sampled generations.
      shows_progress: whether to show progress on standard error.

    Attributes:
      cut: by task, the ids of documents whose prompt was truncated at its beginning.
    """

    def __init__(
        self,
        session: Session,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        seed: int = 0,
        shows_progress: bool = False,
    ):
        super().__init__()
        self.session, self.batch_size, self.max_new_tokens, self.seed = session, batch_size, max_new_tokens, seed
        self._shows_progress = shows_progress
        self.cut: dict[str, set[int]] = {}

    @property
    def eot_token_id(self) -> int:
        return self.session.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token that the first token of a text is conditioned on: BOS, or EOS if the vocabulary has no BOS."""
        tokenizer = self.session.tokenizer
        return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id

    @property
    def max_length(self) -> int:
        return self.session.model.architecture.max_seq_len

    @property
    def tokenizer_name(self) -> str:
        return self.session.tokenizer.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.session.tokenizer.chat.template() if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Renders a chat with the folder's template; if it refuses a system message, that is dropped, as in `hf`.

        Raises:
          UserError: there is no template, or it refuses the messages or fails.
        """
        render, kept = self.session.tokenizer.chat.render, chat_history
        try:
            (text,) = render([kept], prompts=[add_generation_prompt], continued=not add_generation_prompt)
        except ChatRefused:
            kept = [message for message in chat_history if message["role"] != "system"]
            if len(kept) == len(chat_history):
                raise
            (text,) = render([kept], prompts=[add_generation_prompt], continued=not add_generation_prompt)
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        tokenizer = self.session.tokenizer
        ids = tokenizer.encode_with_symbols(string).tolist()
        if add_special_tokens is None:
            add_special_tokens = tokenizer.bos_id is None or ids[:1] != [tokenizer.bos_id]
        return [*tokenizer.prefix, *ids, *tokenizer.suffix] if add_special_tokens else ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        encoded = []
        for request in requests:
            context, asked = self._encode_pair(*request.args)
            kept = self._fitting(context, self.max_length + 1 - len(asked))
            self._note_cut(request, len(kept) < len(context))
            encoded.append((request.args, kept, asked))
        return self._loglikelihood_tokens(encoded)

    def _fitting(self, ids: list[int], room: int) -> list[int]:
        """The last `room` ids of a prompt that is too long, keeping its BOS if it begins with one."""
        if len(ids) <= room or room < 1:
            return ids
        begin = ids[: ids[:1] == [self.prefix_token_id] and room > 1]
        return begin + ids[len(ids) - room + len(begin) :]

    def _note_cut(self, request: Instance, is_cut: bool) -> None:
        if is_cut and request.task_name is not None and request.doc_id is not None:
            self.cut.setdefault(request.task_name, set()).add(request.doc_id)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encodes both together and splits at the length of the encoded context, as `hf` does.

        If a token spans the border and nothing is left of the continuation, the continuation is encoded separately.
        """
        if not context:
            ids = self.tok_encode(continuation, add_special_tokens=False)
            return [self.prefix_token_id], ids[ids[:1] == [self.prefix_token_id] :]
        before, after = super()._encode_pair(context, continuation)
        return before or [self.prefix_token_id], after or self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Requests are `((context, continuation), context ids, continuation ids)`."""
        pairs = [(np.asarray(a, np.int32), np.asarray(b, np.int32)) for _, a, b in requests]
        for request, (_context, asked) in zip(requests, pairs, strict=True):
            texts = request[0]
            if not 0 < len(asked) <= self.max_length:
                text = repr(texts[1] if texts else "")[:60]
                raise UserError(
                    f"a task asks for the likelihood of {text}, which is {len(asked)} tokens: a model of length "
                    f"{self.max_length} scores 1 to {self.max_length}: correct the task's choices"
                )
        found = self._score(pairs)
        for (texts, _context, _continuation), answer in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, tuple(answer))
        return [tuple(answer) for answer in found]

    def _score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Score]:
        s = self.session
        with jax.set_mesh(s.mesh), _counted(self._shows_progress, "log-likelihoods", len(pairs)) as advance:
            return score(s.params, s.model, pairs, batch_size=self.batch_size, progress=advance)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts: each token counts once, the first given BOS, in windows of the model's length.

        A BOS at the beginning of a text is not scored: training texts never have a second BOS.
        """
        windows, owners, bos = [], [], self.prefix_token_id
        for index, request in enumerate(requests):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            for window in get_rolling_token_windows(
                token_list=ids[ids[:1] == [bos] :],
                prefix_token=bos,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                context, continuation = make_disjoint_window(window)
                windows.append((np.asarray(context, np.int32), np.asarray(continuation, np.int32)))
                owners.append(index)
        totals = [0.0] * len(requests)
        for owner, answer in zip(owners, self._score(windows), strict=True):
            totals[owner] += answer.log_likelihood
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        s, answers = self.session, [""] * len(requests)
        end = s.tokenizer.decode([s.tokenizer.eos_id]) or None
        groups: dict[str, list[tuple[list[int], int]]] = {}
        for index, request in enumerate(requests):
            context, options = request.args
            groups.setdefault(repr(sorted(options.items(), key=str)), []).append(
                (self.tok_encode(context) or [self.prefix_token_id], index)
            )
        with jax.set_mesh(s.mesh), _counted(self._shows_progress, "generations", len(requests)) as advance:
            for group in groups.values():
                options = normalize_gen_kwargs(requests[group[0][1]].args[1], self.max_new_tokens)
                until = [stop for stop in handle_stop_sequences(options["until"], eos=end) if stop]
                new, sampling = self._room(options["max_gen_toks"]), _sampling(options)
                longest = self.max_length - new
                for ids, index in group:
                    self._note_cut(requests[index], len(ids) > longest)
                group.sort(key=lambda item: -len(item[0]))
                for i in range(0, len(group), self.batch_size):
                    batch = group[i : i + self.batch_size]
                    prompts = [np.asarray(self._fitting(ids, longest), np.int32) for ids, _ in batch]

                    def finished(row: int, new_ids: np.ndarray, prompts=prompts, until=until) -> bool:
                        text = continuation(s.tokenizer, prompts[row], new_ids)
                        return any(end in text for end in until)

                    outputs = generate(
                        s.params,
                        s.model,
                        prompts,
                        max_new_tokens=new,
                        sampling=sampling,
                        stop=s.stop_ids,
                        tokens=s.tokenizer.vocab_size,
                        seed=self.seed + i,
                        finished=finished,
                    )
                    for (_, index), prompt, ids in zip(batch, prompts, outputs, strict=True):
                        text = postprocess_generated_text(continuation(s.tokenizer, prompt, ids), until, None)
                        answers[index] = text
                        self.cache_hook.add_partial("generate_until", requests[index].args, text)
                    advance(len(batch))
        return answers

    def _room(self, wanted: int) -> int:
        """The number of new tokens to generate, limited so that a prompt fits as well."""
        if wanted < 0:
            raise UserError(f"a task asks for {wanted} new tokens (max_gen_toks): correct the task")
        if wanted < self.max_length:
            return wanted
        room = self.max_length // 2
        log.warning("a task asks for %d new tokens of a model of length %d: %d are made", wanted, self.max_length, room)
        return room


def _sampling(options: Mapping[str, Any]) -> SamplingConfig:
    if not options["do_sample"]:
        return SamplingConfig(temperature=0.0)
    return SamplingConfig(
        temperature=float(options["temperature"]),
        top_k=int(options.get("top_k") or 0),
        top_p=float(options.get("top_p", 1.0)),
    )


@contextlib.contextmanager
def _counted(shows: bool, name: str, total: int) -> Generator[Callable[[int], None]]:
    """Yields a function that adds to a count of finished requests, which is shown with the time that is left."""
    if not shows:
        yield lambda n: None
        return
    done, begun = 0, time.monotonic()
    with progress.shown(name) as update:

        def advance(n: int) -> None:
            nonlocal done
            done += n
            left = (time.monotonic() - begun) * (total - done) / done
            update(f"{done:,} of {total:,}, {progress.duration(left)} left", done / total)

        yield advance
