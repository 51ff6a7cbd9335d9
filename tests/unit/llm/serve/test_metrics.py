import re

from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.serve.metrics import OK, GatewayMetrics
from agentlab.llm.types import Usage

LINE = re.compile(r'(?P<name>[a-z_]+)(\{(?P<labels>([a-z_]+="(\\[\\"n]|[^"\\\n])*",?)*)\})? (?P<value>\S+)')


def values(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_requests_tokens_and_spend():
    metrics = GatewayMetrics()
    metrics.count("chat", "a", OK, 0.2, Usage(10, 5, 0.5))
    metrics.count("chat", "a", OK, 0.2, Usage(1, 1, 0.25))
    metrics.count("chat", "b", "LLMTimeoutError", 3.0)
    samples = values(metrics.text({}))
    assert samples['agentlab_requests_total{endpoint="chat",model="a",outcome="ok"}'] == 2
    assert samples['agentlab_requests_total{endpoint="chat",model="b",outcome="LLMTimeoutError"}'] == 1
    assert samples['agentlab_tokens_total{model="a",direction="input"}'] == 11
    assert samples['agentlab_spend_usd_total{model="a"}'] == 0.75


def test_an_unknown_cost_is_counted_as_unknown():
    metrics = GatewayMetrics()
    metrics.count("chat", "a", OK, 0.2, Usage(10, 5))
    samples = values(metrics.text({}))
    assert samples['agentlab_unpriced_requests_total{model="a"}'] == 1
    assert not any("spend" in name for name in samples)


def test_the_histogram_adds_up():
    metrics = GatewayMetrics()
    for seconds in (0.05, 0.06, 400.0):
        metrics.count("chat", "a", OK, seconds)
    samples = values(metrics.text({}))
    buckets = [value for name, value in samples.items() if 'bucket{endpoint="chat"' in name]
    assert buckets == sorted(buckets)
    assert samples['agentlab_request_seconds_bucket{endpoint="chat",le="0.05"}'] == 1
    assert samples['agentlab_request_seconds_bucket{endpoint="chat",le="0.1"}'] == 2
    assert samples['agentlab_request_seconds_bucket{endpoint="chat",le="+Inf"}'] == 3
    assert samples['agentlab_request_seconds_count{endpoint="chat"}'] == 3
    assert samples['agentlab_request_seconds_sum{endpoint="chat"}'] == 400.11


def test_the_state_of_a_breaker_is_one_of_all():
    samples = values(GatewayMetrics().text({"a": "open"}))
    states = {name: value for name, value in samples.items() if name.startswith("agentlab_model_state")}
    assert [name for name, value in states.items() if value] == ['agentlab_model_state{model="a",state="open"}']
    assert len(states) == 5


@given(st.text())
def test_no_name_breaks_the_page(name):
    metrics = GatewayMetrics()
    metrics.count("chat", name, OK, 1.0, Usage(1, 1, 1.0))
    for line in metrics.text({name: "closed"}).removesuffix("\n").split("\n"):
        assert line.startswith("# ") or LINE.fullmatch(line)
