"""Which models are loaded: never more than there is room for, and what is needed last goes first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentlab.errors import ModelFileError
from agentlab.gguf.engine import EngineConfig
from agentlab.pipeline.loaded_models import LoadedModels, MemoryBudget
from agentlab.pipeline.settings import Engine
from agentlab.workers.memory import ProcessMemory
from tests.unit.gguf.scripted import ScriptedEngine

SETTINGS = Engine(context=512, batch=64, gpu_layers=0, flash=True, kv_type="f16")


class Sizes:
    """Every model takes 10 bytes, with a smaller batch 5."""

    budget = MemoryBudget(20, 0)

    def __init__(self) -> None:
        self.learnt: list[tuple[str, int]] = []

    def __call__(self, name: str, engine: Engine) -> int:
        return 10 if engine.batch == 64 else 5

    def learn(self, name: str, engine: Engine, peak: int) -> None:
        self.learnt.append((name, peak))


class Measured(ScriptedEngine):
    """A scripted engine that claims to take memory."""

    def measured(self) -> ProcessMemory | None:
        return ProcessMemory(resident=7, private=5, peak=9)


class House:
    """LoadedModels over three models, and what they did."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.made: list[EngineConfig] = []
        self.sizes = Sizes()
        models: dict[str, Any] = {name: SimpleNamespace(path=Path(f"{name}.gguf")) for name in "abc"}
        self.loaded_models = LoadedModels(
            models,
            sizes=self.sizes,  # type: ignore[arg-type] # what of it is used
            threads=1,
            make=self._make,
            told=lambda type_, name, **_: self.told.append((type_.removeprefix("model."), name)),
        )

    def _make(self, config: EngineConfig) -> Measured:
        self.made.append(config)
        return Measured(["yes"])

    def use(self, name: str, *upcoming: str, settings: Engine = SETTINGS) -> Any:
        return self.loaded_models.engine(name, settings, upcoming=upcoming, cancelled=lambda: False)


def test_a_model_is_loaded_once() -> None:
    house = House()
    assert house.use("a") is house.use("a")
    assert house.told == [("loaded", "a")]


def test_what_is_needed_furthest_in_the_future_makes_room() -> None:
    house = House()
    house.use("a")
    house.use("b")
    house.use("c", "a", "b")
    assert house.told[2:] == [("evicted", "b"), ("loaded", "c")]
    assert house.loaded_models.names == ("a", "c")


def test_what_is_never_needed_again_goes_before_all_others() -> None:
    house = House()
    house.use("a")
    house.use("b")
    house.use("c", "b", "c")
    assert ("evicted", "a") in house.told


def test_other_settings_load_it_anew() -> None:
    house = House()
    house.use("a")
    house.use("a", settings=Engine(512, 32, 0, True, "f16"))
    assert house.told == [("loaded", "a"), ("evicted", "a"), ("loaded", "a")]
    assert [config.batch for config in house.made] == [64, 32]


def test_alone_means_that_all_others_are_gone() -> None:
    house = House()
    house.use("a")
    house.use("b")
    house.loaded_models.only("b")
    assert house.loaded_models.names == ("b",)


def test_a_peak_is_remembered_for_the_next_plan() -> None:
    house = House()
    house.use("a")
    house.loaded_models.close()
    assert house.sizes.learnt == [("a", 9)]
    assert house.loaded_models.names == ()


def test_what_cannot_be_loaded_leaves_nothing_behind() -> None:
    house = House()
    closed: list[bool] = []

    class Broken(ScriptedEngine):
        def load(self, **_: Any) -> Any:
            raise ModelFileError("no")

        def close(self) -> None:
            closed.append(True)

    house.loaded_models.make = lambda _: Broken(["x"])  # a different factory from here on
    with pytest.raises(ModelFileError):
        house.use("a")
    assert closed == [True]
    assert house.loaded_models.names == ()
