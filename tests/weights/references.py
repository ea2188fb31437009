"""The public networks from their architecture facts, channels first, on torch-named tensors, in float64.

Nothing of diffinv is used. Each network asks its `Parameters` for every tensor by name and shape, which draws it at the
first call: so the code below is the topology and the listing of its checkpoint at once. The arithmetic is NumPy's, or
torch's functional one for the test that compares the two.
"""

import math

import numpy as np


class Numpy:
    """Torch's functions on one example (C, H, W)."""

    cat = staticmethod(np.concatenate)
    einsum = staticmethod(np.einsum)
    array = staticmethod(lambda a: np.asarray(a, np.float64))

    @staticmethod
    def silu(x):
        return x / (1 + np.exp(-x))

    @staticmethod
    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    @staticmethod
    def pad(x, low, high):
        return np.pad(x, ((0, 0), (low, high), (low, high)))

    @staticmethod
    def conv(x, w, b, stride=1):
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (1, 2))[:, ::stride, ::stride]
        return np.einsum("chwij,ocij->ohw", windows, w) + b[:, None, None]

    @staticmethod
    def norm(x, groups, eps, w, b):
        h = x.reshape(groups, -1)
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + eps)
        return h.reshape(x.shape) * w[:, None, None] + b[:, None, None]

    @staticmethod
    def depthwise(x, f, stride):
        windows = np.lib.stride_tricks.sliding_window_view(x, f.shape, (1, 2))[:, ::stride, ::stride]
        return np.einsum("chwij,ij->chw", windows, f)

    @staticmethod
    def spread(x, f, crop):
        """The transposed depthwise convolution of stride 2."""
        (c, h, w), k = x.shape, len(f)
        out = np.zeros((c, 2 * h - 2 + k, 2 * w - 2 + k))
        for i in range(h):
            for j in range(w):
                out[:, 2 * i : 2 * i + k, 2 * j : 2 * j + k] += x[:, i, j, None, None] * f
        return out[:, crop : out.shape[1] - crop, crop : out.shape[2] - crop]


def torch_ops(torch):
    """The same by `torch.nn.functional`, with a batch axis put on and taken off."""
    F = torch.nn.functional

    class Torch:
        cat, einsum, silu = staticmethod(torch.cat), staticmethod(torch.einsum), staticmethod(F.silu)
        array = staticmethod(lambda a: torch.as_tensor(np.asarray(a, np.float64)))
        softmax = staticmethod(lambda x: F.softmax(x, -1))
        pad = staticmethod(lambda x, low, high: F.pad(x, (low, high, low, high)))
        conv = staticmethod(lambda x, w, b, stride=1: F.conv2d(x[None], w, b, stride=stride)[0])
        norm = staticmethod(lambda x, groups, eps, w, b: F.group_norm(x[None], groups, w, b, eps)[0])
        depthwise = staticmethod(lambda x, f, stride: F.conv2d(x[:, None], f[None, None], stride=stride)[:, 0])
        spread = staticmethod(
            lambda x, f, crop: F.conv_transpose2d(x[:, None], f[None, None], stride=2, padding=crop)[:, 0]
        )

    return Torch


class Parameters:
    """Tensors by name, drawn at the first call from a seed; `state` is the checkpoint, `seen` the layers' outputs."""

    def __init__(self, seed=0, ops=Numpy, state=None):
        self.generator, self.ops, self.state, self.seen = np.random.default_rng(seed), ops, dict(state or {}), {}

    def __call__(self, name, *shape):
        if name not in self.state:
            value = self.generator.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))
            if len(shape) == 1:
                value = (1 if name.endswith("weight") else 0) + 0.1 * value
            self.state[name] = value.astype(np.float32)
        assert self.state[name].shape == shape, name
        return self.ops.array(self.state[name])

    def see(self, name, value):
        self.seen[name] = np.asarray(value)
        return value

    def conv(self, name, x, out, size=3, stride=1, padding=None):
        low, high = padding or (size // 2, size // 2)
        w, b = self(f"{name}.weight", out, x.shape[0], size, size), self(f"{name}.bias", out)
        return self.ops.conv(self.ops.pad(x, low, high), w, b, stride)

    def linear(self, name, x, out, bias=True):
        y = self.ops.einsum("oi,i->o", self(f"{name}.weight", out, x.shape[0]), x)
        return y + self(f"{name}.bias", out) if bias else y

    def norm(self, name, x, groups=32, eps=1e-5):
        c = x.shape[0]
        return self.ops.norm(x, groups, eps, self(f"{name}.weight", c), self(f"{name}.bias", c))


def halve(p, x):
    c, h, w = x.shape
    return x.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))


