"""Debates under three adapters in one batch, beside what public debate code does: one question after the other.

24 questions, 3 agents (SmolLM2-135M in float32, an adapter each), their own answers and one round behind a
peer's, greedy, at most TOKENS tokens a turn, two threads for all. Every way asks by the same waves and prompts:

    ours                  `local_speakers`: 8 questions side by side, keys and values kept between the rounds
    ours, read anew       the same without dialogues to keep
    adapter_names         a question at a time: PEFT's `adapter_names` and `generate`, its 3 agents in one batch
    set_adapter           an answer at a time: PEFT's `set_adapter` and `generate`, agent by agent

The ways take turns wave by wave, in an order drawn anew; a figure is the median over the waves. Texts are compared: the
first difference of two texts with the same prompt has to lie where the two likeliest logits are closer than 1e-3.

Usage: python tests/bench/debate.py [TOKENS]     48 unless told; writes .agentlab/bench/debate.json; exit 1 where missed
"""

import importlib.metadata
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from checkpoint import checkpoint
from hf import CLOSE, adapters_of

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.debate.config import DebateConfig
from agentlab.debate.local_agents import local_speakers
from agentlab.debate.speakers import Panel, Speakers, TurnReply, TurnRequest
from agentlab.debate.wave import Setting, Wave
from agentlab.runs.atomic import write_json
from agentlab.tasks.questions import QuizQuestion, generate_questions
from agentlab.train.base import TrainingBase, load_base, quietly

OUT = Path(".agentlab/bench/debate.json")
AGENTS, QUESTIONS, WAVE, THREADS = ("ann", "bob", "cat"), 24, 8, 2
OURS, ANEW, NAMES, SWITCH = "ours", "ours, read anew", "adapter_names", "set_adapter"
BOUNDS = {NAMES: 2.0, SWITCH: 4.0, ANEW: None}


class Anew:
    """The same agents, who remember nothing between their turns."""

    def __init__(self, speakers: Speakers) -> None:
        self._speakers = speakers

    def answer(self, asked: Sequence[TurnRequest]) -> list[TurnReply]:
        return self._speakers.answer(
            [TurnRequest(request.id, request.agent, "", request.messages, (), request.max_tokens) for request in asked]
        )

    def forget(self) -> None:
        """Nothing is kept."""


