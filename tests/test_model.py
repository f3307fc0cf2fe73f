"""The model against transformers on the same weights; its start, its properties, its errors."""

from __future__ import annotations

import ast
import math
import re
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import gptlib.model
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import (
    GELU,
    GPT,
    CausalSelfAttention,
    FeedForward,
    LayerNorm,
    TransformerBlock,
    check_ids,
    initialize,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices gain nothing from a second thread, and wait for it where tests share cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TOLERANCE = 1e-4  # logits: largest absolute difference; gradients: relative, see gradients_agree

# ---------------------------------------------------------------------------------------------
# The same weights in both libraries


# Our name of a parameter, its name in transformers. There a linear layer is a "Conv1D", whose
# weight is stored (in, out): transposed. The head and the embeddings are stored as ours are.
NAMES = {
    r"token_embedding\.weight": "transformer.wte.weight",
    r"position_embedding\.weight": "transformer.wpe.weight",
    r"blocks\.(\d+)\.norm_([12])\.scale": r"transformer.h.\1.ln_\2.weight",
    r"blocks\.(\d+)\.norm_([12])\.shift": r"transformer.h.\1.ln_\2.bias",
    r"blocks\.(\d+)\.attention\.query_key_value\.(.*)": r"transformer.h.\1.attn.c_attn.\2",
    r"blocks\.(\d+)\.attention\.projection\.(.*)": r"transformer.h.\1.attn.c_proj.\2",
    r"blocks\.(\d+)\.feed_forward\.expand\.(.*)": r"transformer.h.\1.mlp.c_fc.\2",
    r"blocks\.(\d+)\.feed_forward\.projection\.(.*)": r"transformer.h.\1.mlp.c_proj.\2",
    r"final_norm\.scale": "transformer.ln_f.weight",
    r"final_norm\.shift": "transformer.ln_f.bias",
    r"output_head\.weight": "lm_head.weight",
}


def in_pairs(ours, theirs):
    """Return (name, our parameter, theirs turned the way ours is), and leave none of theirs out."""
    named, pairs = dict(theirs.named_parameters()), []
    for name, parameter in ours.named_parameters():
        (matches,) = [(old, new) for old, new in NAMES.items() if re.fullmatch(old, name)]
        their_name = re.sub(*matches, name)
        pairs.append((name, parameter, named.pop(their_name), ".c_" in their_name))
    left_out = {name for name in named if ours.config.qkv_bias or ".c_attn.bias" not in name}
    assert not left_out
    return pairs


def turned(tensor, is_conv1d):
    return tensor.T if is_conv1d and tensor.ndim == 2 else tensor


@torch.no_grad()
def transformers_twin(ours, attention="sdpa"):
    """Build transformers' GPT-2 with the weights of our model; nothing is downloaded."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = ours.config
    their_config = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.emb_dim,
        n_head=config.n_heads,
        n_layer=config.n_layers,
        resid_pdrop=config.drop_rate,
        embd_pdrop=config.drop_rate,
        attn_pdrop=config.drop_rate,
        tie_word_embeddings=config.tie_head,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    with torch.device("meta"):  # their random start would be overwritten
        theirs = GPT2LMHeadModel(their_config).train(ours.training)
    theirs.to_empty(device="cpu").tie_weights()
    for name, parameter in theirs.named_parameters():
        if name.endswith("c_attn.bias"):
            parameter.zero_()  # stays so where ours has none
    for _, our_parameter, their_parameter, is_conv1d in in_pairs(ours, theirs):
        their_parameter.copy_(turned(our_parameter, is_conv1d))
    return theirs


@torch.no_grad()
def enliven(model, seed=0):
    """Give every parameter random values large enough that each term of the formula shows.

    With GPT-2's start, biases are 0 and scales 1, so that a test would not see them swapped or
    left out, and attention is almost uniform. Embeddings stay small, as they are at the start:
    there eps counts. The large last scale makes up for it in the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        std, mean = 0.1, float(name.endswith("scale"))
        if name == "final_norm.scale":
            mean = 5.0
        if parameter.ndim == 2:
            embedding = name.startswith(("token_embedding", "position_embedding"))
            std = 0.02 if embedding else 1 / math.sqrt(parameter.shape[1])
        parameter.normal_(mean, std, generator=generator)
    return model


def random_ids(config, batch, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, length), generator=generator)


