"""Small tokenizers with the chat templates that models have, and conversations."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from agentlab.train.conversations import Conversation, ConversationTurn

CORPUS = [
    "the quick brown fox jumps over the lazy dog\n\n  and the dog sleeps. \n\n\n",
    "What is it?\nIt is a house: a red one, with a door and two windows; the assistant says so.",
    "user: assistant: system: A question and its answer. Yes, no. 0123456789",
]

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# The system message goes into the first question, there is no prompt for an answer, and the end token is `</s>`.
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}[INST] {{ ns.system + m.content }} [/INST]{% set ns.system = '' %}"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# The prompt ends in a space, which tokenizers join with the word that follows.
COLON = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
# Thinking is kept in the last answer and dropped from all before it.
THINKING = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}",
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>"]


def bytewise(template: str | None, *, eos: str = "<|im_end|>") -> Any:
    """Byte-level BPE, as of GPT-2 and Llama 3: whitespace joins the word behind it, offsets are trimmed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    return _dressed(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos), template)


def spaced(template: str) -> Any:
    """BPE over words that begin with a mark for the space before them, which every text gets, as of Llama 2."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        [line.replace("\n", "") for line in CORPUS],
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False),
    )
    return _dressed(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"),
        template,
    )


class Characters(PreTrainedTokenizer):
    """A tokenizer in Python, without offsets: one token a character."""

    @property
    def vocab_size(self) -> int:
        return 128

    def get_vocab(self) -> dict[str, int]:
        return {chr(code): code for code in range(128)} | self.added_tokens_encoder

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        return "".join(self.convert_ids_to_tokens(list(token_ids)))

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)


def characters(template: str) -> Any:
    tokenizer = Characters(eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"])
    return _dressed(tokenizer, template)


def _dressed(tokenizer: Any, template: str | None) -> Any:
    tokenizer.chat_template = template
    return tokenizer


def chat(*contents: str, system: str | None = None, line: int = 1) -> Conversation:
    """A conversation of contents, the user's first."""
    turns = [ConversationTurn(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    return Conversation(line, tuple([ConversationTurn("system", system)] if system is not None else []) + tuple(turns))


def learnt(tokenizer: Any, ids: Sequence[int], labels: Sequence[int]) -> list[str]:
    """The text of every unbroken run of tokens that are learnt."""
    runs: list[list[int]] = []
    for before, token, label in zip((-100, *labels), ids, labels, strict=False):
        if label != -100:
            assert label == token
            if before == -100:
                runs.append([])
            runs[-1].append(token)
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]
