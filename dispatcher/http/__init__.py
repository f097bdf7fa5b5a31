"""HTTP for every route: the server and its protocol, reading requests, answers, errors, and the shutdown."""
