"""Every part against the formulas of arXiv 2012.07436, computed number by number in loops."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from torch import nn

from agentlab.nas.config import DataConfig, ModelConfig, TrialConfig
from agentlab.nas.informer.attention import Attention, Sparsity, sample_size
from agentlab.nas.informer.layers import DecoderLayer, Distil, Embedding, EncoderLayer, FeedForward
from agentlab.nas.informer.model import Informer, InformerShape

HEADS, DEPTH = 2, 4
WIDTH = HEADS * DEPTH


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def sparse_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, key_samples: torch.Tensor, *, causal: bool) -> list:
    """One head of algorithm 1: [queries, depth] from [queries, depth] and [keys, depth]."""
    measure = []
    for query, picks in zip(q, key_samples, strict=True):
        scores = [dot(query, k[int(pick)]) for pick in picks]
        measure.append(max(scores) - sum(scores) / len(k))
    selected = sorted(range(len(q)), key=lambda row: -measure[row])[: 1 * math.ceil(math.log(len(q)))]
    result = []
    for row, query in enumerate(q):
        seen = range(row + 1) if causal else range(len(k))
        if row in selected:
            weights = softmax([dot(query, k[key]) / math.sqrt(len(query)) for key in seen])
        else:
            weights = [1.0 if causal else 1 / len(k)] * len(seen)
        result.append([sum(w * float(v[key, d]) for w, key in zip(weights, seen, strict=True)) for d in range(DEPTH)])
    return result


@pytest.mark.parametrize(("causal", "mix"), [(False, False), (True, False), (True, True)])
def test_probsparse_attention_of_the_encoder_and_of_the_decoder(causal, mix):
    torch.manual_seed(1)
    attention = Attention(WIDTH, HEADS, Sparsity(factor=1, dropout=0.0), causal=causal, mix=mix)
    x = torch.randn(2, 12, WIDTH)
    torch.manual_seed(5)
    key_samples = torch.randint(12, (12, sample_size(1, 12)))  # one draw for all windows and heads
    torch.manual_seed(5)
    output = attention(x, x)
    context = torch.empty(2, HEADS, 12, DEPTH)
    for window in range(2):
        for head in range(HEADS):
            mine = slice(head * DEPTH, (head + 1) * DEPTH)
            q, k, v = (
                (x[window] @ part.weight.T + part.bias).detach()[:, mine]
                for part in (attention.query, attention.key, attention.value)
            )
            context[window, head] = torch.tensor(sparse_head(q, k, v, key_samples, causal=causal))
    # Steps first and then heads; the published decoder flattens heads first.
    flat = context.reshape(2, 12, WIDTH) if mix else context.transpose(1, 2).reshape(2, 12, WIDTH)
    assert torch.allclose(output, attention.out(flat), atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
@pytest.mark.parametrize("causal", [False, True])
def test_full_attention(causal, dropout):
    torch.manual_seed(2)
    attention = Attention(WIDTH, HEADS, Sparsity(factor=None, dropout=dropout), causal=causal)
    x = torch.randn(1, 5, WIDTH)
    memory = x if causal else torch.randn(1, 3, WIDTH)
    rows = []
    for row in range(5):
        heads = []
        for head in range(HEADS):
            mine = slice(head * DEPTH, (head + 1) * DEPTH)
            q = attention.query(x)[0, row, mine]
            k, v = attention.key(memory)[0, :, mine], attention.value(memory)[0, :, mine]
            seen = range(row + 1) if causal else range(len(k))
            weights = softmax([dot(q, k[key]) / math.sqrt(DEPTH) for key in seen])
            heads.append(sum(w * v[key] for w, key in zip(weights, seen, strict=True)))
        rows.append(torch.cat(heads))
    assert torch.allclose(attention(x, memory), attention.out(torch.stack(rows))[None], atol=1e-5)


def test_dropping_attention_weights_keeps_their_mean():
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS, Sparsity(factor=None, dropout=0.5), causal=True)
    x = torch.randn(1, 6, WIDTH).expand(4000, -1, -1)
    mean = attention(x, x).mean(dim=0)
    assert torch.allclose(mean, attention.eval()(x[:1], x[:1])[0], atol=0.05)


def test_distilling_is_convolution_batch_norm_elu_and_max_pool():
    torch.manual_seed(3)
    distil = Distil(2).train()
    nn.init.uniform_(distil.norm.weight)
    nn.init.uniform_(distil.norm.bias)
    x = torch.randn(3, 5, 2)
    kernel, bias = distil.convolve.weight, distil.convolve.bias
    convolved = torch.empty(3, 5, 2)
    for window, step, out in ((w, s, o) for w in range(3) for s in range(5) for o in range(2)):
        taps = [dot(kernel[out, :, tap], x[window, (step + tap - 1) % 5]) for tap in range(3)]
        convolved[window, step, out] = bias[out].item() + sum(taps)
    mean, variance = convolved.mean(dim=(0, 1)), convolved.var(dim=(0, 1), correction=0)
    normal = (convolved - mean) / (variance + 1e-5).sqrt() * distil.norm.weight + distil.norm.bias
    bent = torch.where(normal > 0, normal, normal.exp() - 1)
    pooled = [bent[:, max(2 * step - 1, 0) : 2 * step + 2].amax(dim=1) for step in range(3)]
    assert torch.allclose(distil(x), torch.stack(pooled, dim=1), atol=1e-5)
    assert torch.allclose(distil.norm.running_mean, 0.1 * mean, atol=1e-5)  # what scoring uses


def test_the_embedding_sums_convolution_positions_and_time():
    torch.manual_seed(4)
    embedding = Embedding(channels=2, time_channels=3, width=4, length=5, dropout=0.0)
    values, time = torch.randn(1, 5, 2), torch.randn(1, 5, 3)
    expected = torch.empty(5, 4)
    for step in range(5):
        for column in range(4):
            angle = step / 10000 ** (2 * (column // 2) / 4)
            position = math.cos(angle) if column % 2 else math.sin(angle)
            taps = [dot(embedding.value.weight[column, :, tap], values[0, (step + tap - 1) % 5]) for tap in range(3)]
            date = dot(embedding.time.weight[column], time[0, step]) + embedding.time.bias[column].item()
            expected[step, column] = sum(taps) + embedding.value.bias[column].item() + position + date
    assert torch.allclose(embedding(values, time)[0], expected, atol=1e-5)


def test_layers_add_and_normalise_and_the_feed_forward_part_bends_by_the_exact_gelu():
    torch.manual_seed(6)
    config = ModelConfig(d_model=8, n_heads=2, ff_multiplier=2, dropout=0.0, attention="full")
    encoder, decoder = EncoderLayer(config), DecoderLayer(config)
    x, memory = torch.randn(2, 6, 8), torch.randn(2, 3, 8)

    def feed(layer: FeedForward, rows: torch.Tensor) -> torch.Tensor:
        wide = layer.widen(rows)
        return layer.narrow(0.5 * wide * (1 + torch.erf(wide / math.sqrt(2))))

    once = encoder.norm1(x + encoder.attention(x, x))
    assert torch.allclose(encoder(x), encoder.norm2(once + feed(encoder.feed_forward, once)), atol=1e-5)
    once = decoder.norm1(x + decoder.attention(x, x))
    twice = decoder.norm2(once + decoder.cross(once, memory))
    assert torch.allclose(decoder(x, memory, 6), decoder.norm3(twice + feed(decoder.feed_forward, twice)), atol=1e-5)


def test_cross_attention_is_full_and_sees_every_step_of_the_encoder_also_with_probsparse():
    torch.manual_seed(7)
    layer = DecoderLayer(ModelConfig(d_model=8, n_heads=2, ff_multiplier=1, dropout=0.0, factor=1))
    assert layer.cross.sparsity.factor is None
    x, memory = torch.randn(1, 9, 8), torch.randn(1, 20, 8, requires_grad=True)
    layer.cross(x, memory)[0, 0].sum().backward()
    assert memory.grad is not None
    assert memory.grad[0].abs().sum(dim=-1).gt(0).all()  # the first step looks at the last key as well


def test_weights_start_as_the_authors_do():
    torch.manual_seed(0)
    embedding = Embedding(channels=7, time_channels=4, width=512, length=2, dropout=0.0)
    # Normal with variance 2 / (channels * kernel) for the values; torch's defaults everywhere else.
    assert embedding.value.weight.std().item() == pytest.approx(math.sqrt(2 / 21), rel=0.03)
    assert embedding.time.weight.abs().max().item() <= 1 / math.sqrt(4)
    distil, plain = Distil(64).convolve, nn.Conv1d(64, 64, 3)
    assert distil.weight.std().item() == pytest.approx(plain.weight.std().item(), rel=0.03)


def test_the_published_network_has_11_33_million_weights():
    trial = TrialConfig(data=DataConfig(input_length=96, label_share=0.5), model=ModelConfig(faithful=True))
    model = Informer(trial, InformerShape(channels=7, time_channels=4, targets=tuple(range(7))))
    assert sum(weight.numel() for weight in model.parameters()) == 11_330_055


def small(attention: str, label_share: float, horizon: int, **model) -> Informer:
    config = {"d_model": 8, "n_heads": 2, "ff_multiplier": 1, "factor": 1, "attention": attention, **model}
    data = DataConfig(input_length=48, horizon=horizon, label_share=label_share)
    return Informer(TrialConfig(data=data, model=ModelConfig(**config)), InformerShape(2, 4, (0, 1)))


@pytest.mark.parametrize("attention", ["prob", "full"])
@pytest.mark.parametrize("faithful", [False, True])
def test_scoring_does_not_depend_on_the_generator_and_training_does(attention, faithful):
    torch.manual_seed(0)
    model = small(attention, 0.5, 6, dropout=0.2, faithful=faithful)
    window, time = torch.randn(4, 48, 2), torch.randn(4, 54, 4)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append((model.train()(window, time), model.eval()(window, time)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.equal(outputs[0][0], outputs[2][0])


@pytest.mark.parametrize("faithful", [False, True])
def test_two_scoring_passes_agree_whatever_the_seed(faithful):
    torch.manual_seed(0)
    model = small("prob", 0.5, 6, dropout=0.2, faithful=faithful).eval()
    window, time = torch.randn(4, 48, 2), torch.randn(4, 54, 4)
    torch.manual_seed(1)
    first = model(window, time)
    torch.manual_seed(2)
    assert torch.equal(model(window, time), first)


@pytest.mark.parametrize("attention", ["prob", "full"])
@pytest.mark.parametrize("label_share", [0.0, 0.02, 1.0])
def test_one_step_ahead_trains_and_reaches_every_weight_that_matters(attention, label_share):
    torch.manual_seed(0)
    model = small(attention, label_share, 1, dropout=0.0).train()
    window, time = torch.randn(3, 48, 2), torch.randn(3, 49, 4)
    F.mse_loss(model(window, time), torch.randn(3, 1, 2)).backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert model.encoder_embedding.value.weight.grad.abs().sum() > 0
    assert model.eval()(window, time).shape == (3, 1, 2)
