import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.training import fused_lora
from cardioembed.training.dropout import draw_drops, dropped
from cardioembed.training.fused_lora import fuse_lora

TEXTS = ["Severe aortic stenosis.", "No thrombus was seen in the left atrial appendage.", "Bisoprolol"]


def adapted(base, dropout=0.0, **options):
    embedder = load_embedder(str(base), device="cpu", max_length=64)
    torch.manual_seed(0)
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": dropout, "target_modules": "all-linear", **options}
    embedder.model = attach_lora(embedder.model, **lora, base_reference="x", revision=None)
    for name, weight in adapter_weights(embedder.model).items():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return embedder


def step(embedder, **autocast):
    ids, _ = embedder.tokenize(TEXTS)
    with torch.autocast("cpu", **autocast) if autocast else torch.enable_grad():
        vectors = embedder.embed_tokens(ids)
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = {name: weight.grad for name, weight in adapter_weights(embedder.model).items()}
    return vectors.detach(), gradients


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_qwen2", "tiny_qwen3"])
def test_vectors_and_gradients_are_those_of_peft(base, request):
    folder = request.getfixturevalue(base)
    expected, expected_gradients = step(adapted(folder))
    embedder = adapted(folder)
    linears = sum("lora_A" in name for name in adapter_weights(embedder.model))
    assert fuse_lora(embedder.model) == linears > 0
    with embedder.without_adapter():
        base_vectors = embedder.encode(TEXTS)
    vectors, gradients = step(embedder)
    assert torch.allclose(vectors, expected, atol=1e-6)
    assert not torch.allclose(vectors, torch.from_numpy(base_vectors), atol=1e-2)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6), name


def test_bfloat16_autocast_stays_as_near_to_float32_as_peft_does(tiny_bert):
    exact = step(adapted(tiny_bert))[0]
    embedder = adapted(tiny_bert)
    embedder.model.get_base_model().to(torch.bfloat16)
    for weight in adapter_weights(embedder.model).values():
        weight.data = weight.data.float()
    peft = step(embedder, dtype=torch.bfloat16)[0]
    embedder.model.zero_grad()
    fuse_lora(embedder.model)
    vectors, gradients = step(embedder, dtype=torch.bfloat16)
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert (vectors - exact).abs().max() < 1.5 * (peft - exact).abs().max()


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.dense = nn.Linear(size, size)

    def forward(self, x):
        return self.dense(torch.tanh(self.query(x) * self.key(x) + self.value(x)))


def toy(dropout):
    torch.manual_seed(3)
    targets = ["query", "key", "value", "dense"]
    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=dropout, target_modules=targets, init_lora_weights=False)
    return get_peft_model(Attention(12), config).double()


@pytest.mark.parametrize("as_mask", [False, True])
def test_gradients_under_dropout_are_those_of_the_masked_product(monkeypatch, as_mask):
    # a naive run with the same masks; x itself must come back untouched
    masks = []

    def remember(x, rate):
        drops = draw_drops(x, rate)
        mask = torch.zeros(x.numel(), dtype=torch.bool)
        mask[drops] = True
        masks.append(mask.view(x.shape))
        return masks[-1] if as_mask else drops

    monkeypatch.setattr(fused_lora, "draw_drops", remember)
    model = toy(0.3)
    fuse_lora(model)
    x = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    torch.manual_seed(11)
    model(x).square().sum().backward()
    assert torch.equal(x.detach(), before)
    assert len(masks) == 2  # query, key and value share one
    found = {name: weight.grad.clone() for name, weight in adapter_weights(model).items()}
    into_x, x.grad = x.grad, None
    model.zero_grad()

    inner = model.get_base_model()

    def naive(name, inputs, mask):
        layer = getattr(inner, name)
        kept = inputs * ~mask / 0.7
        return layer.base_layer(inputs) + layer.lora_B["default"](layer.lora_A["default"](kept)) * 2

    first, second = masks
    hidden = torch.tanh(naive("query", x, first) * naive("key", x, first) + naive("value", x, first))
    naive("dense", hidden, second).square().sum().backward()
    assert torch.allclose(into_x, x.grad, rtol=1e-10)
    for name, weight in adapter_weights(model).items():
        assert torch.allclose(found[name], weight.grad, rtol=1e-10), name


def test_evaluation_mode_drops_nothing(monkeypatch):
    model = toy(0.5)
    fuse_lora(model)
    monkeypatch.setattr(fused_lora, "draw_drops", lambda *_: pytest.fail("dropout is off"))
    model.eval()
    x = torch.randn(2, 12, dtype=torch.float64)
    assert torch.equal(model(x), model(x))


def test_switched_off_adapters_leave_the_base_alone():
    model = toy(0.0)
    x = torch.randn(2, 12, dtype=torch.float64)
    with model.disable_adapter():
        expected = model(x)
        fuse_lora(model)
        assert torch.equal(model(x), expected)
    assert not torch.allclose(model(x), expected)


def test_quantised_and_dora_linears_are_left_to_peft(tiny_qwen3):
    embedder = adapted(tiny_qwen3, use_dora=True)
    assert fuse_lora(embedder.model) == 0


def test_nothing_is_kept_alive_after_a_pass():
    model = toy(0.0)
    fuse_lora(model)
    inner = model.get_base_model()
    together = inner.query.forward.__closure__
    model(torch.randn(2, 12, dtype=torch.float64))
    shared = next(cell.cell_contents for cell in together if isinstance(cell.cell_contents, fused_lora._Together))
    assert shared.input is None
    assert not shared.outputs


def test_drops_come_at_the_rate_and_independently():
    torch.manual_seed(5)
    x = torch.empty(400, 1000)
    drops = draw_drops(x, 0.05)
    assert torch.all(drops[1:] > drops[:-1])
    assert drops[0] >= 0
    assert drops[-1] < x.numel()
    assert len(drops) / x.numel() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / x.numel()) ** 0.5)
    gaps = drops.diff()
    assert (gaps == 1).double().mean().item() == pytest.approx(0.05, abs=0.006)  # neighbours are no rarer than others
    mask = torch.zeros(x.numel())
    mask[drops] = 1
    by_column = mask.view(x.shape).mean(0)
    assert by_column.std().item() == pytest.approx((0.05 * 0.95 / 400) ** 0.5, rel=0.1)


def test_drops_follow_the_seed():
    x = torch.empty(50, 50)
    torch.manual_seed(1)
    first, second = draw_drops(x, 0.1), draw_drops(x, 0.1)
    torch.manual_seed(1)
    assert torch.equal(draw_drops(x, 0.1), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rate", [0.001, 0.9])
def test_drops_reach_the_end_at_any_rate(rate):
    x = torch.empty(3000, 7)
    last = [int(draw_drops(x, rate)[-1]) for _ in range(20)]
    assert max(last) > x.numel() - 20 / rate


def test_dropped_gives_the_values_back_and_counts_as_no_change():
    x = torch.randn(4, 5)
    before, version = x.clone(), x._version
    drops = torch.tensor([0, 7, 19])
    with dropped(x, drops) as kept:
        assert kept.view(-1)[drops].eq(0).all()
        assert torch.count_nonzero(kept) == 17
    assert torch.equal(x, before)
    assert x._version == version
