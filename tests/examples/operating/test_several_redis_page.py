"""docs/operating/several-redis.md: its configuration is one, and its producer takes the part that it names."""

from __future__ import annotations

from pathlib import Path

from bitladder.producer import Producer
from bitladder.settings.load import load_settings
from tests.conftest import ROOT, OwnValkey
from tests.page_examples import blocks

PAGE = "docs/operating/several-redis.md"


def test_the_configuration_puts_a_model_at_its_own_redis_where_a_producer_reaches_it(
    tmp_path: Path, own_valkey: OwnValkey
) -> None:
    (text,) = blocks(PAGE, "toml")
    table = text.partition("[models.big]\n")[2].replace("redis://10.0.0.2:6379/0", own_valkey.url)
    config = tmp_path / "bitladder.toml"
    example = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    config.write_text(f'{example}[models.big]\n{table}[[models.big.tiers]]\nname = "one"\n', encoding="utf-8")
    settings = load_settings(str(config), environ={}).settings

    with Producer(settings.at_redis_of("big")) as producer:
        job_id = producer.submit({"model": "big", "prompt": "a"})

    assert own_valkey.settings.url == settings.redis_of("big").url
    assert job_id
