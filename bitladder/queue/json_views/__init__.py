"""Jobs, dead letters and queues as JSON: what the HTTP interface and the command line show. Prompts are never shown."""