def double(p, x):
    c, h, w = x.shape
    x = x.reshape(c, h, 1, w, 1)
    x = p.ops.cat([x, x], 2)
    return p.ops.cat([x, x], 4).reshape(c, 2 * h, 2 * w)


def attend(p, qkv, heads, order):
    """qkv (3 C, T), its channels in the order of ADM ("legacy"), of ADM's flag and diffusers ("new"), or EDM."""
    length, axis = qkv.shape[1], {"legacy": 1, "new": 0, "edm": 2}[order]
    split = {"legacy": (heads, 3, -1), "new": (3, heads, -1), "edm": (heads, qkv.shape[0] // 3 // heads, 3)}[order]
    q, k, v = (qkv.reshape(*split, length).swapaxes(0, axis)[i] for i in range(3))
    if order == "edm":
        q, k, v = (a.swapaxes(0, 1) for a in (q, k, v))
    weights = p.ops.softmax(p.ops.einsum("hdt,hds->hts", q, k) / math.sqrt(q.shape[1]))
    return p.ops.einsum("hts,hds->hdt", weights, v).reshape(-1, length)


def sinusoids(t, size, shift=0):
    """(cosines, sines) of the geometric frequencies."""
    half = size // 2
    angles = t * np.exp(-math.log(1e4) * np.arange(half) / (half - shift))
    return np.cos(angles), np.sin(angles)


def adm(p, x, t, *, channels, mult, blocks, attention, heads, out, order="legacy", classes=None, label=None):
    """guided-diffusion's `UNetModel` with FiLM and resblock_updown; `heads`: channels to their number."""
    silu, emb_width, resolution = p.ops.silu, 4 * channels, 1

    def res(name, x, width, resample=lambda p, a: a):
        h = resample(p, silu(p.norm(f"{name}.in_layers.0", x)))
        h = p.conv(f"{name}.in_layers.2", h, width)
        film = p.linear(f"{name}.emb_layers.1", silu(emb), 2 * width)[:, None, None]
        h = p.norm(f"{name}.out_layers.0", h) * (1 + film[:width]) + film[width:]
        h = p.conv(f"{name}.out_layers.3", silu(h), width)
        x = resample(p, x)
        x = x if x.shape[0] == width else p.conv(f"{name}.skip_connection", x, width, 1)
        return p.see(name, x + h)

    def attn(name, x):
        c, h, w = x.shape
        qkv = p.ops.einsum("oix,it->ot", p(f"{name}.qkv.weight", 3 * c, c, 1), p.norm(f"{name}.norm", x).reshape(c, -1))
        a = attend(p, qkv + p(f"{name}.qkv.bias", 3 * c)[:, None], heads(c), order)
        a = p.ops.einsum("oix,it->ot", p(f"{name}.proj_out.weight", c, c, 1), a)
        return p.see(name, x + (a + p(f"{name}.proj_out.bias", c)[:, None]).reshape(c, h, w))

    emb = p.ops.array(np.concatenate(sinusoids(t, channels)))
    emb = p.linear("time_embed.2", silu(p.linear("time_embed.0", emb, emb_width)), emb_width)
    if classes is not None:
        emb = emb + p("label_emb.weight", classes, emb_width)[label]
    h = p.conv("input_blocks.0.0", p.ops.array(x), int(mult[0] * channels))
    skips, n = [h], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            h = res(f"input_blocks.{n}.0", h, int(m * channels))
            h = attn(f"input_blocks.{n}.1", h) if resolution in attention else h
            skips, n = [*skips, h], n + 1
        if level < len(mult) - 1:
            h = res(f"input_blocks.{n}.0", h, h.shape[0], halve)
            skips, n, resolution = [*skips, h], n + 1, 2 * resolution
    h = attn("middle_block.1", res("middle_block.0", h, h.shape[0]))
    h, n = res("middle_block.2", h, h.shape[0]), 0
    for level, m in reversed(list(enumerate(mult))):
        for i in range(blocks + 1):
            h = res(f"output_blocks.{n}.0", p.ops.cat([h, skips.pop()], 0), int(m * channels))
            attends = resolution in attention
            h = attn(f"output_blocks.{n}.1", h) if attends else h
            if level and i == blocks:
                h = res(f"output_blocks.{n}.{1 + attends}", h, h.shape[0], double)
                resolution //= 2
            n += 1
    return p.conv("out.2", silu(p.norm("out.0", h)), out)


def diffusers(p, x, t, *, widths, blocks, down, up, head_channels=None, padding=0, groups=32, out=3, old=False):
    """`UNet2DModel` of DDPM: additive embedding, convolutions that resample, sines first at frequency shift 1.

    `down`, `up`: whether each block has attention, in the order of the config; `old`: the attention's older names.
    """
    silu, emb_width, eps = p.ops.silu, 4 * widths[0], 1e-6
    q, k, v, proj = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")

    def res(name, x, width):
        h = p.conv(f"{name}.conv1", silu(p.norm(f"{name}.norm1", x, groups, eps)), width)
        h = h + p.linear(f"{name}.time_emb_proj", silu(emb), width)[:, None, None]
        h = p.conv(f"{name}.conv2", silu(p.norm(f"{name}.norm2", h, groups, eps)), width)
        return p.see(name, h + (x if x.shape[0] == width else p.conv(f"{name}.conv_shortcut", x, width, 1)))

    def dense(name, x):
        c = x.shape[0]
        return p.ops.einsum("oi,it->ot", p(f"{name}.weight", c, c), x) + p(f"{name}.bias", c)[:, None]

    def attn(name, x):
        shape, heads = x.shape, 1 if head_channels is None else x.shape[0] // head_channels
        h = p.norm(f"{name}.group_norm", x, groups, eps).reshape(shape[0], -1)
        h = attend(p, p.ops.cat([dense(f"{name}.{part}", h) for part in (q, k, v)], 0), heads, "new")
        return p.see(name, x + dense(f"{name}.{proj}", h).reshape(shape))

    emb = p.ops.array(np.concatenate(sinusoids(t, widths[0], 1)[::-1]))
    emb = p.linear("time_embedding.linear_2", silu(p.linear("time_embedding.linear_1", emb, emb_width)), emb_width)
    h = p.conv("conv_in", p.ops.array(x), widths[0])
    skips = [h]
    for i, width in enumerate(widths):
        for j in range(blocks):
            h = res(f"down_blocks.{i}.resnets.{j}", h, width)
            h = attn(f"down_blocks.{i}.attentions.{j}", h) if down[i] else h
            skips.append(h)
        if i < len(widths) - 1:
            border = (0, 1) if padding == 0 else (1, 1)
            h = p.conv(f"down_blocks.{i}.downsamplers.0.conv", h, width, 3, 2, border)
            skips.append(p.see(f"down_blocks.{i}.downsamplers.0", h))
    h = attn("mid_block.attentions.0", res("mid_block.resnets.0", h, widths[-1]))
    h = res("mid_block.resnets.1", h, widths[-1])
    for i, width in enumerate(reversed(widths)):
        for j in range(blocks + 1):
            h = res(f"up_blocks.{i}.resnets.{j}", p.ops.cat([h, skips.pop()], 0), width)
            h = attn(f"up_blocks.{i}.attentions.{j}", h) if up[i] else h
        if i < len(widths) - 1:
            h = p.see(f"up_blocks.{i}.upsamplers.0", p.conv(f"up_blocks.{i}.upsamplers.0.conv", double(p, h), width))
    return p.conv("conv_out", silu(p.norm("conv_norm_out", h, groups, eps)), out)


def autoencoder(p, x, *, widths, blocks, codes, groups, attention=True, quant=True, old=False):
    """`AutoencoderKL`: (mean, log variance that is not clipped, the decoded mean); `old`: older names of attention."""
    silu, eps = p.ops.silu, 1e-6
    q, k, v, proj = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")

    def res(name, x, width):
        h = p.conv(f"{name}.conv1", silu(p.norm(f"{name}.norm1", x, groups, eps)), width)
        h = p.conv(f"{name}.conv2", silu(p.norm(f"{name}.norm2", h, groups, eps)), width)
        return p.see(name, h + (x if x.shape[0] == width else p.conv(f"{name}.conv_shortcut", x, width, 1)))

    def middle(half, h):
        c, name = h.shape[0], f"{half}.mid_block.attentions.0"
        dense = lambda part, x: p.ops.einsum("oi,it->ot", p(f"{name}.{part}.weight", c, c), x) + bias(part)
        bias = lambda part: p(f"{name}.{part}.bias", c)[:, None]
        h = res(f"{half}.mid_block.resnets.0", h, c)
        if attention:
            a = p.norm(f"{name}.group_norm", h, groups, eps).reshape(c, -1)
            a = attend(p, p.ops.cat([dense(part, a) for part in (q, k, v)], 0), 1, "new")
            h = p.see(name, h + dense(proj, a).reshape(h.shape))
        return res(f"{half}.mid_block.resnets.1", h, c)

    def half(name, side, h, widths, count, out):
        h = p.conv(f"{name}.conv_in", h, widths[0])
        h = middle(name, h) if name == "decoder" else h
        for i, width in enumerate(widths):
            for j in range(count):
                h = res(f"{name}.{side}_blocks.{i}.resnets.{j}", h, width)
            last = f"{name}.{side}_blocks.{i}.{side}samplers.0"
            if i < len(widths) - 1 and side == "down":
                h = p.see(last, p.conv(f"{last}.conv", h, width, 3, 2, (0, 1)))
            elif i < len(widths) - 1:
                h = p.see(last, p.conv(f"{last}.conv", double(p, h), width))
        h = middle(name, h) if name == "encoder" else h
        return p.conv(f"{name}.conv_out", silu(p.norm(f"{name}.conv_norm_out", h, groups, eps)), out)

    h = half("encoder", "down", p.ops.array(x), widths, blocks, 2 * codes)
    h = p.conv("quant_conv", h, 2 * codes, 1) if quant else h
    z = p.conv("post_quant_conv", h[:codes], codes, 1) if quant else h[:codes]
    return h[:codes], h[codes:], half("decoder", "up", z, widths[::-1], blocks + 1, x.shape[0])


def positions(side, width):
    """facebookresearch/DiT's: of the column, then of the row; sines, then cosines."""
    f = 1e-4 ** (np.arange(width // 4) / (width // 4))
    place = lambda n: np.concatenate([np.sin(n * f), np.cos(n * f)])
    return np.stack([np.concatenate([place(i % side), place(i // side)]) for i in range(side**2)])


def dit(p, x, t, label, *, width, blocks, heads, patch, out, classes, shift=0, eps_mlp=1e-6):
    """facebookresearch/DiT's `DiT` of (C, H, W); `shift` and `eps_mlp` as diffusers has them."""
    silu, (c, side, _) = p.ops.silu, x.shape
    grid, tall = side // patch, lambda v: v[:, None]

    def dense(name, h, features):
        w, b = p(f"{name}.weight", features, h.shape[0]), p(f"{name}.bias", features)
        return p.ops.einsum("oi,it->ot", w, h) + tall(b)

    def modulated(h, move, scale, eps):
        h = h - h.mean(0)
        return h / ((h**2).mean(0) + eps) ** 0.5 * tall(1 + scale) + tall(move)

    def gelu(h):
        return h * (1 - 1 / (1 + np.e ** (2 * math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))))

    emb = p.ops.array(np.concatenate(sinusoids(t, 256, shift)))
    emb = p.linear("t_embedder.mlp.2", silu(p.linear("t_embedder.mlp.0", emb, width)), width)
    emb = silu(emb + p("y_embedder.embedding_table.weight", classes, width)[label])
    kernel = p("x_embedder.proj.weight", width, c, patch, patch)
    squares = p.ops.array(x).reshape(c, grid, patch, grid, patch)
    h = p.ops.einsum("cipjq,ocpq->oij", squares, kernel).reshape(width, -1) + tall(p("x_embedder.proj.bias", width))
    h = h + p.ops.array(positions(grid, width).T)
    for i in range(blocks):
        name = f"blocks.{i}"
        film = p.linear(f"{name}.adaLN_modulation.1", emb, 6 * width).reshape(6, width)
        qkv = dense(f"{name}.attn.qkv", modulated(h, film[0], film[1], 1e-6), 3 * width)
        h = h + tall(film[2]) * dense(f"{name}.attn.proj", attend(p, qkv, heads, "new"), width)
        hidden = gelu(dense(f"{name}.mlp.fc1", modulated(h, film[3], film[4], eps_mlp), 4 * width))
        h = p.see(name, h + tall(film[5]) * dense(f"{name}.mlp.fc2", hidden, width))
    film = p.linear("final_layer.adaLN_modulation.1", emb, 2 * width).reshape(2, width)
    h = dense("final_layer.linear", modulated(h, film[0], film[1], 1e-6), patch**2 * out)
    return p.ops.einsum("pqoij->oipjq", h.reshape(patch, patch, out, grid, grid)).reshape(out, side, side)


def edm(p, x, t, *, resolution, channels, mult, blocks, attention, kind="ddpmpp", head_channels=64, classes=None,
        label=None):  # fmt: skip
    """EDM's networks: kind "ddpmpp" and "ncsnpp" (`SongUNet`) or "adm" (`DhariwalUNet`); names without "model."."""
    song, silu, width0 = kind != "adm", p.ops.silu, channels * (2 if kind == "ncsnpp" else 1)
    taps = np.array([1.0, 3, 3, 1] if kind == "ncsnpp" else [1.0, 1])
    taps, border = np.outer(taps, taps) / taps.sum() ** 2, (len(taps) - 1) // 2
    scale, eps = (math.sqrt(0.5), 1e-6) if song else (1.0, 1e-5)
    norm = lambda name, x: p.norm(name, x, min(32, x.shape[0] // 4), eps)
    down = lambda p, a: p.ops.depthwise(p.ops.pad(a, border, border), p.ops.array(taps), 2)
    up = lambda p, a: p.ops.spread(a, p.ops.array(4 * taps), border)

    def block(name, x, width, resample=None, attention=False):
        change = resample or (lambda p, a: a)
        h = p.conv(f"{name}.conv0", change(p, silu(norm(f"{name}.norm0", x))), width)
        film = p.linear(f"{name}.affine", emb, width if song else 2 * width)[:, None, None]
        h = norm(f"{name}.norm1", h + film) if song else norm(f"{name}.norm1", h) * (1 + film[:width]) + film[width:]
        h = p.conv(f"{name}.conv1", silu(h), width)
        x, projected = change(p, x), x.shape[0] != width or (song and resample is not None)
        x = (h + (p.conv(f"{name}.skip", x, width, 1) if projected else x)) * scale
        if attention:
            h = p.conv(f"{name}.qkv", norm(f"{name}.norm2", x), 3 * width, 1).reshape(3 * width, -1)
            h = attend(p, h, 1 if song else width // head_channels, "edm").reshape(x.shape)
            x = (p.conv(f"{name}.proj", h, width, 1) + x) * scale
        return p.see(name, x)

    cosines, sines = sinusoids(t, width0, int(song))
    if kind == "ncsnpp":
        angles = 2 * math.pi * t * np.asarray(p("map_noise.freqs", width0 // 2))
        cosines, sines = np.cos(angles), np.sin(angles)
    emb = p.ops.array(np.concatenate([sines, cosines] if song else [cosines, sines]))
    hot = None if classes is None else p.ops.array(np.eye(classes)[label])
    if song and classes is not None:
        emb = emb + p.linear("map_label", hot * math.sqrt(classes), width0)
    emb = p.linear("map_layer1", silu(p.linear("map_layer0", emb, 4 * channels)), 4 * channels)
    if not song and classes is not None:
        emb = emb + p.linear("map_label", hot, 4 * channels, bias=False)
    emb, aux, skips = silu(emb), p.ops.array(x), []
    for level, m in enumerate(mult):
        name, width = f"enc.{resolution >> level}x{resolution >> level}", channels * m
        if level == 0:
            h = p.conv(f"{name}_conv", p.ops.array(x), channels if song else width)
        else:
            h = block(f"{name}_down", h, h.shape[0], down)
        if level and kind == "ncsnpp":
            wide = p.conv(f"{name}_aux_residual", aux, h.shape[0], 3, 1, (1 + border, 1 + border))
            h = aux = (h + p.ops.depthwise(wide, p.ops.array(taps), 2)) / math.sqrt(2)
        skips.append(h)
        for i in range(blocks):
            h = block(f"{name}_block{i}", h, width, attention=resolution >> level in attention)
            skips.append(h)
    for level, m in reversed(list(enumerate(mult))):
        name, width = f"dec.{resolution >> level}x{resolution >> level}", channels * m
        if level == len(mult) - 1:
            h = block(f"{name}_in1", block(f"{name}_in0", h, h.shape[0], attention=True), h.shape[0])
        else:
            h = block(f"{name}_up", h, h.shape[0], up)
        for i in range(blocks + 1):
            attends = resolution >> level in attention and (i == blocks or not song)
            h = block(f"{name}_block{i}", p.ops.cat([h, skips.pop()], 0), width, attention=attends)
    first = f"dec.{resolution}x{resolution}_aux"
    h = silu(norm(f"{first}_norm" if song else "out_norm", h))
    return p.conv(f"{first}_conv" if song else "out_conv", h, x.shape[0])
