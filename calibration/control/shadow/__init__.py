"""Loss labels of live traffic: a share of what low tiers answered is run again in idle slots."""
