"""OpenAI's client against bitladder: `python examples/openai_client.py`.

Headers say what a request may cost and how good it must be; the answer's headers say what became of it. `BITLADDER_URL`
and `BITLADDER_API_KEY` say where the intake is and who asks.
"""

from __future__ import annotations

import os

from openai import OpenAI

MODEL = "smollm2"


def main() -> None:
    url = os.environ.get("BITLADDER_URL", "http://127.0.0.1:8000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("BITLADDER_API_KEY", "none-needed"))

    # At least int8, before other requests, and worthless after ten seconds.
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Name three uses of a paper clip."}],
        max_tokens=32,
        extra_headers={"X-Min-Tier": "int8", "X-Priority": "7", "X-Deadline-Ms": "10000"},
    )
    print("tier:", answer.headers["X-Tier"])
    print("why:", answer.headers["X-Route-Reason"])
    print("answer:", answer.parse().choices[0].message.content)

    # Nothing is said here, so the policy chooses the cheapest tier that will do.
    stream = client.completions.create(model=MODEL, prompt="What a day", max_tokens=8, stream=True)
    print("stream:", "".join(chunk.choices[0].text for chunk in stream if chunk.choices))


if __name__ == "__main__":
    main()
