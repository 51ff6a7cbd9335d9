"""`agentlab serve`: an OpenAI-compatible gateway over the router.

names       what a client may call `model`
call        what the dialects share: strict documents in, one kind of call to the router, JSON and events out; pure
chat        chat completions and legacy completions; pure
responses   responses (`responses_reply`: the answer); pure
embeddings  vectors; pure
faults      errors as HTTP statuses and OpenAI's error document; pure
metrics     counters in Prometheus' text format
connection  uvicorn's connection, with deadlines and a bound on their number
gate        who is let in: browsers' pages, tokens, circles, bodies within bounds, and how many at a time
app         the routes
run         the socket, the checks before the start, the signals
"""