def largest_difference(ours, theirs, ids):
    with torch.no_grad():
        our_logits, their_logits = ours(ids), theirs(ids, use_cache=False).logits
    assert our_logits.shape == their_logits.shape == (*ids.shape, ours.config.vocab_size)
    assert our_logits.dtype == torch.float32
    # Agreement counts only if the logits are not all about 0.
    assert their_logits.std(-1).mean() > 0.5
    return (our_logits - their_logits).abs().max().item()


def gradients_agree(ours, theirs, ids):
    """Compare the gradients of the mean cross-entropy of the next token, all parameters.

    A parameter's difference is relative: the norm of ours minus theirs over the norm of theirs.
    """
    for model in (ours, theirs):
        model.zero_grad()
    logits = ours(ids)[:, :-1]  # (B, T - 1, V)
    loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    their_loss = theirs(ids, labels=ids, use_cache=False).loss
    their_loss.backward()
    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-5)
    for name, our_parameter, their_parameter, is_conv1d in in_pairs(ours, theirs):
        expected = turned(their_parameter.grad, is_conv1d)
        difference = (our_parameter.grad - expected).norm() / expected.norm()
        assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def tiny(name):
    """Return the configuration of a GPT-2 size, small: heads and context are its own.

    A twelfth of the layers and a sixteenth of the width keep the ratios of the four sizes: each
    head has 4 channels where GPT-2 has 64. So 12, 16, 20 and the odd 25 heads are all there.
    """
    full = FAMILY[name]
    return GPTConfig(
        vocab_size=307,
        context_length=full.context_length,
        emb_dim=full.emb_dim // 16,
        n_heads=full.n_heads,
        n_layers=full.n_layers // 12,
        drop_rate=0.0,
    )


GPT2_SIZES = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]


@pytest.fixture(scope="module")
def tiny_twins():
    built = {}

    def get(name):
        if name not in built:
            ours = enliven(GPT(tiny(name)))
            built[name] = ours, transformers_twin(ours)
        return built[name]

    return get


@pytest.fixture(scope="session")
def full_twins():
    """Return GPT-2 with all its 124 million parameters, and transformers' with the same."""
    ours = enliven(GPT(GPTConfig(drop_rate=0.0)))
    return ours, transformers_twin(ours)


# ---------------------------------------------------------------------------------------------
# Parity with transformers


@pytest.mark.parametrize("length", [1, 2, 63, 1024])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", GPT2_SIZES)
def test_logits_of_tiny_models_are_those_of_transformers(tiny_twins, name, batch, length):
    ours, theirs = tiny_twins(name)
    ids = random_ids(ours.config, batch, length)
    assert largest_difference(ours, theirs, ids) <= TOLERANCE


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 63), (1, 1024)])
@pytest.mark.parametrize("name", GPT2_SIZES)
def test_gradients_of_tiny_models_are_those_of_transformers(tiny_twins, name, batch, length):
    ours, theirs = tiny_twins(name)
    gradients_agree(ours, theirs, random_ids(ours.config, batch, length))


# By day one case shows that nothing is particular to the size; the tiny twins above have them all.
ALL_SHAPES = [(1, 1), (3, 1), (1, 2), (3, 2), (1, 63), (1, 1024), (3, 1024)]


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("batch", "length"),
    [(3, 63), *(pytest.param(*shape, marks=pytest.mark.slow) for shape in ALL_SHAPES)],
)
def test_logits_of_the_full_124m_are_those_of_transformers(full_twins, batch, length):
    ours, theirs = full_twins
    ids = random_ids(ours.config, batch, length)
    assert largest_difference(ours, theirs, ids) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.parametrize(("batch", "length"), [(1, 63), (3, 2), (3, 63), (1, 1024), (3, 1024)])
