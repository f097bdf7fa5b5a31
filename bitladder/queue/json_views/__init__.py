"""Jobs, dead letters and queues as JSON: what the HTTP interface and the command line show.

Prompts are shown in one place alone: of a dead letter, to an operator who asks for that one.
"""
