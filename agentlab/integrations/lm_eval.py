"""Tasks of lm-evaluation-harness for a base model and its adapters, all of them from one load of the base.

lm-eval builds the requests and computes the metrics. Here the requests are answered: for the base and every adapter at
once, which share batches, whoever is asked first. Needs the extra `eval`.
"""

import contextlib
import json
import random
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy
import torch  # noqa: TID253 - this module is only imported by code that evaluates

from agentlab.errors import (
    AgentlabError,
    DataError,
    LLMConnectionError,
    MissingExtraError,
    MissingFileError,
    UnknownNameError,
    UsageError,
)
from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.likelihood import Choice, Likelihood, likelihoods
from agentlab.hf.prefill import Prompt, batches
from agentlab.integrations.evaluation import BASE, Evaluated
from agentlab.lora import stacked
from agentlab.lora.rowwise import Rowwise
from agentlab.persona.ping import KEY
from agentlab.tasks.questions import QuizQuestion, check_questions
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.scoring import apply_adapters
from agentlab.workers.templates import render_chat

try:
    with quietly():
        import datasets
        from lm_eval.api.registry import get_model
        from lm_eval.evaluator import evaluate
        from lm_eval.models.api_models import JsonChatStr
        from lm_eval.models.huggingface import HFLM
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import handle_non_serializable
except ImportError as error:
    raise MissingExtraError(
        f"lm-evaluation-harness cannot be loaded: {str(error)[:200]}.",
        hint="Install the extra: pip install -e '.[eval]'",
    ) from error

_AT_ONCE = 4096  # tokens of contexts between two words on how far it is
_OWN = "For your own tasks, add --include-path DIR, a folder of YAML files."
_ROWS_AT_ONCE = 24  # of answers in the making
_GENERATED = "generate_until"
_REQUESTS = 8  # to a server at a time
_RETRIES = 3
_SEEDS = (0, 1234)  # of random; of numpy, torch and few-shot examples

_Key = tuple[tuple[int, ...], int, tuple[str, ...]]  # tokens, how many may follow, and stop sequences


class Tasks:
    """Tasks that can be put to any model. Their data sets are loaded, from this machine or the network, once."""

    def __init__(self, names: Sequence[str], folders: Sequence[Path]) -> None:
        """`names` of tasks, groups or tags; `folders` hold YAML files of more tasks, which come first.

        Raises:
            UnknownNameError: there is no such task.
            MissingFileError: its data set is not on this machine, and cannot be fetched.
            DataError: its YAML file or its data set cannot be used.
        """
        for folder in folders:
            if not folder.is_dir():
                raise MissingFileError(
                    f"There is no folder {folder}.", hint="--include-path takes a folder of YAML tasks."
                )
        with quietly():
            self._manager = TaskManager(include_path=[str(folder) for folder in folders])
        for name in names:
            if name not in self._manager.task_index:
                raise UnknownNameError("task", name, self._manager.all_tasks, hint=_OWN)
        with quietly(), _loading(", ".join(names)):
            self._loaded: Any = self._manager.load(list(names))

    @property
    def kinds(self) -> dict[str, str]:
        """What each task asks a model for: `generate_until`, else likelihoods."""
        return {name: str(task.get_config("output_type")) for name, task in self._loaded["tasks"].items()}

    def questions(self, limit: int | None) -> tuple[QuizQuestion, ...]:
        """The first `limit` items of each task, as questions of a debate.

        An item of multiple choice becomes a question with its choices, one that is answered in words a question with
        the first of its right answers. What frames a question in lm-eval, `Question:` and `Answer:`, is left out.

        Raises:
            UsageError: a task asks for something else.
            DataError: an item cannot be a question.
        """
        lines: list[dict[str, Any]] = []
        for name, task in self._loaded["tasks"].items():
            choice = self.kinds[name] == "multiple_choice"
            if not choice and self.kinds[name] != _GENERATED:
                raise UsageError(f"{name} has no answers.", hint="Use multiple-choice or short-answer tasks.")
            with _loading(name):
                for position, doc in enumerate(islice(task.eval_docs, limit)):
                    choices, target = list(task.doc_to_choice(doc)) if choice else None, task.doc_to_target(doc)
                    first = target[0] if isinstance(target, list) else target
                    text = str(task.doc_to_text(doc)).strip().removesuffix("Answer:").removeprefix("Question:")
                    answer = choices[first] if choices and isinstance(first, int) else first
                    id_ = f"{name}-{position:04d}"
                    lines.append({"id": id_, "question": text, "choices": choices, "answer": answer})
        return check_questions(enumerate(lines, 1), ", ".join(self._loaded["tasks"]))

    def put_to(self, model: Any, limit: int | None, server: str | None = None) -> Evaluated:
        """What a model of lm-eval, maybe a server's of that name, scores on the first `limit` items of each task.

        Raises:
            AgentlabError: of the model.
            LLMConnectionError: its server does not answer.
            UsageError: lm-eval refuses a task, for example because it runs code that a model writes.
        """
        random.seed(_SEEDS[0])  # as lm-eval's own command does
        numpy.random.seed(_SEEDS[1])
        torch.manual_seed(_SEEDS[1])
        for task in self._loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=_SEEDS[1])
        chat = server is not None
        with quietly(), _asking(server):
            results = evaluate(
                model, self._loaded, limit=limit, bootstrap_iters=0, apply_chat_template=chat, fewshot_as_multiturn=chat
            )
        tree = json.loads(json.dumps(results, default=handle_non_serializable), parse_constant=lambda _: None)
        return Evaluated.of({**tree, "lm_eval_version": version("lm_eval")})


