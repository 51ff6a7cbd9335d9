"""`agentlab serve`: an OpenAI-compatible gateway over the router.

names       what a client may call `model`
requests    OpenAI's request documents, checked and translated; pure
replies     answers, pieces of answers and vectors as OpenAI's documents and events; pure
faults      errors as HTTP statuses and OpenAI's error document; pure
metrics     counters in Prometheus' text format
gate        who is let in: browsers' pages, tokens, circles, and how many at a time
app         the routes
run         the socket, the checks before the start, the signals
"""
