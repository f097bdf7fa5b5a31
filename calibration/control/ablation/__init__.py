"""Quality against cost of every policy, on labels that none of them was fitted on."""
