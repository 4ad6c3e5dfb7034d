"""Text to token ids and back: one explicit rule for BOS, end tokens and templates, and one notion of "the same
tokenizer".

The record of a sequence is `prompt ids + response ids`; their concatenation is the truth, however the joined text
would be tokenised. `boundary_report` counts how often that differs.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from assent.errors import ArtefactError, ConfigError, ContractError, DataError
from assent.models.words import encode_each
from assent.records import Message, PromptText
from assent.types import ends_by_text

GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
PROBE_TEXTS = (
    "the kettle isn't broken",
    "  two  spaces,\ttab \n\n lines \r\n",
    "1234567 3.50 (x+y)==z; a_b",
    "Grüße 你好，水壶坏了 🫖 e\u0301",
)
PROBE_TOKENS = 2048  # of the vocabulary, evenly spread
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
"""The template of Qwen and many others, and the special tokens that frame its turns."""
BYTES = 256  # the alphabet of a byte-level tokenizer: every text has tokens, none is unknown


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens that no text is made of.

    Args:
        end: closes a response and parts documents.
        begin: put before every prompt when given; None for families that have none (GPT-2, Qwen).
        pad: None makes it equal to `end`, which changes nothing here; a token of its own lets other servers score in
            batches (transformers finds the last token of a sequence by looking for what is not pad).
        extra: further ones, such as the frames of a chat template.
    """

    end: str = "<|endoftext|>"
    begin: str | None = None
    pad: str | None = "<|pad|>"
    extra: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Each once, in the order of their ids."""
        named = [t for t in (self.end, self.begin, self.pad) if t is not None]
        return tuple(dict.fromkeys([*named, *self.extra]))


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int,
    special_tokens: SpecialTokens | None = None,
    chat_template: str | None = None,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; the same texts give the same tokenizer. Text is normalised to NFC.

    Args:
        texts: the corpus, read once.
        vocab_size: special tokens and the 256 bytes included.
        special_tokens: `SpecialTokens()` when None.
        chat_template: Jinja source that renders `messages`; None for a tokenizer of plain text.

    Returns:
        A tokenizer whose vocabulary has at most `vocab_size` tokens, fewer when the texts offer no more merges.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes and the special tokens.
    """
    special = special_tokens or SpecialTokens()
    if vocab_size < BYTES + len(special.all):
        raise ConfigError(
            "the vocabulary has no room for its alphabet",
            got=f"vocab_size={vocab_size}",
            why=f"a byte-level tokenizer needs {BYTES} bytes and {len(special.all)} special tokens",
            fix=f"set vocab_size to {BYTES + len(special.all)} or more",
        )
    # Qwen2's normaliser and splitting, for every family: in a folder of model type qwen2 transformers puts them in
    # the place of whatever tokenizer.json says, and a served model would read other tokens than it was trained on.
    rules = Qwen2Tokenizer().backend_tokenizer
    backend = Tokenizer(models.BPE())
    backend.normalizer, backend.pre_tokenizer, backend.decoder = rules.normalizer, rules.pre_tokenizer, rules.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in special.all],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    if special.begin is not None:
        begin_id = backend.token_to_id(special.begin)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{special.begin} $A", special_tokens=[(special.begin, begin_id)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=special.end,
        bos_token=special.begin,
        pad_token=special.pad or special.end,
        additional_special_tokens=list(special.extra),
        clean_up_tokenization_spaces=False,
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub model; where it declares no class of its own, by its tokenizer.json.

    Raises:
        ArtefactError: it cannot be read.
    """
    declared = Path(path) / "tokenizer_config.json"
    generic = declared.is_file() and json.loads(declared.read_text("utf-8")).get("tokenizer_class") in GENERIC
    try:
        return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ArtefactError(
            "the tokenizer cannot be read",
            got=f"{path}: {(str(error) or type(error).__name__).splitlines()[0]}",
            why="neither a folder with tokenizer files nor a model of the hub answers to this name",
            fix="check the path; for a hub name check spelling, network and access",
        ) from error


def require_served_alike(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Whoever opens this folder with `AutoTokenizer` reads the same ids.

    Some model types (qwen2 among them) make transformers ignore the rules in tokenizer.json.

    Raises:
        ContractError: a probe text gets other ids.
    """
    served = AutoTokenizer.from_pretrained(folder)
    # A token that was learned across what the other rules keep apart no longer comes out whole.
    step = max(1, len(tokenizer) // PROBE_TOKENS)
    texts = [*PROBE_TEXTS, *(tokenizer.decode([i]) for i in range(0, len(tokenizer), step))]
    for text, ours, theirs in zip(texts, tokenizer(texts)["input_ids"], served(texts)["input_ids"], strict=True):
        if list(ours) != list(theirs):
            raise ContractError(
                "transformers would read this tokenizer by other rules than it was made with",
                got=f"{text!r} is {ours[:12]} here and {theirs[:12]} as the {type(served).__name__} of its folder",
                why="any server of the folder would feed the model other tokens than it was trained on",
                fix="take another model family for this tokenizer, or train one with `train_bpe`, which fits all",
            )


# ------------------------------------------------------------------------------------------------ encoding


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of the text alone: nothing is put before or after it."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`encode_text` of each, in one call: several times faster where there are thousands."""
    return encode_each(tokenizer, texts)


def adds_begin(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether this tokenizer puts its BOS before plain text (Llama does, GPT-2 and Qwen do not)."""
    if tokenizer.bos_token_id is None:
        return False
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] != encode_text(tokenizer, "a")[:1]


def render_prompt(tokenizer: PreTrainedTokenizerBase, source: PromptText) -> str:
    """The prompt as the text that is tokenised: itself, or the dialogue under the tokenizer's template, up to where the
    assistant speaks.

    Raises:
        ContractError: a dialogue meets a tokenizer without a chat template.
    """
    return source if isinstance(source, str) else _render(tokenizer, source, open_turn=True)


def render_answered(tokenizer: PreTrainedTokenizerBase, prompt: tuple[Message, ...], text: str) -> str:
    """The dialogue with its answer, under the tokenizer's template; raises as `render_prompt`."""
    return _render(tokenizer, (*prompt, Message("assistant", text)), open_turn=False)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, source: PromptText) -> list[int]:
    """Token ids of a prompt.

    Plain text gets a BOS in front when the tokenizer itself would put one there, and never a second one. A dialogue
    gets what its template writes and nothing else. No end token is ever appended, whatever the tokenizer's own rule.

    Raises:
        ContractError: a dialogue meets a tokenizer without a template, or the template writes BOS twice.
        DataError: the prompt has no token.
    """
    ids = encode_text(tokenizer, render_prompt(tokenizer, source))
    begin = tokenizer.bos_token_id
    if isinstance(source, str) and adds_begin(tokenizer) and ids[:1] != [begin]:
        ids = [begin, *ids]
    if begin is not None and begin != tokenizer.eos_token_id and ids[:2] == [begin, begin]:
        raise ContractError(
            "the prompt starts with two BOS tokens",
            got=f"{tokenizer.decode(ids[:8])!r}",
            why="the model was never trained on that, and log-probabilities of the first tokens suffer",
            fix="remove the BOS from the text, or from the chat template",
        )
    if not ids:
        raise DataError(
            "the prompt has no token",
            got=repr(source),
            why="the first response token would have nothing to be drawn from",
            fix="drop the row, or use a tokenizer with a BOS token",
        )
    return ids


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, *, end: bool = True) -> list[int]:
    """Token ids of the response to a plain prompt, closed by the end token when `end`; never closed twice.

    Raises:
        ContractError: the tokenizer has no end token.
        DataError: the response has no token.
    """
    return _closed(encode_text(tokenizer, text), _eos(tokenizer), text, end=end)