def test_gradients_of_the_full_124m_are_those_of_transformers(full_twins, batch, length):
    ours, theirs = full_twins
    gradients_agree(ours, theirs, random_ids(ours.config, batch, length))
    for model in full_twins:
        model.zero_grad()  # a gigabyte


@pytest.mark.parametrize(
    "change",
    [{"tie_head": False}, {"qkv_bias": False}, {"tie_head": False, "qkv_bias": False}],
    ids=str,
)
def test_variants_are_those_of_transformers(change):
    config = GPTConfig(101, 64, 48, 3, 2, drop_rate=0.0, **change)
    ours = enliven(GPT(config))
    theirs = transformers_twin(ours)
    ids = random_ids(config, 2, 64)
    assert largest_difference(ours, theirs, ids) <= TOLERANCE
    gradients_agree(ours, theirs, ids)


def test_the_formula_written_out_agrees_too(tiny_twins):
    """Both call PyTorch's fused attention by default; transformers' "eager" form does not."""
    ours, _ = tiny_twins("gpt2")
    theirs = transformers_twin(ours, attention="eager")
    ids = random_ids(ours.config, 3, 63)
    assert largest_difference(ours, theirs, ids) <= TOLERANCE
    gradients_agree(ours, theirs, ids)


def test_dropout_is_where_transformers_has_it():
    """From the same seed both drop the same values: same places, same rates, same order."""
    config = GPTConfig(101, 64, 48, 3, 2, drop_rate=0.25)
    ours = enliven(GPT(config))
    theirs = transformers_twin(ours)
    ids = random_ids(config, 2, 64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        logits = ours(ids)
        torch.manual_seed(0)
        expected = theirs(ids, use_cache=False).logits
    assert (logits - expected).abs().max() <= TOLERANCE
    assert (logits - ours.eval()(ids)).abs().max() > 0.1


def test_the_comparison_sees_every_parameter(tiny_twins):
    ours, theirs = tiny_twins("gpt2")
    ids = random_ids(ours.config, 1, 63)
    for _, parameter in ours.named_parameters():
        with torch.no_grad():
            before = parameter.clone()
            parameter += 0.1 * torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
            seen = largest_difference(ours, theirs, ids)
            parameter.copy_(before)
        assert seen > 10 * TOLERANCE
    assert largest_difference(ours, theirs, ids) <= TOLERANCE


# ---------------------------------------------------------------------------------------------
# The blocks


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
def test_layer_norm_is_the_formula(shape):
    norm = enliven(LayerNorm(8))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    expected = (x - mean) / torch.sqrt(variance + 1e-5) * norm.scale + norm.shift
    torch.testing.assert_close(norm(x), expected)


def test_layer_norm_eps_is_gpt2_s():
    x = torch.tensor([[-1e-3, 1e-3]])  # variance 1e-6, a tenth of eps
    expected = x / math.sqrt(1.1e-5)
    torch.testing.assert_close(LayerNorm(2)(x), expected)
    assert LayerNorm(2, eps=1e-12)(x).abs().min() > 0.99


def test_gelu_is_the_tanh_form():
    x = torch.linspace(-6, 6, 101)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(GELU()(x), expected, atol=1e-6, rtol=1e-5)
    assert (GELU()(x) - functional.gelu(x)).abs().max() > 1e-4  # not the exact one


def test_attention_is_the_formula_head_by_head():
    config = GPTConfig(emb_dim=12, n_heads=3, drop_rate=0.0)
    attention = enliven(CausalSelfAttention(config))
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    projected = x @ attention.query_key_value.weight.T + attention.query_key_value.bias
    heads = []
    for head in range(3):
        query, key, value = (
            projected[..., part * 12 + head * 4 : part * 12 + head * 4 + 4] for part in range(3)
        )
        scores = query @ key.transpose(1, 2) / math.sqrt(4)
        scores += torch.full((5, 5), -torch.inf).triu(1)
        heads.append(scores.softmax(-1) @ value)
    joined = torch.cat(heads, -1)
    expected = joined @ attention.projection.weight.T + attention.projection.bias
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_a_block_is_two_shortcuts():
    config = GPTConfig(emb_dim=12, n_heads=3, drop_rate=0.0)
    block = enliven(TransformerBlock(config))
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    y = x + block.attention(block.norm_1(x))
    torch.testing.assert_close(block(x), y + block.feed_forward(block.norm_2(y)))
    assert block(x).shape == x.shape


def test_feed_forward_widens_four_times_and_sees_each_position_alone():
    feed_forward = enliven(FeedForward(GPTConfig(emb_dim=12, n_heads=3, drop_rate=0.0)))
    assert feed_forward.expand.out_features == 48
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feed_forward(x)[:, 2], feed_forward(x[:, 2]), atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------------------------------------
# The start


def expected_std(name, n_layers):
    """Return GPT-2's standard deviation of a weight (OpenAI's model.py; the report, 2.3)."""
    if name == "position_embedding.weight":
        return 0.01
    if name.endswith("projection.weight"):
        return 0.02 / math.sqrt(2 * n_layers)
    return 0.02


@pytest.mark.parametrize("n_layers", [1, 2, 12])
@pytest.mark.parametrize("tie_head", [True, False])
def test_initial_weights_are_gpt2_s(n_layers, tie_head):
    config = GPTConfig(300, 200, 128, 4, n_layers, tie_head=tie_head)
    model = GPT(config, torch.Generator().manual_seed(0))
    seen = set()
    for name, parameter in model.named_parameters():
        values = parameter.detach().double().flatten()
        if name.endswith("scale"):
            assert (values == 1).all()
            continue
        if name.endswith(("shift", "bias")):
            assert (values == 0).all()
            continue
        std, n = expected_std(name, n_layers), len(values)
        # Of n normal values the mean is off by std / sqrt(n), the deviation by std / sqrt(2n).
        assert abs(values.mean()) < 5 * std / math.sqrt(n), name
        assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * n), name
        within_one = (values.abs() < std).double().mean()  # a normal distribution: 68.27%
        assert abs(within_one - 0.6827) < 5 * 0.4655 / math.sqrt(n), name
        seen.add(tuple(values[:4].tolist()))
    assert len(seen) == 2 + 4 * n_layers + (not tie_head)  # no two alike


