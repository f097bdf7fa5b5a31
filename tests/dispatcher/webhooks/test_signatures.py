"""dispatcher/webhooks/signatures.py: OpenAI's library verifies what is signed here, and shown secrets tell nothing."""

from __future__ import annotations

import time

import openai
import pytest
from openai.types.webhooks import BatchCompletedWebhookEvent

from bitladder.routing.webhook_checks import read_secret
from dispatcher.webhooks.deliveries import payload
from dispatcher.webhooks.signatures import hint, new_secret, signed_headers

webhooks = openai.OpenAI(api_key="-").webhooks
BODY = payload("evt_1", "batch.completed", 1_700_000_000, "batch_1")


def test_the_specifications_example_has_its_signature() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, the libraries' common test
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_after_a_rotation_both_secrets_verify_and_no_third() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers = signed_headers("evt_1", int(time.time()), BODY, [new, old])

    for secret in (old, new):
        event = webhooks.unwrap(BODY, headers, secret=secret)
        assert isinstance(event, BatchCompletedWebhookEvent)
        assert (event.data.id, event.created_at) == ("batch_1", 1_700_000_000)
    for body, secret in ((BODY, other), (BODY + b" ", new)):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            webhooks.unwrap(body, headers, secret=secret)


def test_a_new_secret_is_one_and_its_hint_shows_four_letters() -> None:
    secret = new_secret()

    assert len(read_secret(secret)) == 32
    assert new_secret() != secret
    assert hint(secret) == f"whsec_...{secret.rstrip('=')[-4:]}"


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", "c2hvcnQ=" * 5, "whsec_" + "!" * 44, "whsec_" + "A" * 92]
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 random bytes") as refusal:
        read_secret(text)
    assert len(text) < 10 or text not in str(refusal.value)
