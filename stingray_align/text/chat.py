"""Chat models: one on this machine (`LocalChat`), or any endpoint with OpenAI's protocol
(`OpenAIChat`).

Both answer one conversation, ``complete(messages)``, or many, ``complete_all(conversations)``: in
padded batches on this machine, several at a time over the network. A conversation is a list of
messages, each with ``role`` (system, user, assistant) and ``content``.
"""

import concurrent.futures
import hashlib
import json
import os

from ..errors import MissingModelError
from ._models import choose_device, find_model, load, quiet, sha256, text_length_limit, weight_files

__all__ = ["Chat", "ChatError", "LocalChat", "OpenAIChat"]

_LETTERS_PER_TOKEN = 3.5  # English prose with numbers and bibcodes, for models elsewhere


class ChatError(OSError):
    """A chat model gave no answer, or refused to.

    Attributes
    ----------
    raw : str or None
        What it said instead; `None` if nothing came.
    hopeless : bool
        Whether the next conversation would end the same way (a wrong key, nobody there).
    """

    def __init__(self, message, *, raw=None, hopeless=False):
        super().__init__(message)
        self.raw, self.hopeless = raw, hopeless


class Chat:
    """What chat models have in common; a subclass for another kind gives `complete`.

    Attributes
    ----------
    name : str
        The model, with its revision after an ``@`` where it is known.
    decoding : dict
        Settings that shape an answer; they are part of every provenance.
    max_input_tokens : int
        Longest conversation it should be given.
    """

    name = "chat model"
    max_input_tokens = 8000

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}>"

    @property
    def decoding(self):
        return {}

    def complete(self, messages):
        """Answer a conversation.

        Parameters
        ----------
        messages : list of dict
            Each with ``role`` (system, user, assistant) and ``content``.

        Returns
        -------
        (str, str)
            The answer, and the model that gave it (see `name`).

        Raises
        ------
        ChatError
            If there is no answer.
        """
        raise NotImplementedError

    def complete_all(self, conversations):
        """Answer many conversations.

        Parameters
        ----------
        conversations : list
            Each as in `complete`.

        Yields
        ------
        (int, tuple or ChatError)
            The number of a conversation and what `complete` returns or raises, in the order in
            which the answers come.
        """
        for i, messages in enumerate(conversations):
            yield i, self._outcome(messages)

    def _outcome(self, messages):
        try:
            return self.complete(messages)
        except ChatError as error:
            return error

    def count_tokens(self, messages):
        """Length of a conversation in tokens; an estimate unless the model is on this machine.

        Parameters
        ----------
        messages : list of dict
            As in `complete`.

        Returns
        -------
        int
        """
        return round(sum(len(message["content"]) for message in messages) / _LETTERS_PER_TOKEN
                     + 4 * len(messages))


