"""openai-agents by default: its model speaks /v1/responses."""

from __future__ import annotations

from agents import Agent, Runner, SQLiteSession, function_tool, set_tracing_disabled
from checks import MODEL, check, run_checks

set_tracing_disabled(True)
agent = Agent(name="judge", instructions="Answer shortly.", model=MODEL)


@function_tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


@check
async def a_run() -> None:
    result = await Runner.run(agent, "a paper clip holds pages together")
    assert result.final_output


@check
async def a_streamed_run() -> None:
    result = Runner.run_streamed(agent, "a paper clip holds pages together")
    kinds = [event.type async for event in result.stream_events()]
    assert "raw_response_event" in kinds
    assert result.final_output


@check
async def two_turns_of_a_session() -> None:
    session = SQLiteSession("judge")
    await Runner.run(agent, "one two", session=session)
    result = await Runner.run(agent, "three", session=session)
    assert result.final_output


@check
async def a_turn_after_a_stored_response() -> None:
    first = await Runner.run(agent, "one two")
    second = await Runner.run(agent, "three", previous_response_id=first.last_response_id)
    assert second.final_output


@check
async def a_tool_is_offered() -> None:
    helper = Agent(name="helper", model=MODEL, tools=[weather])
    result = await Runner.run(helper, "Say hello.", max_turns=3)
    assert result.final_output is not None


if __name__ == "__main__":
    run_checks()