class Rows(HFLM):  # type: ignore[misc] # lm-eval is not there where types are checked
    """The base and its adapters as one model of lm-eval; `who` answers. What is asked of one is computed for all."""

    def __init__(self, base: TrainingBase, adapters: Rowwise, count: int, done: Callable[[int], object]) -> None:
        """`adapters` are so many of the base's; `done` hears how many more texts, or tokens, are known."""
        super().__init__(pretrained=base.model, tokenizer=base.tokenizer, backend="causal", batch_size=64)
        self._rows, self._done = adapters, done
        self._everybody = (stacked.BASE, *range(count))
        self.who = stacked.BASE
        self._stderr = sys.stderr  # of the progress; what lm-eval says is dropped
        self._known: dict[Hashable, dict[int, Any]] = {}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """lm-eval renders in this process: only what has been rendered within its bounds elsewhere."""
        render_chat(self.tokenizer, chat_history, prompt=add_generation_prompt)
        return str(super().apply_chat_template(chat_history, add_generation_prompt))

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        keys = [(self._window(before, after), tuple(after)) for _, before, after in requests]
        missing: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for before, after in keys:
            if (before, after) not in self._known:
                missing.setdefault(before, {})[after] = None
        texts = sorted(missing, key=len)
        for part in batches(range(len(texts)), [len(text) for text in texts], _AT_ONCE):
            some = [(adapter, texts[index]) for adapter, index in product(self._everybody, part)]
            choices = [Choice(Prompt(adapter, before), list(missing[before])) for adapter, before in some]
            for choice, text_likelihoods in zip(choices, likelihoods(self.model, self._rows, choices), strict=True):
                for text, likelihood in zip(choice.texts, text_likelihoods, strict=True):
                    self._known.setdefault((choice.before.tokens, text), {})[choice.before.adapter] = likelihood
            self._tell(sum(len(choice.texts) for choice in choices))
        of: list[Likelihood] = [self._known[key][self.who] for key in keys]
        return [(likelihood.total, likelihood.greedy) for likelihood in of]

    def _window(self, before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
        """The context, cut at its beginning to what the model takes."""
        room = self.max_length + 1 - len(after)
        if room < 1:
            raise DataError(f"A task needs {len(after)} tokens, but the model takes at most {self.max_length}.")
        return tuple(before[-room:])

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The likeliest text of who answers, up to one of the task's stop sequences.

        Raises:
            UsageError: a task draws its answers.
        """
        del disable_tqdm
        keys = [self._prompt(*request.args) for request in requests]
        missing_keys = [key for key in dict.fromkeys(keys) if key not in self._known]
        rows = {AnswerRow(adapter, key[0], key[1]): key for adapter, key in product(self._everybody, missing_keys)}
        for row, text in self._texts(rows).items():
            cut = postprocess_generated_text(text, stop=list(rows[row][2]), think_end_token=None)
            self._known.setdefault(rows[row], {})[row.adapter] = cut
        return [self._known[key][self.who] for key in keys]

    def _texts(self, rows: Mapping[AnswerRow, _Key]) -> dict[AnswerRow, str]:
        """The likeliest text of each row, up to what ends it or a little behind."""
        tokens_by_row: dict[AnswerRow, list[int]] = {row: [] for row in rows}
        batch = AnswerBatch(self.model, self._rows, [self.eot_token_id])
        for tokens in batch.run(rows, _ROWS_AT_ONCE):
            for row_token in tokens:
                tokens_by_row[row_token.row].append(row_token.token)
                if not row_token.finish:
                    text = self.tok_decode(tokens_by_row[row_token.row])
                    if any(end in text for end in rows[row_token.row][2]):
                        batch.evict([row_token.row])
            self._tell(len(tokens))
        return {row: str(self.tok_decode(tokens)) for row, tokens in tokens_by_row.items()}

    def _prompt(self, context: str, gen_kwargs: Mapping[str, Any]) -> _Key:
        """What lm-eval would give to transformers."""
        settings = normalize_gen_kwargs(dict(gen_kwargs), self.max_gen_toks)
        if settings["do_sample"]:
            raise UsageError(
                "A task samples its answers; in this process only greedy decoding is supported.",
                hint="Use a server: --base-url URL --model NAME.",
            )
        answer_end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = tuple(stop for stop in handle_stop_sequences(settings["until"], eos=answer_end) if stop)
        room = self.max_length - settings["max_gen_toks"]
        if room < 1:
            raise DataError(
                f"A task needs a prompt and {settings['max_gen_toks']} answer tokens, but the model takes at most "
                f"{self.max_length}."
            )
        return tuple(self.tok_encode(context)[-room:]), settings["max_gen_toks"], stops

    def _tell(self, count: int) -> None:
        with contextlib.redirect_stderr(self._stderr):
            self._done(count)


def in_process(
    tasks: Tasks, base: Path, adapters: Mapping[str, Path], limit: int | None, done: Callable[[int], object]
) -> dict[str, Evaluated]:
    """What the base (BASE) and adapters by name score, from one load of the base, in float32.

    Raises:
        AgentlabError: see `load_base`, `apply_adapters` and `Tasks.put_to`.
    """
    loaded, evaluations = load_base(base, "fp32", "sdpa"), {}
    with apply_adapters(loaded, list(adapters.values()), any_base=True) as rowwise:  # `local` has compared their bases
        with quietly():
            rows = Rows(loaded, rowwise, len(adapters), done)
        for rows.who, name in enumerate((BASE, *adapters), stacked.BASE):
            evaluations[name] = tasks.put_to(rows, limit)
    return evaluations


def scorer(
    names: Sequence[str], folders: Sequence[Path], base_url: str, limit: int | None, env: Mapping[str, str]
) -> Callable[[str], Evaluated]:
    """What tells what a model of a chat server scores, by the name that it is served under.

    Raises:
        AgentlabError: see `Tasks`.
        UsageError: a task needs likelihoods of given texts, which chat endpoints do not tell.
        LLMConnectionError: later, the server does not answer.
    """
    tasks = Tasks(names, folders)
    unsupported_tasks = [name for name, kind in tasks.kinds.items() if kind != _GENERATED]
    if unsupported_tasks:
        raise UsageError(
            f"A chat endpoint does not return the text likelihoods that {', '.join(unsupported_tasks[:5])} needs.",
            hint="Leave out --base-url to run such tasks in process, with --adapter and --base.",
        )
    return lambda model: tasks.put_to(_server_client(base_url, model, env), limit, model)


def _server_client(base_url: str, model: str, env: Mapping[str, str]) -> Any:
    """lm-eval's own client of a chat endpoint, for one model of it.

    It is asked one word at once: a server that is not there, or does not know the model, is not tried for long.
    """
    settings = {
        "model": model,
        "base_url": f"{base_url.rstrip('/')}/chat/completions",
        "header": {"Authorization": f"Bearer {env.get(KEY, 'none')}"},  # else it sends OPENAI_API_KEY to any server
    }
    with quietly(), _asking(model):
        client = get_model("local-chat-completions").create_from_arg_obj(
            {**settings, "num_concurrent": _REQUESTS, "max_retries": _RETRIES, "tokenizer_backend": None}
        )
        word = JsonChatStr(json.dumps([{"role": "user", "content": "Hello"}]))
        client.model_call([word], gen_kwargs={"max_gen_toks": 1})
    return client


@contextlib.contextmanager
def _loading(names: str) -> Iterator[None]:
    """What goes wrong when data sets are loaded, in our words."""
    try:
        yield
    except AgentlabError:
        raise
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise MissingFileError(
            f"A data set for {names} is not on this machine and cannot be fetched: {_short(error)}",
            hint="Connect to the network once, or use local data (dataset_path: json, dataset_kwargs.data_files).",
        ) from error
    except Exception as error:
        raise DataError(
            f"A task in {names} cannot be used: {type(error).__name__}: {_short(error)}",
            hint="Check its YAML file, and the columns and splits of its data set.",
        ) from error


@contextlib.contextmanager
def _asking(server: str | None) -> Iterator[None]:
    """What goes wrong when lm-eval puts tasks to a model, in our words; `server` names what is asked if it is one."""
    try:
        yield
    except AgentlabError:
        raise
    except Exception as error:
        remote = isinstance(error, OSError) or type(error).__module__.startswith("aiohttp")
        if server is not None and remote:  # errors of requests are the system's
            raise LLMConnectionError(
                f"The server did not answer for the model {server}: {_short(error)}",
                hint="Check that it is running and serves the model, and that --base-url is right and includes /v1.",
            ) from error
        if isinstance(error, ValueError):
            raise UsageError(f"lm-eval reports: {_short(error)}") from error
        raise


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
