"""A file in a form (multipart/form-data), read as it arrives: its bytes pass by and are not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from bitladder.errors import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FILE = "file"
# Of a field beside the file, and of all of them: far more than they need.
_MAX_FIELD_BYTES, _MAX_FIELDS = 4096, 20
_MAX_NAME_CHARS = 255


class Form(NamedTuple):
    """What a form has beside the bytes of its file."""

    filename: str
    fields: dict[str, str]


# Called with what is known of the form before the file's first byte, and again with all of it.
Check = Callable[[Form, bool], None]


class UploadForm:
    """One form. `parts` yields its file; whatever is wrong with the form ends it with an error, at its very end too."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes], check: Check) -> None:
        """Take a body as it arrives.

        Raises:
            RequestError: it is no form.

        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise RequestError(f"Content-Type must be multipart/form-data with a boundary, got {content_type[:80]!r}")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise RequestError(f"the form is wrong: {error}") from error
        self._body, self._check = body, check
        self._filename: str | None = None  # None: the file has not begun
        self._fields: dict[str, str] = {}
        self._arrived: list[bytes] = []  # of the file, since the last part was yielded
        self._name = self._disposition = b""
        self._header = self._value = b""
        self._begun = 0  # parts, those of the same name among them
        self._has_ended = False

    @property
    def form(self) -> Form:
        return Form(self._filename or "", self._fields)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file.

        Raises:
            RequestError: the form is wrong, has no file, or ends too early; or what `check` raises.

        """
        is_checked = False
        async for data in self._body:
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise RequestError(f"the form is wrong: {error}") from error
            if self._filename is not None and not is_checked:
                self._check(self.form, False)
                is_checked = True
            if self._arrived:
                part, self._arrived = b"".join(self._arrived), []
                yield part
        if not self._has_ended:
            raise RequestError("the form ends too early: nothing of it was kept")
        if self._filename is None:
            raise RequestError("the form must have a file, in a part with the name 'file'", param=_FILE)
        self._check(self.form, True)

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > _MAX_FIELDS + 1:
            raise RequestError(f"the form may have {_MAX_FIELDS} fields at most")
        self._name = self._disposition = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._name = options.get(b"name", b"")
        if self._name == _FILE.encode():
            if self._filename is not None:
                raise RequestError("the form must have one file, and has two", param=_FILE)
            self._filename = _text(options.get(b"filename", b""))[:_MAX_NAME_CHARS] or _FILE

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE.encode():
            self._arrived.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            name = _text(self._name)[:_MAX_NAME_CHARS]
            raise RequestError(f"the field {name!r} may have {_MAX_FIELD_BYTES} bytes at most", param=name)

    def _end_part(self) -> None:
        if self._name != _FILE.encode():
            self._fields[_text(self._name)[:_MAX_NAME_CHARS]] = _text(self._value)
        self._value = b""

    def _end(self) -> None:
        self._has_ended = True


def _text(raw: bytes) -> str:
    """Return a name or value: in UTF-8 as browsers, curl and OpenAI's libraries send it."""
    return raw.decode("utf-8", "replace")