def encode_dialogue_response(
    tokenizer: PreTrainedTokenizerBase, prompt: tuple[Message, ...], text: str, *, end: bool = True
) -> list[int]:
    """Token ids of the assistant's turn as the template writes it after `prompt`, up to its end-of-turn token.

    What the template writes after that token (often a newline) is left out: a policy has stopped by then. A template
    that closes no turn gets the end token.

    Raises:
        ContractError: no template, or the template writes the prompt differently once it is answered.
        DataError: the response has no token.
    """
    asked = render_prompt(tokenizer, prompt)
    answered = render_answered(tokenizer, prompt, text)
    if not answered.startswith(asked):
        raise ContractError(
            "the chat template rewrites the prompt when the answer is added",
            got=f"prompt ends {asked[-60:]!r}, with its answer it is {answered[-120:]!r}",
            why="the response would be trained after other tokens than it is sampled after",
            fix="use a template whose generation prompt is the beginning of the assistant's turn",
        )
    ids = encode_text(tokenizer, answered[len(asked) :])
    turn_end = end_of_turn(tokenizer)
    if turn_end in ids:
        last = len(ids) - 1 - ids[::-1].index(turn_end)
        ids = ids[:last]
    return _closed(ids, turn_end, text, end=end)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, *, end: bool = True
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response as an encoder reads a pair of texts: the cut is where the second text begins.

    Args:
        end: keep what the tokenizer writes after the second text; left out of a response that was cut off.

    Raises:
        ContractError: the tokenizer writes no pair, or no separator.
        DataError: the response has no token.
    """
    (separator,) = closing_ids(tokenizer)
    frame = tokenizer(prompt, "a")
    cut = frame.sequence_ids(0).index(1)
    ids = list(tokenizer(prompt, text)["input_ids"])
    if ids[:cut] != list(frame["input_ids"])[:cut]:
        raise ContractError(
            "the tokenizer writes the first text of a pair otherwise beside another second text",
            got=f"{tokenizer.decode(ids[:cut])[-60:]!r} against {tokenizer.decode(frame['input_ids'][:cut])[-60:]!r}",
            why="responses to one prompt would be read after different prompts",
            fix="use the tokenizer of an encoder such as BERT, RoBERTa or ModernBERT",
        )
    response = ids[cut:]
    if response[-1:] == [separator]:
        response = response[:-1]
    return ids[:cut], _closed(response, separator, text, end=end)


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int]:
    """The token that closes the second text of a pair.

    Raises:
        ContractError: the tokenizer has none.
    """
    if tokenizer.sep_token_id is None:
        raise ContractError(
            "the tokenizer has no separator",
            got=f"{type(tokenizer).__name__} with sep_token=None",
            why="an encoder reads prompt and response as a pair of texts",
            fix="use the tokenizer that the encoder was trained with",
        )
    return (int(tokenizer.sep_token_id),)


def step_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], steps: Sequence[str]) -> tuple[int, ...]:
    """Index of the last token of each step of an encoded response, the last step reaching to its end.

    By the decoded text where the tokenizer keeps text, else (lower-casing, dropped spaces) by the places in the text
    that a fast tokenizer gives for its tokens.

    Args:
        ids: of the response, from `encode_response` or `encode_dialogue_response`.
        steps: texts that join to the response.

    Raises:
        ContractError: neither way is open.
    """
    text = "".join(steps)
    if tokenizer.decode(list(ids), skip_special_tokens=True) == text:
        return ends_by_text(ids, steps, lambda some: str(tokenizer.decode(list(some), skip_special_tokens=True)))
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) if tokenizer.is_fast else None
    if plain is None or list(plain["input_ids"]) != list(ids[: len(plain["input_ids"])]):
        raise ContractError(
            "the ends of the steps cannot be found among the tokens",
            got=f"{type(tokenizer).__name__}, for {text[:80]!r}",
            why="a label or a reward would fall on another step",
            fix="use a fast tokenizer, or one whose decoded text is the text that was encoded",
        )
    starts = [start for start, _ in plain["offset_mapping"]]
    reached = accumulate(len(step) for step in steps[:-1])
    return (*(max(bisect_left(starts, place) - 1, 0) for place in reached), len(ids) - 1)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes an assistant's turn: the first special token its template writes after the answer, or eos.

    Raises:
        ContractError: no template, or no end token at all.
    """
    marker = "assent"
    dialogue = (Message("user", "a"), Message("assistant", marker))
    tail = _render(tokenizer, dialogue, open_turn=False).rpartition(marker)[2]
    special = set(tokenizer.all_special_ids) | {
        i for i, t in tokenizer.added_tokens_decoder.items() if getattr(t, "special", False)
    }
    return next((i for i in encode_text(tokenizer, tail) if i in special), _eos(tokenizer))


