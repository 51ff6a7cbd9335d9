"""The error of a measurement to which nobody answered."""

from agentlab.bench.failures import Failed, no_answer_error


def test_it_names_what_failed_most_and_its_remedy():
    failures = [
        Failed("a", "LLMTimeoutError", "No first token.", 2),
        Failed("b", "LLMConnectionError", "Cannot connect to b.", 3),
        Failed("c", "LLMConnectionError", "Cannot connect to c.", 4),
    ]
    error = no_answer_error(failures, "runs/x/report.md")
    assert error.exit_code == 4
    assert "7 of 9 failed with LLMConnectionError; for example, c: Cannot connect to c." in error.message
    assert "server is running" in error.hint
    assert "runs/x/report.md" in error.hint
    assert error.failures[0] == "a: LLMTimeoutError: No first token."


def test_a_remedy_of_its_own_goes_before_the_rule():
    error = no_answer_error([Failed("a", "AuthError", "HTTP 401.", 1, "Check A_KEY.")], "r")
    assert error.hint.startswith("Check A_KEY.")


def test_where_keys_are_all_that_is_missing_it_exits_like_any_missing_key():
    keys = [Failed("a", "MissingKeyError", "A_KEY is not set."), Failed("b", "MissingFileError", "There is no b.gguf.")]
    error = no_answer_error(keys, "runs/x/report.md")
    assert error.exit_code == 3
    assert "A_KEY is not set." in error.message
    assert no_answer_error([*keys, Failed("c", "AuthError", "HTTP 401.")], "r").exit_code == 4
