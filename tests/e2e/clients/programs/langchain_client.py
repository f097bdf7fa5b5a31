"""langchain-openai: chat by both of its APIs, streams, structured answers, embeddings."""

from __future__ import annotations

from checks import MODEL, check, run_checks
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

TEXT = "a paper clip holds pages together"


class City(BaseModel):
    """A city."""

    name: str


@check
def chat() -> None:
    assert ChatOpenAI(model=MODEL, max_tokens=8).invoke(TEXT).content


@check
def chat_streamed() -> None:
    assert "".join(str(chunk.content) for chunk in ChatOpenAI(model=MODEL, max_tokens=8).stream(TEXT))


@check
def chat_by_responses() -> None:
    answer = ChatOpenAI(model=MODEL, max_tokens=16, use_responses_api=True).invoke(TEXT)
    assert answer.text


@check
def chat_by_responses_streamed() -> None:
    model = ChatOpenAI(model=MODEL, max_tokens=16, use_responses_api=True)
    assert "".join(chunk.text for chunk in model.stream(TEXT))


@check
def a_conversation_by_stored_responses() -> None:
    model = ChatOpenAI(model=MODEL, max_tokens=16, use_previous_response_id=True)
    first = model.invoke([("user", "one two")])
    second = model.invoke([("user", "one two"), first, ("user", "three")])
    assert second.text


@check
def a_structured_answer() -> None:
    model = ChatOpenAI(model=MODEL, max_tokens=64).with_structured_output(City, method="json_schema")
    assert isinstance(model.invoke("Name a city."), City)


@check
def batched() -> None:
    assert len(ChatOpenAI(model=MODEL, max_tokens=4).batch([TEXT, "another", "a third"])) == 3


@check
def completions() -> None:
    assert OpenAI(model=MODEL, max_tokens=8).invoke(TEXT)


@check
def embeddings() -> None:
    # Without the check LangChain sends texts; with it, it loads OpenAI's tokenizer from the internet.
    model = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False)
    vectors = model.embed_documents([TEXT, "another"])
    assert len(vectors) == 2
    assert len(model.embed_query(TEXT)) == len(vectors[0])


if __name__ == "__main__":
    run_checks()