def test_the_same_seed_builds_the_same_model():
    config = GPTConfig(300, 20, 16, 4, 2)
    first, second, other = (GPT(config, torch.Generator().manual_seed(s)) for s in (7, 7, 8))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not torch.equal(first.token_embedding.weight, other.token_embedding.weight)


def test_with_a_generator_torch_s_own_decides_nothing():
    """PyTorch's layers draw numbers from it first, which initialize overwrites, every one."""
    models = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            models.append(GPT(GPTConfig(300, 20, 16, 4, 2), torch.Generator().manual_seed(7)))
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_without_a_generator_torch_s_own_is_used():
    config = GPTConfig(30, 20, 16, 4, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = GPT(config)
        torch.manual_seed(3)
        second = GPT(config)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_initialize_starts_a_used_model_anew():
    config = GPTConfig(30, 20, 16, 4, 2)
    model = enliven(GPT(config))
    initialize(model, torch.Generator().manual_seed(7))
    fresh = GPT(config, torch.Generator().manual_seed(7))
    assert all(map(torch.equal, model.parameters(), fresh.parameters()))


def test_a_new_model_trains_on_ordinary_leaves():
    model = GPT(GPTConfig(30, 20, 16, 4, 2))
    assert model.training
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert not list(model.buffers())


def test_a_tied_head_is_the_same_matrix():
    tied, untied = (GPT(GPTConfig(30, 20, 16, 4, 2, tie_head=tie)) for tie in (True, False))
    assert tied.output_head.weight is tied.token_embedding.weight
    assert not torch.equal(untied.output_head.weight, untied.token_embedding.weight)
    copy = GPT(tied.config)
    copy.load_state_dict(tied.state_dict())
    assert copy.output_head.weight is copy.token_embedding.weight
    assert torch.equal(copy.output_head.weight, tied.output_head.weight)


def test_a_new_model_finds_every_token_about_as_likely():
    config = GPTConfig(300, 64, 128, 4, 4)
    model = GPT(config, torch.Generator().manual_seed(0)).eval()
    ids = random_ids(config, 4, 64)
    loss = functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(300), abs=0.1)


