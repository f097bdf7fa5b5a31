"""What API keys may spend in a day: charged as an intake does at arrival (budget.lua) and as workers do at the end.

All workers send what they have spent, and the intake reads what was measured, at the beginning of each second.
"""

from __future__ import annotations

from bitladder.queue.calls.spending import Spent, pace_key, spend_call
from bitladder.queue.calls.upkeep import budget_call
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.routing.cost import Paces, concurrency_of, expected_cost, price_of, read_paces
from bitladder.settings.access import KeySettings, Scope
from bitladder.settings.sections import Settings
from calibration.simulation.scripted.script_runner import ScriptRunner
from calibration.simulation.simulated_work import Work, Worker


def payers_of(settings: Settings) -> dict[str, str]:
    """Return by tenant the API key that pays for its requests, where they have a budget.

    Of several keys that may submit it is the one with the most, and none where one of them has no budget.
    """
    keys: dict[str, dict[str, KeySettings]] = {}
    for name, key in settings.auth.keys.items():
        if Scope.SUBMIT in key.scopes:
            keys.setdefault(key.tenant, {})[name] = key
    return {
        tenant: max(named, key=lambda name: named[name].budget_per_day or 0.0)
        for tenant, named in keys.items()
        if all(key.budget_per_day for key in named.values())
    }


def measured_by(runner: ScriptRunner, model: str, tier: str) -> Paces:
    """Return what a tier's workers have sent."""
    words = [str(word).encode() for word in runner.call("HGETALL", pace_key(model, tier)).values()]
    return read_paces(dict(zip(words[::2], words[1::2], strict=True)))


class KeyBudgets:
    """The budgets of one run's keys."""

    def __init__(self, settings: Settings, model: str, runner: ScriptRunner, work: Work, epoch_ms: int) -> None:
        self._runner, self._work, self._model, self._epoch_ms = runner, work, model, epoch_ms
        self._tiers, self._keys = settings.models[model].tiers, settings.auth.keys
        self._payers = payers_of(settings)
        self._charged: dict[int, tuple[str, float]] = {}  # by job: who pays, and what it is expected to cost
        self._spent: dict[Worker, Spent] = {}  # since the last second began
        self._expected = [0.0] * len(self._tiers)
        self._second = 0
        if self._payers:
            work.over_budget = 0

    def refuses(self, job: int, tenant: str, now_s: float) -> bool:
        """Charge the budget of a job's key with what it is expected to cost; return whether that is too much."""
        payer = self._payers.get(tenant or DEFAULT_TENANT)
        if payer is None:
            return False
        self._settle(now_s)
        expected = self._expected[self._work.rank[job]]
        if self._charge(payer, expected, self._keys[payer].budget_per_day, now_s):
            self._work.over_budget = (self._work.over_budget or 0) + 1
            return True
        self._charged[job] = payer, expected
        return False

    def give_up(self, job: int, now_s: float) -> None:
        """Take the charge of a job back that was not queued."""
        if job in self._charged:
            payer, expected = self._charged.pop(job)
            self._charge(payer, -expected, None, now_s)

    def end(self, worker: Worker, job: int, now_s: float, *, is_served: bool) -> None:
        """Add what a job has cost, and how fast it was, to what its worker sends."""
        if not self._payers:
            return
        self._settle(now_s)
        spent = self._spent.setdefault(worker, Spent(number=self._second + 1))
        share_s, run_s = self._work.share_s[job], now_s - self._work.begun_s[job]
        if job in self._charged:
            payer, expected = self._charged.pop(job)
            cost = price_of(share_s, self._tiers[worker.rank].price_per_hour)
            spent.add_payer(payer, self._epoch_ms + int(self._work.at_s[job] * 1000), cost - expected)
        tokens = int(self._work.output_tokens[job]) if is_served else 0
        if tokens and share_s > 0:
            spent.add_pace(concurrency_of(run_s, share_s), tokens, share_s, run_s)

    def _charge(self, payer: str, amount: float, budget: float | None, now_s: float) -> bool:
        return bool(self._runner.run(budget_call(payer, amount, budget), self._ms(now_s))[1])

    def _settle(self, now_s: float) -> None:
        """Send what workers have spent in the seconds before, and read what was measured."""
        if int(now_s) == self._second:
            return
        self._second = int(now_s)
        for worker, spent in self._spent.items():
            tier = self._tiers[worker.rank].name
            self._runner.run(spend_call(f"worker-{worker.number}", self._model, tier, spent), self._ms(now_s))
        self._spent.clear()
        self._expected = [
            expected_cost(tier.price_per_hour, measured_by(self._runner, self._model, tier.name), None) or 0.0
            for tier in self._tiers
        ]

    def _ms(self, now_s: float) -> int:
        return self._epoch_ms + int(now_s * 1000)