def text_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], str]:
    """Token ids to text without special tokens."""
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a response: eos, and the end of turn when there is a template."""
    turn_end = [end_of_turn(tokenizer)] if tokenizer.chat_template else []
    return tuple(dict.fromkeys([*turn_end, _eos(tokenizer)]))


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ContractError(
            "the tokenizer has no end token",
            got=f"{type(tokenizer).__name__} with eos_token=None",
            why="a policy could never learn to stop",
            fix="set tokenizer.eos_token and save the folder",
        )
    return int(tokenizer.eos_token_id)


def _closed(ids: list[int], end_id: int, text: str, *, end: bool) -> list[int]:
    if end and ids[-1:] != [end_id]:
        ids = [*ids, end_id]
    if not ids:
        raise DataError(
            "the response has no token",
            got=repr(text),
            why="there is nothing to train on",
            fix="drop the row, or let it be closed by the end token",
        )
    return ids


def _render(tokenizer: PreTrainedTokenizerBase, dialogue: Sequence[Message], *, open_turn: bool) -> str:
    if not tokenizer.chat_template:
        raise ContractError(
            "a dialogue needs a chat template",
            got=f"{len(dialogue)} messages for {type(tokenizer).__name__} without a template",
            why="any rendering made up here would differ from what the model was trained on",
            fix="use plain text prompts, or set tokenizer.chat_template and save the folder",
        )
    turns = [{"role": m.role, "content": m.content} for m in dialogue]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_turn))


# ------------------------------------------------------------------------------------------------ identity


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of everything that decides which ids a text gets: vocabulary, merges, normaliser, pre-tokeniser, added
    and special tokens, template. Padding and truncation are left out: they are never used here, so pad may equal eos.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules["padding"] = rules["truncation"] = None
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):  # "" and null say the same
            rules["model"][name] = rules["model"].get(name) or None
    else:
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    ends = [tokenizer.bos_token, tokenizer.eos_token]
    content = {"rules": rules, "begin and end": ends, "template": tokenizer.chat_template}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def require_same_tokenizer(
    policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, *, role: str = "critic"
) -> None:
    """A critic reads the policy's token ids, so it must give every text the same ids. Equal size is not enough.

    Args:
        role: what to call the second one, which may be a reference or a baseline just as well.

    Raises:
        ContractError: the hashes differ.
    """
    ours, theirs = tokenizer_hash(policy), tokenizer_hash(critic)
    if ours == theirs:
        return
    vocabulary, other = policy.get_vocab(), critic.get_vocab()
    moved = [t for t in {**vocabulary, **other} if other.get(t) != vocabulary.get(t)]
    seen = f"{len(moved)} tokens differ, such as {moved[0]!r}" if moved else "merges, special tokens or template differ"
    raise ContractError(
        f"the {role} does not share the policy's tokenizer",
        got=f"policy {ours[:12]} ({len(vocabulary)} tokens), {role} {theirs[:12]} ({len(other)} tokens); {seen}",
        why=f"the {role} would read the policy's token ids as other words",
        fix=f"take a {role} with this tokenizer; a reward model, which gets text, may have its own",
    )


def serving_pad(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A special token that never ends a sequence, for other servers to pad with; None when the tokenizer has none.

    Transformers scores a padded sequence at its last token that is not pad. With pad equal to eos that is the token
    before the end, a wrong score without a word; with no pad token transformers refuses batches and scores single
    sequences right.
    """
    ends = set(stop_ids(tokenizer))
    candidates = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens]
    return next((t for t in candidates if t and tokenizer.convert_tokens_to_ids(t) not in ends), None)


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """How often the joined text of prompt and response would be tokenised otherwise than its two parts.

    Args:
        differing: rows whose joint tokenisation differs.
        total: rows looked at.
        examples: index of the first few that differ.
    """

    differing: int
    total: int
    examples: tuple[int, ...]


def boundary_report(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[tuple[str, str]], *, examples: int = 5
) -> BoundaryReport:
    """Compare tokens(prompt) + tokens(response) with tokens(prompt + response), for plain text.

    A difference is no error here, since the parts are the record; it is one for who re-tokenises the text.
    """
    total, differing = 0, []
    for prompt, response in rows:
        if encode_text(tokenizer, prompt) + encode_text(tokenizer, response) != encode_text(
            tokenizer, prompt + response
        ):
            differing.append(total)
        total += 1
    return BoundaryReport(len(differing), total, tuple(differing[:examples]))
