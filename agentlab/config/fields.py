"""What a config model says about a place in a config's tree: which models may stand there, and their keys. Pure."""

import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator, RootModel
from pydantic.fields import FieldInfo

from agentlab.config.base import StrictModel
from agentlab.config.keys import Key, child

Model = type[BaseModel]


@dataclass(frozen=True, slots=True)
class PresetSlot:
    """A field that takes the name of a preset of `folder`. `default` is the name it has when nothing is given."""

    path: Key
    folder: str
    default: str | None


def preset_slots(annotation: Any, data: Any, path: Key = ()) -> Iterator[PresetSlot]:
    """Every field declared by `preset_field` that `data` has room for, lists and mappings of models included."""
    for model in fitting_models(annotation, data):
        for name, field in model.model_fields.items():
            extra, field_path = field.json_schema_extra, (*path, name)
            if isinstance(extra, dict) and "presets" in extra:
                default = field.default if isinstance(field.default, str) else None
                yield PresetSlot(field_path, str(extra["presets"]), default)
                continue
            field_data = data.get(name) if isinstance(data, Mapping) else None
            if field_data is not None or (_is_model(field.annotation) and not field.is_required()):
                yield from preset_slots(field.annotation, {} if field_data is None else field_data, field_path)
    for name, item in _items(data):
        for inner in _inner(annotation):
            yield from preset_slots(inner, item, (*path, name))


def fitting_models(annotation: Any, data: Any) -> list[Model]:
    """The models an annotation allows for a mapping; a literal such as `kind: gguf` settles which one."""
    if not isinstance(data, Mapping):
        return []
    models = [m.model_for(data) if issubclass(m, StrictModel) else m for m in _alternatives(annotation) if _is_model(m)]
    if len(models) == 1:
        return models
    fits = {m: _literal_fit(m, data) for m in models}
    return [m for m in models if fits[m]] or [m for m in models if fits[m] is None]


def known_keys(model: Model, data: Any, path: Key) -> list[str]:
    """The keys that may stand in the mapping at `path` of `data`; empty when any may."""
    annotations: list[Any] = [model]
    for part in path:
        annotations, data = below(annotations, part, data), child(data, part)
    models = chain.from_iterable(fitting_models(annotation, data) for annotation in annotations)
    names = chain.from_iterable(fitting_model.model_fields for fitting_model in models)
    files = getattr(model, "includes", ()) if not path else ()
    return list(dict.fromkeys([*names, *files]))


def below(annotations: Collection[Any], part: str, data: Any) -> list[Any]:
    """What may stand at `part` of `data`, of which the annotations speak."""
    part_annotations: list[Any] = []
    for annotation in annotations:
        fields = [m.model_fields[part] for m in fitting_models(annotation, data) if part in m.model_fields]
        part_annotations += [*(Annotated[field.annotation, field] for field in fields), *_inner(annotation)]
    return part_annotations


def is_tagged(annotation: Any) -> bool:
    """Whether a tag tells the members of this union apart; pydantic then names it in the place of every error."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return any(_tells_apart(mark) for mark in arguments[1:]) or is_tagged(arguments[0])
    return origin in (Union, types.UnionType) and any(is_tagged(member) for member in arguments)


def _tells_apart(mark: Any) -> bool:
    if isinstance(mark, FieldInfo):
        return mark.discriminator is not None or any(isinstance(m, Discriminator) for m in mark.metadata)
    return isinstance(mark, Discriminator)


def _items(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        yield from data.items()
    elif isinstance(data, list):
        yield from ((str(index), item) for index, item in enumerate(data))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, seen through `Annotated`, aliases and root models."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    elif _is_model(annotation) and issubclass(annotation, RootModel):
        yield from _alternatives(annotation.model_fields["root"].annotation)
    else:
        yield annotation


def _inner(annotation: Any) -> list[Any]:
    """What the containers among an annotation's alternatives hold: list items, values of mappings."""
    inner_annotations = []
    for alternative in _alternatives(annotation):
        origin, arguments = get_origin(alternative), get_args(alternative)
        if isinstance(origin, type) and issubclass(origin, Collection):
            inner_annotations.append(arguments[-1] if issubclass(origin, Mapping) else arguments[0])
    return inner_annotations


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _literal_fit(model: Model, data: Mapping[str, Any]) -> bool | None:
    """Whether the model's literals hold in `data`: False when one does not, None when none is given."""
    fits = None
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and isinstance(data.get(name), str):
            if data[name] not in get_args(field.annotation):
                return False
            fits = True
    return fits