# ---------------------------------------------------------------------------------------------
# Properties


@st.composite
def models(draw, drop_rate=0.0, min_width=1, min_context=1):
    """Draw a small model of any shape, with lively weights, in eval mode."""
    n_heads = draw(st.integers(1, 4))
    config = GPTConfig(
        vocab_size=draw(st.integers(2, 40)),
        context_length=draw(st.integers(min_context, 20)),
        emb_dim=n_heads * draw(st.integers(min_width, 9)),
        n_heads=n_heads,
        n_layers=draw(st.integers(1, 3)),
        drop_rate=drop_rate,
        qkv_bias=draw(st.booleans()),
        tie_head=draw(st.booleans()),
    )
    return enliven(GPT(config), seed=draw(st.integers(0, 99))).eval()


@torch.no_grad()
@given(st.data())
def test_no_logit_depends_on_a_later_token(data):
    model = data.draw(models(min_context=2))
    length = data.draw(st.integers(2, model.config.context_length))
    cut = data.draw(st.integers(1, length - 1))
    ids = random_ids(model.config, 2, length)
    changed = ids.clone()
    changed[:, cut:] = random_ids(model.config, 2, length - cut, seed=1)
    # Bit for bit: a masked weight is exactly 0, and the same sums run in the same order.
    assert torch.equal(model(ids)[:, :cut], model(changed)[:, :cut])
    # Alone, the beginning makes matrices of another size, whose sums may run in another order.
    torch.testing.assert_close(model(ids[:, :cut]), model(ids)[:, :cut], atol=1e-5, rtol=1e-5)


def test_every_logit_depends_on_all_tokens_up_to_its_own():
    model = enliven(GPT(GPTConfig(30, 8, 16, 4, 2, drop_rate=0.0)))
    ids = random_ids(model.config, 1, 8)
    for place in range(8):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % 30
        differs = (model(ids) != model(changed))[0].any(-1)  # (T,)
        assert differs.tolist() == [position >= place for position in range(8)]


