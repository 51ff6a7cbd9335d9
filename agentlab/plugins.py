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

    def require(self, name: str, *others: str) -> str:
        """The name, for a field of a config. Any that is neither known nor of `others` is refused as by a Literal."""
        from pydantic_core import PydanticCustomError

        if name not in self.table and name not in others and name not in (names := self.names):
            *first, last = map(repr, (*names, *others))
            expected = f"{', '.join(first)} or {last}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return name

    def load(self, name: str, kind: type | None = None) -> T:
        """The thing of that name; one of a package is a `kind`.

        Raises:
            UnknownNameError: as of `where`.
            AgentlabError: what a package declares cannot be imported, or is no such thing.
        """
        where = self.where(name)
        try:
            thing = imported(where)
        except Exception as error:
            if name in self.table or isinstance(error, AgentlabError):
                raise
            raise self.unusable(name, str(error)) from error
        if kind is not None and not isinstance(thing, kind):
            raise self.unusable(name, f"it is not a {kind.__name__}")
        return cast(T, thing)

    def unusable(self, name: str, why: str) -> AgentlabError:
        """What to raise where a package's thing is not what it should be."""
        return AgentlabError(
            f"The {self.kind} {name} from an installed package cannot be used: {why}",
            hint=f"Install a compatible version of its package ({self.where(name)}), or use another {self.kind}.",
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