class LocalChat(Chat):
    """A chat model that runs on this machine.

    Parameters
    ----------
    model : str or Path
        A folder with a chat model saved by transformers, or a name on the Hugging Face hub.
    device : str, torch.device or None, optional
        Where to compute; `None` takes a GPU if there is one.
    max_new_tokens : int, optional
        Longest answer.
    max_input_tokens : int, optional
        Longest conversation, if the model can read that much.
    temperature : float, optional
        Zero takes the likeliest token at every step; above, tokens are drawn.
    seed : int, optional
        Of the draws. What is drawn for a conversation does not depend on its neighbours.
    batch_size : int, optional
        Conversations answered at once.

    Raises
    ------
    MissingModelError
        If the model is not on this machine and cannot be fetched.
    ValueError
        If it has no chat template.
    """

    def __init__(self, model, *, device=None, max_new_tokens=1024, max_input_tokens=8000,
                 temperature=0.0, seed=0, batch_size=8):
        from transformers import AutoModelForCausalLM

        folder = find_model(model)
        self.max_new_tokens, self.batch_size = int(max_new_tokens), int(batch_size)
        self.temperature, self.seed = float(temperature), int(seed)
        self._device = choose_device(device)
        self._tokenizer, self._model = load(AutoModelForCausalLM, folder, self._device)
        if not self._tokenizer.chat_template:
            raise ValueError(f"{model} has no chat template: it is no chat model")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.name = f"{folder.name if os.path.isdir(model) else model}" \
                    f"@sha256:{sha256(weight_files(folder))[:16]}"
        context = text_length_limit(self._tokenizer, self._model.config)
        if context <= self.max_new_tokens:
            raise ValueError(f"{self.name} reads and writes {context} tokens in all: "
                             "give a smaller max_new_tokens")
        self.max_input_tokens = min(int(max_input_tokens), context - self.max_new_tokens)

    @property
    def decoding(self):
        """Temperature, seed of the draws (`None` without), and longest answer."""
        return {"temperature": self.temperature, "seed": self.seed if self.temperature else None,
                "max_new_tokens": self.max_new_tokens}

    def complete(self, messages):
        (_, outcome), = self.complete_all([messages])
        if isinstance(outcome, ChatError):
            raise outcome
        return outcome

    def complete_all(self, conversations):
        tokens = [self._tokens(messages) for messages in conversations]
        fitting = []
        for i, row in enumerate(tokens):
            if len(row) <= self.max_input_tokens:
                fitting.append(i)
            else:
                yield i, ChatError(f"the conversation has {len(row)} tokens, {self.name} is given "
                                   f"{self.max_input_tokens} at most: shorten it")
        # The longest first: what does not fit into the memory is known at once.
        fitting.sort(key=lambda i: -len(tokens[i]))
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start:start + self.batch_size]
            answers = self._generate([tokens[i] for i in batch])
            yield from zip(batch, ((answer, self.name) for answer in answers))

    def count_tokens(self, messages):
        return len(self._tokens(messages))

    def _tokens(self, messages):
        return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True,
                                                   return_dict=True)["input_ids"]

    def _generate(self, rows):
        """Answers to conversations of one batch, padded on the left."""
        import torch
        from transformers import GenerationConfig

        width, pad = max(map(len, rows)), self._tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row):] = torch.as_tensor(row)
            mask[i, width - len(row):] = 1
        own = self._model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        config = GenerationConfig(do_sample=False, max_new_tokens=self.max_new_tokens,
                                  eos_token_id=ends, pad_token_id=pad)
        noise = [_Noise(rows, self.temperature, self.seed)] if self.temperature else []
        with quiet(), torch.no_grad():
            output = self._model.generate(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device),
                generation_config=config, logits_processor=noise)
        return self._tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


class _Noise:
    """Gumbel noise on the logits: the largest is then a draw at that temperature.

    Each conversation has a generator of its own, so that its draws are the same in every batch.
    """

    def __init__(self, rows, temperature, seed):
        import torch

        self.temperature = temperature
        self.generators = []
        for row in rows:
            digest = hashlib.sha256(json.dumps([seed, list(map(int, row))]).encode()).digest()
            self.generators.append(torch.Generator().manual_seed(
                int.from_bytes(digest[:8], "big", signed=True)))

    def __call__(self, input_ids, scores):
        import torch

        exponential = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=generator)
                                   for generator in self.generators])
        return scores.float() / self.temperature - exponential.log().to(scores.device)