@torch.no_grad()
@given(st.data())
def test_batch_rows_are_independent(data):
    model = data.draw(models())
    batch = data.draw(st.integers(2, 4))
    length = data.draw(st.integers(1, model.config.context_length))
    row = data.draw(st.integers(0, batch - 1))
    ids = random_ids(model.config, batch, length)
    changed = random_ids(model.config, batch, length, seed=1)
    changed[row] = ids[row]
    assert torch.equal(model(ids)[row], model(changed)[row])  # bit for bit, as above
    torch.testing.assert_close(model(ids[row][None])[0], model(ids)[row], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@given(st.data())
def test_dropout_is_off_in_eval_and_on_in_training(data):
    model = data.draw(models(drop_rate=0.5, min_width=4, min_context=4))
    ids = random_ids(model.config, 2, model.config.context_length)
    without = enliven(GPT(model.config)).eval()
    without.load_state_dict(model.state_dict())
    for part in without.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), without(ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = model.train()(ids), model(ids)
    assert not torch.equal(first, second)


def test_each_dropout_is_on_in_training():
    """Attention weights, attention's result, the feed-forward's and the embeddings: all four."""
    config = GPTConfig(30, 8, 16, 4, 1, drop_rate=0.5)
    model = enliven(GPT(config)).train()
    ids = random_ids(config, 2, 8)
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    attention = model.blocks[0].attention
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for part in (attention, model.blocks[0].feed_forward, model.dropout):
            assert (part(x) == 0).double().mean() == pytest.approx(0.5, abs=0.15)
        attention.dropout.p = 0.0
        assert not torch.equal(attention(x), attention(x))  # its weights are dropped
        assert not torch.equal(model(ids), model(ids))


@torch.no_grad()
def test_dropout_keeps_the_expected_value():
    config = GPTConfig(emb_dim=8, n_heads=2, drop_rate=0.2)
    attention = enliven(CausalSelfAttention(config))
    x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean = attention.train()(x.expand(20_000, -1, -1)).mean(0)
    torch.testing.assert_close(mean, attention.eval()(x)[0], atol=0.05, rtol=0.02)


# ---------------------------------------------------------------------------------------------
# Bad input


CONFIG = GPTConfig(vocab_size=50, context_length=1_024, emb_dim=8, n_heads=2, n_layers=1)
WHOLE = r"ids must be a tensor of whole numbers (torch.int64), not "
SHAPE = "ids must have the shape (B, T), both at least 1, not "
RANGE = "ids must be from 0 to vocab_size - 1 = 49, not "


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2]], WHOLE + "list"),
        ("a text", WHOLE + "str"),
        (None, WHOLE + "NoneType"),
        (torch.tensor([[1.0]]), WHOLE + "torch.float32"),
        (torch.tensor([[True]]), WHOLE + "torch.bool"),
        (torch.tensor([[1]], dtype=torch.uint8), WHOLE + "torch.uint8"),
        (torch.tensor([[1j]]), WHOLE + "torch.complex64"),
        (torch.empty(0), WHOLE + "torch.float32"),  # what torch.tensor([]) is
        (torch.tensor(3), SHAPE + "()"),
        (torch.tensor([1, 2]), SHAPE + "(2,)"),
        (torch.ones(1, 2, 3, dtype=torch.int64), SHAPE + "(1, 2, 3)"),
        (torch.ones(0, 5, dtype=torch.int64), SHAPE + "(0, 5)"),
        (torch.ones(5, 0, dtype=torch.int64), SHAPE + "(5, 0)"),
        (
            torch.ones(1, 1_025, dtype=torch.int64),
            "ids hold 1,025 tokens, but context_length is 1,024",
        ),
        (torch.tensor([[0, -1]]), RANGE + "-1"),
        (torch.tensor([[0, 50]]), RANGE + "50"),
        (torch.tensor([[0, 50], [-7, 0]]), RANGE + "-7"),
        (torch.tensor([[0, 123_456]], dtype=torch.int32), RANGE + "123,456"),
    ],
)
def test_bad_ids_are_named_before_any_work(ids, message):
    model = GPT(CONFIG)

    def work(part, inputs):
        raise AssertionError(f"{type(part).__name__} was called")

    for part in model.modules():
        if part is not model:
            part.register_forward_pre_hook(work)
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        model(ids)
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        check_ids(ids, CONFIG)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_the_extremes_are_allowed(dtype):
    model = GPT(CONFIG).eval()
    ids = torch.tensor([[0, 49]], dtype=dtype)
    assert model(ids).shape == (1, 2, 50)
    assert torch.equal(model(ids), model(ids.long()))
    assert model(torch.zeros(1, 1_024, dtype=dtype)).shape == (1, 1_024, 50)
    assert model(torch.zeros(1, 1, dtype=dtype)).shape == (1, 1, 50)
    strided = torch.arange(20, dtype=dtype).reshape(10, 2).T[:, ::2]  # (2, 5), not contiguous
    assert torch.equal(model(strided), model(strided.contiguous()))


def test_on_an_accelerator_the_numbers_are_not_read_back():
    """The meta device stands in: it has no numbers, so that reading one would raise."""
    with torch.device("meta"):
        model = GPT(CONFIG)
        assert model(torch.zeros(2, 7, dtype=torch.int64)).shape == (2, 7, 50)
        with pytest.raises(ValueError, match=re.escape(SHAPE)):
            model(torch.zeros(7, dtype=torch.int64))


# ---------------------------------------------------------------------------------------------
# The file


def test_the_blocks_are_short():
    path = Path(gptlib.model.__file__)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 25, node.name


def test_every_public_block_is_documented_and_typed():
    for name, thing in vars(gptlib.model).items():
        if getattr(thing, "__module__", None) == "gptlib.model":
            assert thing.__doc__, name
            function = thing if isinstance(thing, types.FunctionType) else thing.forward
            assert "return" in function.__annotations__, name
