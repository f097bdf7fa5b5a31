"""What overflow moves, and what it costs."""

from __future__ import annotations

from monitoring.board import Board, figure, graph
from monitoring.queries import SCOPE, rate, share, total

# Of what the dearest tier would ask for each token.
_DEAREST = f"max({rate('bitladder_cost_total')} / {rate('bitladder_tokens_total')})"

COSTS = Board(
    "costs",
    "overflow and costs",
    "Which jobs do higher tiers take, and what does that cost?",
    {
        "Overflow": [
            graph(
                "Overflow",
                {"{{origin}} to {{tier}}": rate("bitladder_jobs_overflowed_total", "origin, tier")},
                "Jobs of lower tiers that a tier served: bitladder_jobs_overflowed_total",
                "reqps",
                "No overflow",
            ),
            graph(
                "Share that came from below",
                {"{{tier}}": share("bitladder_jobs_overflowed_total", "bitladder_run_seconds_count")},
                "Which part of a tier's jobs came from lower tiers: "
                "bitladder_jobs_overflowed_total, bitladder_run_seconds",
                "percentunit",
                "No overflow",
            ),
            graph(
                "Below their floor",
                {"{{origin}} to {{tier}}": rate("bitladder_jobs_below_floor_total", "origin, tier")},
                "Jobs that a lower tier served, with their clients' consent: bitladder_jobs_below_floor_total",
                "reqps",
                "No consent was used",
            ),
        ],
        "Costs, in the currency of the prices": [
            graph(
                "Rent an hour",
                {"{{tier}}": f"3600 * {rate('bitladder_rent_total')}"},
                "What the workers' time costs, idle or not: bitladder_rent_total",
                "short",
                "No prices",
            ),
            graph(
                "Cost an hour, by tenant",
                {"{{tenant}}": f"3600 * {rate('bitladder_cost_total', 'tenant')}"},
                "The part of the engines' time that each tenant's jobs used: bitladder_cost_total",
                "short",
                "No prices",
            ),
            graph(
                "Cost of 1,000 jobs",
                {"{{tier}}": f"1000 * {share('bitladder_cost_total', 'bitladder_run_seconds_count')}"},
                "bitladder_cost_total by bitladder_run_seconds",
                "short",
                "No prices",
            ),
            graph(
                "Cost of a million tokens",
                {"{{tier}}": f"1e6 * {share('bitladder_cost_total', 'bitladder_tokens_total')}"},
                "Read and written ones alike: bitladder_cost_total by bitladder_tokens_total",
                "short",
                "No prices",
            ),
            graph(
                "Used part of the rent",
                {"{{tier}}": share("bitladder_cost_total", "bitladder_rent_total")},
                "Which part of what is paid for jobs have used: bitladder_cost_total by bitladder_rent_total",
                "percentunit",
                "No prices",
            ),
            graph(
                "Saved an hour",
                {"saved": f"3600 * ({_DEAREST} * {total('bitladder_tokens_total')} - {total('bitladder_cost_total')})"},
                "What all tokens would have cost at the tier whose tokens are dearest now, less what they cost "
                "(`bitladder costs` shows days): bitladder_cost_total, bitladder_tokens_total",
                "short",
                "No prices",
            ),
            figure(
                "Rent, chosen time",
                f"sum(increase(bitladder_rent_total{{{SCOPE}}}[$__range]))",
                "bitladder_rent_total",
                "short",
                "No prices",
            ),
            figure(
                "Cost, chosen time",
                f"sum(increase(bitladder_cost_total{{{SCOPE}}}[$__range]))",
                "bitladder_cost_total",
                "short",
                "No prices",
            ),
        ],
        "Tokens": [
            graph(
                "By tenant",
                {"{{tenant}}": rate("bitladder_tenant_tokens_total", "tenant")},
                "Read and written tokens a second; the 50 that use most by name: bitladder_tenant_tokens_total",
                "short",
            ),
            graph(
                "Tokens",
                {"{{tier}} {{kind}}": rate("bitladder_tokens_total", "tier, kind")},
                "Tokens that were read and written, in a second: bitladder_tokens_total",
            ),
        ],
    },
)
