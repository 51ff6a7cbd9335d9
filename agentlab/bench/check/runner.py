"""The check of all models from Python, in four calls."""

from pathlib import Path
from typing import TYPE_CHECKING

from agentlab.bench.check.asking import run_check
from agentlab.bench.check.config import CheckConfig
from agentlab.bench.check.result import CheckResult, ModelCheck
from agentlab.errors import UsageError

if TYPE_CHECKING:
    from agentlab.llm.manager import LLMManager

_DEFAULT_FILE = "llm_test_results.md"


class LLMTestRunner:
    """Tests all models of a config.

    runner = LLMTestRunner("config/llm_settings.yaml")
    await runner.test_all_models()
    runner.get_fastest_models()          # [("name", seconds), ...], fastest first
    runner.export_results_markdown()     # the path of the report
    """

    def __init__(self, manager: "LLMManager | str | Path | None" = None, *, config: CheckConfig | None = None) -> None:
        """Nothing is asked yet.

        Args:
            manager: whose models are tested; or the path of a YAML file, or None for the default config.
            config: how many requests, and how many models at once.
        """
        self._manager = manager
        self._config = config or CheckConfig()
        self.result: CheckResult | None = None

    async def test_all_models(self) -> list[ModelCheck]:
        """Ask every model a few small requests, several models at a time.

        Raises:
            ConfigError: the file is wrong, or names no model.
            UnknownNameError: there is no such file.
        """
        from agentlab.llm.manager import LLMManager

        if isinstance(self._manager, LLMManager):
            self.result = await run_check(self._config, self._manager.config, self._manager.router)
        else:
            async with LLMManager(self._manager) as manager:
                self.result = await run_check(self._config, manager.config, manager.router)
        return self.result.models

    def get_working_models(self) -> list[str]:
        """Names of the models that answered, in the order of the config.

        Raises:
            UsageError: nothing was tested yet.
        """
        return [row.model for row in self._tested().models if row.available]

    def get_fastest_models(self) -> list[tuple[str, float]]:
        """Models that answered and their median seconds, fastest first.

        Raises:
            UsageError: nothing was tested yet.
        """
        times = [(row.model, row.total_seconds) for row in self._tested().models if row.total_seconds is not None]
        return sorted(times, key=lambda pair: pair[1])

    def export_results_markdown(self, path: str | Path | None = None) -> Path:
        """Write the report, by default as `llm_test_results.md` in the current folder, and say where it is.

        Raises:
            UsageError: nothing was tested yet.
            StorageError: it cannot be written.
        """
        from agentlab.runs.atomic import make_folder, write_text
        from agentlab.runs.report import markdown

        target = Path(path or _DEFAULT_FILE).absolute()
        report = markdown("Language models tested", self._tested().blocks())
        make_folder(target.parent)
        write_text(target, report)
        return target

    def _tested(self) -> CheckResult:
        if self.result is None:
            raise UsageError("No model was tested yet.", hint="First: await runner.test_all_models()")
        return self.result
