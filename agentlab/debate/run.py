"""`agentlab debate`: checks, plans, holds the debates and what is held against them, and reports."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agentlab.answers.choices import Scored
from agentlab.config.workspace import Workspace
from agentlab.debate import protocol
from agentlab.debate.config import AgentConfig, DebateConfig, VoteConfig
from agentlab.debate.plan import DebatePlan, plan_of
from agentlab.debate.report import debate_report
from agentlab.debate.result import TOPIC, DebateResult
from agentlab.debate.routed_agents import RoutedSpeakers
from agentlab.debate.rules import JUDGE
from agentlab.debate.speakers import Panel, Speakers
from agentlab.debate.transcript import Arm, Ballot, Held, Turn
from agentlab.debate.verdict import right_on, verdict
from agentlab.debate.voting import Fitted, fit_votes, primary
from agentlab.debate.wave import Score, Setting, Wave
from agentlab.errors import AllModelsFailedError, RunMismatchError, RunUnreadableError, UsageError
from agentlab.experiment import events_before, fixed_threads, open_router, ready_base
from agentlab.llm.recorder import RunRecorder
from agentlab.lora.card import read_card
from agentlab.lora.catalogue import find as find_adapter
from agentlab.models.base_model import find_base
from agentlab.runs.context import Context
from agentlab.runs.events import Event, first_event_data, has_changed
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.tasks.questions import QuizQuestion, digest, generate_questions, jsonl, read_questions

READ, FITTED, HELD = "questions.read", "dev.fitted", "wave.finished"
QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class DebateExperiment:
    """Checked agents and questions."""

    config: DebateConfig
    context: Context
    questions: tuple[QuizQuestion, ...]

    def plan(self) -> DebatePlan:
        local = any(agent.model is None for agent in self.config.agents)
        base = find_base(self.config.base, self.context.workspace) if local else None
        imports = base is not None and not base.path.is_dir()
        return plan_of(self.config, self.questions, None if base is None else str(base.path), imports=imports)

    def run(self, run: OpenRun) -> tuple[DebateResult, RunOutcome]:
        with self.open_work(run) as debates:
            while debates.wave is not None:
                while debates.wave.open:
                    debates.speak()
                debates.finish()
            return debates.conclude()

    @contextmanager
    def open_work(self, run: OpenRun) -> Iterator["Debates"]:
        dev = len(protocol.split(self.config, self.questions)[0])
        run.write_text(QUESTIONS, jsonl(self.questions))
        run.emit_once(READ, count=len(self.questions), dev=dev, sha256=digest(self.questions))
        with ExitStack() as stack:
            yield Debates(self, run, self._setting(run, stack))

    def _setting(self, run: OpenRun, stack: ExitStack) -> Setting:
        config, context = self.config, self.context
        speakers: dict[str, Speakers] = {}
        score: Score = lambda _: {}  # noqa: E731 - nobody tells likelihoods
        if config.llm.models and any(agent.model for agent in config.agents):
            router = stack.enter_context(open_router(config.llm, context, RunRecorder(run)))
            models = {agent.name: agent.model for agent in config.agents if agent.model is not None}
            speakers |= dict.fromkeys(models, RoutedSpeakers(router, models, context.stop))
        base_agents = [agent for agent in config.agents if agent.model is None]
        if base_agents:
            from agentlab.debate.local_agents import local_speakers

            stack.enter_context(fixed_threads(run, config.threads))
            path = ready_base(run, find_base(config.base, context.workspace))
            local = stack.enter_context(local_speakers(config, path, context.workspace, context.stop.check))
            speakers |= dict.fromkeys((agent.name for agent in base_agents), local)
            score = local.score
        forms = [_form(config, agent) for agent in config.agents]
        return Setting(
            config, Panel(speakers), forms, lambda turn: run.stream("turn.said", **turn.model_dump(mode="json")), score
        )


class Debates:
    """The debates of a run, wave by wave: the one in work (None: all are done), and what comes of all of them."""

    def __init__(self, experiment: DebateExperiment, run: OpenRun, setting: Setting) -> None:
        self.run, self.setting, self._stop = run, setting, experiment.context.stop
        self._config, self._questions = experiment.config, experiment.questions
        self._who = experiment.plan().agent_table()
        self._dev, self._test = protocol.split(self._config, self._questions)
        size = max(1, self._config.rows // len(self._config.agents))
        self._waves: list[tuple[str, list[QuizQuestion]]] = []
        for name, part in (("dev", self._dev), ("test", self._test)):
            starts = range(0, len(part), size)
            self._waves += [(f"{name}-{start // size + 1:03d}", part[start : start + size]) for start in starts]
        self.wave = self._next()

    def _next(self) -> Wave | None:
        """The first wave that is not finished; None: all are."""
        self._stop.check()
        for name, part in self._waves:
            if not self.run.has(HELD, name):
                if part[0] in self._test:
                    self.fit_once()
                return Wave(self.setting, name, part)
        return None

    def fit_once(self) -> Fitted:
        """What the questions put aside for it tell: on which agents and confidences one may rely. Told once."""
        if not self.run.has(FITTED):
            new_fit = fit_votes(self._dev, load_transcript(self._config, self.run.events), self._config)
            self.run.emit(FITTED, **new_fit.model_dump(mode="json"))
        return Fitted.model_validate(first_event_data(self.run.events, FITTED))

    def speak(self) -> None:
        assert self.wave is not None
        self.wave.speak()

    def finish(self) -> None:
        """The end of a wave that is settled: the judge, what is held against it, and the record of it, whole or not."""
        wave = self.wave
        assert wave is not None
        wave.judge()
        scored = self._config.topic is None and wave.questions[0] in self._test
        if scored:
            wave.control(self.fit_once().best)
        right = right_on(wave.questions, wave.transcript, self.fit_once(), self._config) if scored else []
        self.setting.panel.forget()
        so_far = next((event.data for event in reversed(self.run.events) if event.type == HELD), {})
        self.run.emit(
            HELD,
            wave.name,
            done=so_far.get("done", 0) + len(wave.questions),
            total=len(self._questions),
            right=so_far.get("right", 0) + sum(right),
            scored=so_far.get("scored", 0) + len(right),
            **wave.transcript.model_dump(mode="json"),
        )
        self.wave = self._next()

    def conclude(self) -> tuple[DebateResult, RunOutcome]:
        """What it came to, the transcript and the report.

        Raises:
            AllModelsFailedError: not one turn was answered.
        """
        transcript = load_transcript(self._config, self.run.events)
        result = verdict(self._test, transcript, self.fit_once(), self._config)
        turns = (*transcript.turns, *transcript.ballots)
        self.run.write_text("transcript.jsonl", "".join(f"{turn.model_dump_json()}\n" for turn in turns))
        self.run.write_json("transcript.schema.json", TypeAdapter(Turn | Ballot).json_schema())
        self.run.report = debate_report(self.run, result, self._questions, transcript, self._who)
        if all(turn.error for turn in transcript.turns):
            raise AllModelsFailedError(
                f"No turn was answered; {transcript.turns[0].agent}: {transcript.turns[0].error}",
                hint=f"See {self.run.file('report.html')}; fix the errors it lists, then start a new run.",
            )
        accuracy = result.accuracy
        metrics = {} if accuracy is None else {"accuracy": Metric(value=accuracy, direction="higher")}
        tokens = RunTokens(input=sum(t.input_tokens for t in turns), output=sum(t.output_tokens for t in turns))
        return result, RunOutcome(metrics, result.control, tokens)


def load_transcript(config: DebateConfig, events: Iterable[Event]) -> Held:
    """All finished waves of a run as one.

    Raises:
        RunUnreadableError: the events were damaged.
    """
    names = {agent.name for agent in config.agents}
    waves = list[Held]()
    for event in events:
        if event.type != HELD:
            continue
        try:
            wave = Held.model_validate({key: value for key, value in event.data.items() if key in Held.model_fields})
        except ValidationError as error:
            raise RunUnreadableError(f"The turns in {event.id} cannot be read: {str(error)[:300]}") from error
        if strangers := {turn.agent for turn in wave.turns} - names:
            raise RunUnreadableError(f"{event.id} has turns by unknown agents: {', '.join(sorted(strangers))}.")
        waves.append(wave)
    seconds: dict[Arm, float] = {}
    for arm in dict.fromkeys(chain.from_iterable(wave.seconds for wave in waves)):
        seconds[arm] = sum(wave.seconds.get(arm, 0.0) for wave in waves)
    alone: dict[str, dict[str, Scored]] = {}
    for wave in waves:
        for agent, scores in wave.alone.items():
            alone.setdefault(agent, {}).update(scores)
    return Held(
        questions=list(chain.from_iterable(wave.questions for wave in waves)),
        turns=list(chain.from_iterable(wave.turns for wave in waves)),
        ballots=list(chain.from_iterable(wave.ballots for wave in waves)),
        seconds=seconds,
        shortened=sum(wave.shortened for wave in waves),
        worded=sum(wave.worded for wave in waves),
        alone=alone,
    )


def replay(config: DebateConfig, folder: Path, events: Sequence[Event], named: VoteConfig) -> DebateResult:
    """What the turns of a run come to by the votes of a config; nobody is asked.

    Only the vote that was `named` before the run has a verdict.

    Raises:
        UsageError: the run has no question that was scored, or no verdicts of the judge that is to vote.
        RunMismatchError: the questions in its folder are not those that were asked.
        RunUnreadableError: its events were damaged.
    """
    questions = _topic(config) or read_questions(folder / QUESTIONS)
    if has_changed(first_event_data(events, READ), sha256=digest(questions)):
        raise RunMismatchError(
            f"{QUESTIONS} does not contain the questions that this run asked.", hint=f"Restore {folder / QUESTIONS}."
        )
    test = protocol.split(config, questions)[1]
    transcript = load_transcript(config, events)
    if set(transcript.questions).isdisjoint(question.id for question in test):
        raise UsageError("This run has not scored any questions yet.", hint="Continue it with `agentlab runs resume`.")
    if config.vote.rule == JUDGE:
        if not transcript.ballots:
            hint = "Choose another rule, or start a run with protocol.judge."
            raise UsageError("This run has no judge verdicts.", hint=hint)
        if primary(config) != (judged := primary(config.model_copy(update={"vote": named}))):
            hint = "Choose another rule, or omit --round."
            raise UsageError(f"The judge of this run judged only round {judged}.", hint=hint)
    return verdict(test, transcript, Fitted.model_validate(first_event_data(events, FITTED)), config, named)


def _topic(config: DebateConfig) -> tuple[QuizQuestion] | None:
    if config.topic is None:
        return None
    return (QuizQuestion(TOPIC, config.topic, None, config.positions, "choice" if config.positions else "text"),)


def _form(config: DebateConfig, agent: AgentConfig) -> protocol.Form:
    if agent.model is None:
        return "scored"
    able = config.turn.form == "json" or (config.turn.form == "auto" and "schema" in config.llm.caps(agent.model))
    return "json" if able else "text"


def prepare(config: DebateConfig, context: Context) -> DebateExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    if config.protocol.rounds == 0:
        raise UsageError(
            "protocol.rounds must be at least 1.", hint="Use --rounds 1, or add --dry-run to only check and plan."
        )
    return foresee(config, context)


def foresee(config: DebateConfig, context: Context) -> DebateExperiment:
    """The same for a plan, which may have no rounds."""
    questions = read(config, context)
    agents = tuple(_with_system(agent, context.workspace) for agent in config.agents)
    if has_changed(first_event_data(events_before(context), READ), sha256=digest(questions)):
        raise RunMismatchError(
            "The questions have changed since the run started.",
            hint="Restore the file, or start a new run.",
        )
    if any(agent.model is None for agent in config.agents):
        from agentlab.debate.local_agents import check_agents

        check_agents(config, context.workspace)
    if any(agent.model is not None for agent in config.agents):
        with open_router(config.llm, context) as router:
            router.check()
    return DebateExperiment(config.model_copy(update={"agents": agents}), context, questions)


def _with_system(agent: AgentConfig, workspace: Workspace) -> AgentConfig:
    """The agent, told what its adapter was told when it learnt, unless the config says something else."""
    if agent.system is not None or agent.adapter is None:
        return agent
    return agent.model_copy(update={"system": read_card(find_adapter(agent.adapter, workspace)).data.system})


def read(config: DebateConfig, context: Context) -> tuple[QuizQuestion, ...]:
    """What is debated.

    Raises:
        MissingFileError, DataError: the file of questions is absent or not what it should be.
        UsageError: there are not so many questions.
    """
    questions_config = config.questions
    if (topic := _topic(config)) is not None:
        return topic
    if questions_config.file is not None:
        return read_questions(context.workspace.resolve(questions_config.file))[: questions_config.count]
    return generate_questions(questions_config.generate, questions_config.count, config.seed)
