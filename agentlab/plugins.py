"""Things of one kind by name: a table of import strings, and an entry-point group for those of other packages."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from agentlab.errors import AgentlabError, UnknownNameError

T = TypeVar("T")


def imported(where: str) -> Any:
    """What `module:name` names."""
    module, _, name = where.partition(":")
    return reduce(getattr, name.split("."), import_module(module))


@dataclass(frozen=True, slots=True)
class Registry(Generic[T]):
    """One seam. Nothing is imported before it is asked for by its name; a shipped name hides a plug-in's."""

    kind: str  # what a message calls a thing of this kind
    group: str  # the entry points that packages may declare
    table: Mapping[str, str]  # name -> `module:name`, in the order in which they are shown

    @property
    def names(self) -> list[str]:
        from importlib.metadata import entry_points  # slow to import, and seldom needed

        return [*self.table, *sorted(entry_points(group=self.group).names - self.table.keys())]

    def load(self, name: str) -> T:
        """Raises as `where` does, and AgentlabError where what a package declares cannot be imported."""
        where = self.where(name)
        try:
            return cast(T, imported(where))
        except Exception as error:
            if name in self.table or isinstance(error, AgentlabError):
                raise
            raise self.unusable(name, str(error)) from error

    def unusable(self, name: str, why: str) -> AgentlabError:
        """What to raise where a package's thing is not what it should be."""
        return AgentlabError(
            f"The {self.kind} {name} from an installed package cannot be used: {why}",
            hint=f"It is {self.where(name)}: install a compatible version of that package, or use another {self.kind}.",
        )

    def where(self, name: str) -> str:
        """The `module:name` of the thing of that name, for another process to import.

        Raises:
            UnknownNameError: there is none, here or in a package.
        """
        if name in self.table:
            return self.table[name]
        from importlib.metadata import entry_points

        if name not in (names := self.names):
            raise UnknownNameError(self.kind, name, names)
        return entry_points(group=self.group)[name].value.partition("[")[0].replace(" ", "")
