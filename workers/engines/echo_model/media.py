"""Pictures and sound in a request, for an echo engine that takes them: it has nothing to say of them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

MEDIA = ("image_url", "input_image", "image_embeds", "image_pil", "input_audio", "audio_url", "video_url", "file")
_KINDS = (*MEDIA, "image", "document", "input_file")  # and those of /v1/messages and /v1/responses


def without_media(body: bytes) -> bytes:
    """Return a request without the parts that are no text.

    Raises:
        msgspec.DecodeError: it is no JSON.

    """
    return msgspec.json.encode(_without(msgspec.json.decode(body)))


def _without(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    if isinstance(value, dict):
        return {name: _without(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without(part) for part in value if not (isinstance(part, dict) and part.get("type") in _KINDS)]
    return value