class Generating(Anew):
    """PEFT and `generate`: the agents of one question at a time, or where they are switched, one answer at a time."""

    def __init__(self, model: Any, tokenizer: Any, *, switching: bool) -> None:
        self.model, self.tokenizer, self._switching = model, tokenizer, switching

    def answer(self, asked: Sequence[TurnRequest]) -> list[TurnReply]:
        size = 1 if self._switching else len(AGENTS)
        order = sorted(range(len(asked)), key=lambda n: asked[n].agent) if self._switching else range(len(asked))
        texts: dict[int, str] = {}
        for start in range(0, len(asked), size):
            some = list(order)[start : start + size]
            texts.update(zip(some, self._generated([asked[n] for n in some]), strict=True))
        return [TurnReply(texts[n]) for n in range(len(asked))]

    def _generated(self, turns: Sequence[TurnRequest]) -> list[str]:
        prompts = [self.prompt(turn) for turn in turns]
        inputs = self.tokenizer(
            prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        keys: dict[str, Any] = {}
        if self._switching:
            self.model.set_adapter(turns[0].agent)
        else:
            keys["adapter_names"] = [turn.agent for turn in turns]
        with quietly(), torch.inference_mode():
            out = self.model.generate(
                **inputs, max_new_tokens=turns[0].max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None,
                **keys,
            )  # fmt: skip
        texts = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def prompt(self, asked: TurnRequest) -> str:
        """The prompt of a turn as text."""
        messages = [{"role": message.role, "content": message.content} for message in asked.messages]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def gap(self, request: TurnRequest, one: str, other: str) -> float:
        """Between the two likeliest logits where two answers to a prompt first differ."""
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (one, other)]
        index = next((n for n, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
        prompt_ids = self.tokenizer(self.prompt(request), add_special_tokens=False)["input_ids"]
        self.model.set_adapter(request.agent)
        best = self.model(torch.tensor([[*prompt_ids, *ids[0][:index]]])).logits[0, -1].topk(2).values.tolist()
        return float(best[0] - best[1])


class Heard(Anew):
    """Keeps what was asked and said."""

    def __init__(self, speakers: Speakers) -> None:
        super().__init__(speakers)
        self.turns: dict[str, tuple[TurnRequest, str]] = {}

    def answer(self, asked: Sequence[TurnRequest]) -> list[TurnReply]:
        replies = self._speakers.answer(asked)
        self.turns.update((request.id, (request, answer.text)) for request, answer in zip(asked, replies, strict=True))
        return replies

    def forget(self) -> None:
        self._speakers.forget()


def config_of(base: Path, adapters: Sequence[Path], tokens: int) -> DebateConfig:
    """Nobody stops early, so that every question costs as much."""
    return DebateConfig.model_validate(
        {
            "questions": {"generate": "capitals", "count": QUESTIONS},
            "agents": [{"name": name, "adapter": str(adapter)} for name, adapter in zip(AGENTS, adapters, strict=True)],
            "base": str(base),
            "protocol": {"rounds": 1, "stop": False},
            "turn": {"max_tokens": tokens, "confidence": "said"},
        },
        context={"env": {}},
    )


def peft_of(base: TrainingBase, adapters: Sequence[Path]) -> Any:
    """The base with all adapters, in PEFT's own layers."""
    from peft import PeftModel

    with quietly():
        model: Any = PeftModel.from_pretrained(base.model, str(adapters[0]), adapter_name=AGENTS[0])
        for name, folder in zip(AGENTS[1:], adapters[1:], strict=True):
            model.load_adapter(str(folder), adapter_name=name)
    return model.eval()


def measured(config: DebateConfig, ways: dict[str, Heard]) -> dict[str, list[float]]:
    """Seconds of every wave in every way."""
    questions = [
        QuizQuestion(question.id, question.text, question.answer)
        for question in generate_questions("capitals", QUESTIONS, config.seed)
    ]  # asked freely: peers have no likelihoods of choices
    chance, seconds = random.Random(0), {name: list[float]() for name in ways}
    for start in range(0, QUESTIONS, WAVE):
        for name in chance.sample(list(ways), len(ways)):
            panel = Panel(dict.fromkeys(AGENTS, ways[name]))
            setting = Setting(config, panel, ["text"] * len(AGENTS))
            wave = Wave(setting, "bench", questions[start : start + WAVE])
            began = time.perf_counter()
            while wave.open:
                wave.speak()
            seconds[name].append(time.perf_counter() - began)
            panel.forget()
            print(f"{name}: {WAVE} questions in {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def compared(ours: Heard, peer: Heard, judge: Generating) -> tuple[int, int, int, float]:
    """Texts that are equal, those that differ, those whose prompts did by then, and the widest gap of `gap`."""
    equal = differ = other_prompts = 0
    widest = 0.0
    for turn, (request, text) in ours.turns.items():
        theirs, peer_text = peer.turns[turn]
        if request.messages != theirs.messages:
            other_prompts += 1
        elif text == peer_text:
            equal += 1
        else:
            differ, widest = differ + 1, max(widest, judge.gap(request, text, peer_text))
    return equal, differ, other_prompts, widest


def main(tokens: int) -> int:
    """Measure, compare, print, write; the exit status."""
    torch.set_num_threads(THREADS)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    path = checkpoint().absolute()
    rows: list[dict[str, object]] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
        adapters = adapters_of(path, Path(folder).absolute(), len(AGENTS))
        config, base = config_of(path, adapters, tokens), load_base(path, "fp32", "sdpa")
        peft = peft_of(base, adapters)
        with local_speakers(config, path, Workspace(Path(folder), Path(folder))) as local:
            judge = Generating(peft, base.tokenizer, switching=True)
            names = Generating(peft, base.tokenizer, switching=False)
            ways = {OURS: Heard(local), ANEW: Heard(Anew(local)), NAMES: Heard(names), SWITCH: Heard(judge)}
            seconds = measured(config, ways)
        for peer, bound in BOUNDS.items():
            ratio = statistics.median(b / a for a, b in zip(seconds[OURS], seconds[peer], strict=True))
            mine, theirs = (60 * WAVE / statistics.median(seconds[speaker]) for speaker in (OURS, peer))
            equal, differ, other_prompts, gap = compared(ways[OURS], ways[peer], judge)
            rows.append({
                "row": "24 questions, 3 agents, 1 round", "ours": round(mine, 2), "peer": round(theirs, 2),
                "peer_name": peer, "unit": "questions/min", "better": "higher", "ratio": round(ratio, 3),
                "texts_equal": equal, "texts_differ": differ, "prompts_differ": other_prompts, "widest_gap": gap,
            })  # fmt: skip
            print(
                f"{peer:<18}{mine:>7.1f}{theirs:>7.1f} questions/min {ratio:>5.2f}x   texts: {equal} equal, {differ} "
                f"differ (logits at most {gap:.1e} apart), {other_prompts} behind such a one",
                flush=True,
            )
            if bound is not None and ratio < bound:
                missed.append(f"{peer}: {ratio:.2f}x, at least {bound:g}")
            if gap > CLOSE:
                missed.append(f"{peer}: texts differ where the logits are {gap:.1e} apart")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "peft", "transformers")}
    write_json(OUT, {"rows": rows, "machine": machine.describe().as_dict(), "versions": versions})
    print("\n".join(["missed:", *missed]) if missed else "all bounds hold")
    return bool(missed)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PEFT on adapters of other names
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 48))
