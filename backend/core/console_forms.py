"""The console's forms, held to the API's schemas: the same rules, the messages beside the fields.

SQLAdmin reads a form's rules from the table, which knows few of them.
"""

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined
from starlette.datastructures import FormData
from starlette.requests import Request
from wtforms import Form, HiddenField, PasswordField
from wtforms.fields.core import UnboundField
from wtforms.validators import InputRequired
from wtforms.validators import Optional as MayBeEmpty

VERSION = "version"  # hidden; says which state of the record the person was looking at
BAD_CHARACTERS = "This text has characters that cannot be stored"


async def text_fields(request: Request) -> FormData:
    """The submitted form, text only: no view takes files, and SQLAdmin fails over one that it does not expect.

    The client chooses the form's charset; some decode to lone surrogates, which no database takes.
    """
    async with request.form() as form:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return FormData([(name, value.encode("utf-8", "replace").decode()) for name, value in fields])


def stated(data: dict[str, Any]) -> dict[str, Any]:
    """What a form says: without the fields that were left empty, which take the schema's defaults."""
    return {name: value for name, value in data.items() if value is not None and name != VERSION}


def held_to(schema: type[BaseModel], form: type[Form]) -> type[Form]:
    """A form like `form` whose fields say what `schema` demands, and which validates only what `schema` accepts."""
    described = schema.model_json_schema()
    fields = {name: field for name, field in vars(form).items() if isinstance(field, UnboundField)}
    for name, unbound in fields.items():
        required = name in described.get("required", ())
        unbound.kwargs["validators"] = [InputRequired()] if required else [MayBeEmpty()]
        default = schema.model_fields[name].get_default() if name in schema.model_fields else None
        if default is not PydanticUndefined and default is not None:
            unbound.kwargs["default"] = default
        if not issubclass(unbound.field_class, PasswordField):
            unbound.kwargs["filters"] = [*(unbound.kwargs.get("filters") or ()), _trim]
        attributes = unbound.kwargs["render_kw"] = dict(unbound.kwargs.get("render_kw") or {})
        if limit := described["properties"].get(name, {}).get("maxLength"):
            attributes.setdefault("maxlength", limit)

    def validate(self: Form, extra_validators: Any = None) -> bool:
        if not form.validate(self, extra_validators):
            return False
        try:
            schema.model_validate(stated(self.data))
        except ValidationError as exc:
            for error in exc.errors():
                _place(self, str(error["loc"][0]) if error["loc"] else "", said(error))
            return False
        return True

    return type(form.__name__, (form,), {"validate": validate, VERSION: HiddenField(default="")})


def _trim(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def said(error: Any) -> str:
    """What pydantic found, for people."""
    if error["type"] == "string_pattern_mismatch":  # pydantic would show the regular expression
        return BAD_CHARACTERS
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].upper() + message[1:]


def message_of(exc: ValidationError) -> str:
    """All that is wrong, as sentences."""
    return ". ".join(dict.fromkeys(said(error) for error in exc.errors()))


def _place(form: Form, name: str, message: str) -> None:
    """Beside its field, or above the form when it has none."""
    if name in form._fields:
        form[name].errors = [*form[name].errors, message]
    else:
        form.form_errors.append(f"{name}: {message}" if name else message)