class OpenAIChat(Chat):
    """Any endpoint that speaks OpenAI's chat protocol (vLLM, Ollama, hosted).

    Parameters
    ----------
    base_url : str or None, optional
        Address of the endpoint; `None` takes ``OPENAI_BASE_URL``, else OpenAI's own.
    model : str
        Name of the model there.
    api_key : str or None, optional
        `None` takes ``OPENAI_API_KEY``.  An endpoint given by address may need none.
    temperature : float or None, optional
        Zero for the most reproducible answers; `None` leaves it to endpoints that refuse it.
    seed : int or None, optional
        Passed on, for endpoints that heed it.
    max_input_tokens : int, optional
        Longest conversation, counted by its letters.
    timeout : float, optional
        Seconds to wait for an answer.
    max_retries : int, optional
        Further attempts, with growing pauses, when the endpoint is busy (429), fails (5xx) or
        cannot be reached.
    concurrency : int, optional
        Conversations under way at the same time.

    Raises
    ------
    MissingModelError
        If the ``openai`` package is not installed.
    ValueError
        If there is neither a key nor an address.
    """

    def __init__(self, base_url=None, *, model, api_key=None, temperature=0.0, seed=None,
                 max_input_tokens=8000, timeout=120.0, max_retries=5, concurrency=8):
        try:
            import openai  # noqa: F401
        except ImportError:
            raise MissingModelError("writing through an OpenAI-compatible endpoint needs the "
                                    "openai package: pip install stingray-align[remote]") from None
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self.model = self.name = model
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or None
        if self._api_key is None:
            if self.base_url is None:
                raise ValueError("set OPENAI_API_KEY or give api_key; or give the base_url of an "
                                 "endpoint that needs no key")
            self._api_key = "none"  # the client insists on one
        self.temperature, self.seed = temperature, seed
        self.max_input_tokens = int(max_input_tokens)
        self.timeout, self.max_retries, self.concurrency = timeout, max_retries, int(concurrency)

    def __repr__(self):  # never shows the key
        return f"<OpenAIChat {self.model} at {self.base_url or 'api.openai.com'}>"

    @property
    def decoding(self):
        """Temperature and seed that the endpoint is asked for."""
        return {"temperature": self.temperature, "seed": self.seed}

    def complete(self, messages):
        with self._client() as client:
            return self._ask(client, messages)

    def complete_all(self, conversations):
        client = self._client()
        pool = concurrent.futures.ThreadPoolExecutor(self.concurrency)
        try:
            asked = {pool.submit(self._ask, client, messages): i
                     for i, messages in enumerate(conversations)}
            for done in concurrent.futures.as_completed(asked):
                try:
                    outcome = done.result()
                except ChatError as error:
                    outcome = error
                yield asked[done], outcome
        finally:  # also when interrupted: what is under way is broken off
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _client(self):
        import openai

        return openai.OpenAI(base_url=self.base_url, api_key=self._api_key, timeout=self.timeout,
                             max_retries=self.max_retries)

    def _ask(self, client, messages):
        import openai

        options = {"temperature": self.temperature, "seed": self.seed}
        try:
            response = client.chat.completions.create(
                model=self.model, messages=messages,
                **{name: value for name, value in options.items() if value is not None})
        except openai.APIStatusError as error:
            raise ChatError(f"{self!r} answered with status {error.status_code}: {error.message}",
                            hopeless=error.status_code in (401, 403, 404)) from None
        except openai.APITimeoutError:
            raise ChatError(f"{self!r} gave no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            unreachable = type(cause).__name__ == "ConnectError"
            raise ChatError(f"{self!r} {'cannot be reached' if unreachable else 'broke off'}: "
                            f"{cause or error}", hopeless=unreachable) from None
        except (openai.OpenAIError, ValueError) as error:  # no JSON, or no UTF-8
            raise ChatError(f"{self!r} sent what is no answer of a chat model: {error}") from None
        return self._read(response)

    def _read(self, response):
        try:
            choice = response.choices[0] if response.choices else None
            message = choice.message if choice else None
            answer = (message.content if message else None) or ""
            refusal = getattr(message, "refusal", None)
            model, revision = response.model or self.model, response.system_fingerprint
        except (AttributeError, LookupError, TypeError):
            raise ChatError(f"{self!r} sent what is no answer of a chat model: "
                            f"{str(response)[:200]!r}", raw=str(response)) from None
        if refusal:
            raise ChatError(f"{model} refused: {refusal}", raw=refusal)
        if choice and choice.finish_reason == "content_filter":
            raise ChatError(f"{self!r} held the answer back (content filter)", raw=answer)
        return answer, f"{model}@{revision}" if revision else model
