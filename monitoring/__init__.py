"""Dashboards and alerts. Nothing of bitladder is imported: only the names of its metrics are known here."""
