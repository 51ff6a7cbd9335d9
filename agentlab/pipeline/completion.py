"""A step's end from its candidates. What has to be asked for that, by a judge or for a synthesis, is asked here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from agentlab.errors import AgentlabError
from agentlab.llm.structured import Rejected
from agentlab.pipeline.aggregation import judge, pick, synthesis, vote
from agentlab.pipeline.aggregation.fit import fits
from agentlab.pipeline.aggregation.types import Candidate, Chosen, Messages, Tie
from agentlab.pipeline.answer import Answer
from agentlab.pipeline.call import FAILURES, Call
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import Step
from agentlab.pipeline.settings import drawing_of, engine_of
from agentlab.pipeline.stage_config import BestOf, Concat, Custom, FirstValid, Judge, Synthesis, Vote
from agentlab.pipeline.state import Ended, Item
from agentlab.pipeline.templates import compiled
from agentlab.pipeline.work import derived, messages

_VERDICT_TOKENS = 48
_CHARACTERS = 3  # of a token, when nobody has counted

Ask = Callable[[Call], Answer]
Found = Mapping[str, Answer | AgentlabError]


def completed(step: Step, item: Item, found: Found, config: PipelineConfig, ask: Ask) -> Ended:
    """How the step ends. Candidates that failed are left out; `on_error` decides when none is left.

    Raises:
        AgentlabError: with `on_error: fail`, what went wrong.
    """
    failed = {call: answer for call, answer in found.items() if isinstance(answer, AgentlabError)}
    answers = [answer for answer in found.values() if isinstance(answer, Answer)]
    try:
        if not answers:
            raise next(iter(failed.values()))
        chosen = _chosen(step, item, answers, config, ask)
    except FAILURES as error:
        return _fallen(step, item, error)
    why = dict(chosen.why) | ({"failed": {call: error.message for call, error in failed.items()}} if failed else {})
    return _ended(step, item, chosen.text, why)


def _ended(step: Step, item: Item, answer: str, why: Mapping[str, Any]) -> Ended:
    output = answer
    if step.stage.output_mode == "input_plus_answer":
        output = f"{item.given(step)}\n\n{answer}"
    return Ended("done", answer, output, _json(answer, step), why)


def _fallen(step: Step, item: Item, error: AgentlabError) -> Ended:
    why = {"error": {"kind": error.kind, "message": error.message}}
    match step.stage.on_error:
        case "skip":
            return Ended("skipped", why=why)
        case "default":
            return replace(_ended(step, item, step.stage.default, why), status="default")
    raise error


def _json(text: str, step: Step) -> Any:
    """The value of an answer where the stage has a schema."""
    if step.stage.response_schema is None:
        return None
    value = fits(text, step.stage.response_schema)
    return None if isinstance(value, Rejected) else value


def _chosen(step: Step, item: Item, answers: Sequence[Answer], config: PipelineConfig, ask: Ask) -> Chosen:
    """One answer of several; a vote without a winner is judged."""
    models = [answer.model for answer in answers]
    candidates = tuple(
        Candidate(a.model, models[: place + 1].count(a.model), a.text, _json(a.text, step), a.logprob)
        for place, a in enumerate(answers)
    )
    match step.stage.aggregation:
        case None:
            return Chosen(answers[0].text, {})
        case Concat() as how:
            return pick.concat(candidates, how)
        case BestOf():
            return pick.best_of(candidates)
        case FirstValid() as how:
            return pick.first_valid(candidates, how, step.stage.response_schema)
        case Custom() as how:
            return pick.custom(candidates, compiled(how.template), item.values(step, item.given(step)))
        case Synthesis() as how:
            return _synthesised(step, item, candidates, answers, how, config, ask)
        case Judge() as how:
            return _judged(step, item, candidates, how, config, ask)
        case Vote() as how:
            counted = vote.vote(candidates, how)
            if isinstance(counted, Chosen):
                return counted
            return _untied(step, item, candidates, counted, how, config, ask)


def _untied(
    step: Step, item: Item, candidates: Sequence[Candidate], tie: Tie, how: Vote, config: PipelineConfig, ask: Ask
) -> Chosen:
    assert how.judge is not None
    among = tuple(candidates[place] for place in tie.places)
    return vote.settled(tie, _judged(step, item, among, Judge(model=how.judge), config, ask))


def _judged(
    step: Step, item: Item, candidates: Sequence[Candidate], how: Judge, config: PipelineConfig, ask: Ask
) -> Chosen:
    room = _context(config, how.model) - _VERDICT_TOKENS
    judging = judge.judging(
        candidates,
        _asked(step, item),
        Random(derived(config.seed, f"{step.id}/judge")),  # noqa: S311 - shuffles
        mode=how.mode,
        criteria=how.criteria,
        shown=min(6_000, room * _CHARACTERS // 4),  # the question, two answers, and as much for the task
    )
    replies: dict[str, str] = {}
    while questions := judging.questions(replies):
        for question in questions:
            call = _call(step, item, question.id, how.model, question.messages, config)
            replies[question.id] = ask(replace(call, schema=question.schema)).text
    return judging.verdict(replies)


def _synthesised(
    step: Step,
    item: Item,
    candidates: Sequence[Candidate],
    answers: Sequence[Answer],
    how: Synthesis,
    config: PipelineConfig,
    ask: Ask,
) -> Chosen:
    """One answer written from all; candidates are cut by the tokens their own models counted."""
    lengths = {a.text: a.completion_tokens or len(a.text) // _CHARACTERS for a in answers}

    def cut(text: str, tokens: int) -> str:
        return text if lengths[text] <= tokens else text[: len(text) * tokens // lengths[text]]

    instruction = compiled(how.instruction).render(item.values(step, item.given(step)))
    asked = synthesis.question(
        candidates, _asked(step, item), cut, candidate_tokens=how.candidate_tokens, instruction=instruction
    )
    call = _call(step, item, "synthesis", how.model, asked, config)
    drawings = {how.model: drawing_of(config, step.stage, how.model)}
    written = ask(replace(call, drawings=drawings, schema=step.stage.response_schema, stop=step.stage.stop))
    return Chosen(written.text, {"method": "synthesis", "model": how.model, "candidates": len(candidates)})


def _asked(step: Step, item: Item) -> str:
    """The question as the candidates were asked it."""
    return messages(step, item, 1.0)[-1][1]


def _call(step: Step, item: Item, name: str, model: str, asked: Messages, config: PipelineConfig) -> Call:
    """A question of the aggregation itself: the likeliest answer, in a few words."""
    drawing = replace(drawing_of(config, step.stage, model), temperature=0.0, max_tokens=_VERDICT_TOKENS)
    return Call(
        id=item.id(f"{step.id}/={name}"),  # no model is called so
        stage=step.stage,
        models=(model,),
        prompt=lambda _: asked,
        drawings={model: drawing},
        seed=derived(config.seed, f"{step.id}/{name}"),
    )


def _context(config: PipelineConfig, model: str) -> int:
    """Tokens that a model can be shown."""
    if config.models[model].provider == "gguf":
        return engine_of(config, model).context
    return config.llm.models[config.models[model].model or ""].context or 8_192
