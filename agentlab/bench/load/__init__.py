"""How fast models answer under load: stages of requests, each one timed, and what follows from them."""
