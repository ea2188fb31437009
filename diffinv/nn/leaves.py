"""Names and shapes of a network's parameters, by counting where it is one of ours: a card is checked in milliseconds.

A test holds each of them against `jax.eval_shape` of the network's own `init`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from diffinv.nn import autoencoder, convnet, ctmsr_unet, dit, edm2, song, srnet, unet

Shape = tuple[int, ...]
Leaf = tuple[str, Shape]


def _conv(name: str, inside: int, outside: int) -> Iterator[Leaf]:
    yield f"{name}/kernel", (3, 3, inside, outside)
    yield f"{name}/bias", (outside,)


def _dense(name: str, inside: int, outside: int) -> Iterator[Leaf]:
    yield f"{name}/kernel", (inside, outside)
    yield f"{name}/bias", (outside,)


def _norm(name: str, channels: int) -> Iterator[Leaf]:
    yield f"{name}/scale", (channels,)
    yield f"{name}/bias", (channels,)


def _res(net: unet.UNet, name: str, inside: int, outside: int) -> Iterator[Leaf]:
    yield from _norm(f"{name}/in_layers_0", inside)
    yield from _conv(f"{name}/in_layers_2", inside, outside)
    yield from _dense(f"{name}/emb_layers_1", 4 * net.channels, (1 + net.film) * outside)
    yield from _norm(f"{name}/out_layers_0", outside)
    yield from _conv(f"{name}/out_layers_3", outside, outside)
    if inside != outside:
        yield from _dense(f"{name}/skip_connection", inside, outside)


def _attention(name: str, channels: int) -> Iterator[Leaf]:
    yield from _norm(f"{name}/norm", channels)
    yield from _dense(f"{name}/qkv", channels, 3 * channels)
    yield from _dense(f"{name}/proj_out", channels, channels)


def _block(net: unet.UNet, name: str, inside: int, outside: int, factor: int) -> Iterator[Leaf]:
    yield from _res(net, f"{name}_0", inside, outside)
    if factor in net.attention:
        yield from _attention(f"{name}_1", outside)


def _resample(net: unet.UNet, name: str, kind: str, width: int) -> Iterator[Leaf]:
    if net.resample_blocks:
        yield from _res(net, name, width, width)
    elif net.resample_convs:
        yield from _conv(f"{name}/{kind}", width, width)


def _unet(net: unet.UNet, channels: int) -> Iterator[Leaf]:
    widths = [int(net.channels * m) for m in net.multipliers]
    embedding = 4 * net.channels
    yield from _dense("time_embed_0", net.channels, embedding)
    yield from _dense("time_embed_2", embedding, embedding)
    if net.classes is not None:
        yield "label_emb/embedding", (net.classes, embedding)
    if net.scalar_label:
        yield from _dense("label_emb_0", 1, embedding)
        yield from _dense("label_emb_2", embedding, embedding)
    if net.low_channels:
        yield from _dense("level_embed_0", net.channels, embedding)
        yield from _dense("level_embed_2", embedding, embedding)
    yield from _conv("input_blocks_0_0", (channels + net.low_channels) * net.patch**2, widths[0])
    skips = [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(net.blocks):
            yield from _block(net, f"input_blocks_{len(skips)}", skips[-1], width, 2**level)
            skips.append(width)
        if level < len(widths) - 1:
            yield from _resample(net, f"input_blocks_{len(skips)}_0", "op", skips[-1])
            skips.append(skips[-1])
    here = widths[-1]
    yield from _res(net, "middle_block_0", skips[-1], here)
    yield from _attention("middle_block_1", here)
    yield from _res(net, "middle_block_2", here, here)
    index = 0
    for level, width in reversed(list(enumerate(widths))):
        for block in range(net.blocks + 1):
            yield from _block(net, f"output_blocks_{index}", here + skips.pop(), width, 2**level)
            here = width
            if level and block == net.blocks:
                last = 2 if 2**level in net.attention else 1
                yield from _resample(net, f"output_blocks_{index}_{last}", "conv", width)
            index += 1
    yield from _norm("out_0", here)
    yield from _conv("out_2", here, net.out_channels * net.patch**2)


def _song_block(name: str, inside: int, outside: int, embedding: int, moves: bool = False, attends: bool = False):
    yield from _norm(f"{name}/norm0", inside)
    yield from _conv(f"{name}/conv0", inside, outside)
    yield from _dense(f"{name}/affine", embedding, outside)
    yield from _norm(f"{name}/norm1", outside)
    yield from _conv(f"{name}/conv1", outside, outside)
    if moves or inside != outside:
        yield from _dense(f"{name}/skip", inside, outside)
    if attends:
        yield from _norm(f"{name}/norm2", outside)
        yield from _dense(f"{name}/qkv", outside, 3 * outside)
        yield from _dense(f"{name}/proj", outside, outside)


def _song(net: song.SongUNet, channels: int) -> Iterator[Leaf]:
    size, embedding, attends = net.noise_channels * net.channels, 4 * net.channels, net._attends
    if net.fourier:
        yield "map_noise/freqs", (size // 2,)
    if net.classes is not None:
        yield from _dense("map_label", net.classes, size)
    yield from _dense("map_layer0", size, embedding)
    yield from _dense("map_layer1", embedding, embedding)
    yield from _conv(f"enc_{net._name(0)}_conv", channels, net.channels)
    here, aux, skips = net.channels, channels, []
    for level, multiplier in enumerate(net.multipliers):
        name, width = f"enc_{net._name(level)}", net.channels * multiplier
        if level:
            yield from _song_block(f"{name}_down", here, here, embedding, True)
            if net.residual:
                yield from _conv(f"{name}_aux_residual", aux, here)
                aux = here
        skips.append(here)
        for i in range(net.blocks):
            yield from _song_block(f"{name}_block{i}", here, width, embedding, attends=attends(level))
            here = width
            skips.append(here)
    for level, multiplier in reversed(list(enumerate(net.multipliers))):
        name, width = f"dec_{net._name(level)}", net.channels * multiplier
        if level == len(net.multipliers) - 1:
            yield from _song_block(f"{name}_in0", here, width, embedding, attends=True)
            yield from _song_block(f"{name}_in1", width, width, embedding)
            here = width
        else:
            yield from _song_block(f"{name}_up", here, here, embedding, True)
        for i in range(net.blocks + 1):
            last = i == net.blocks and attends(level)
            yield from _song_block(f"{name}_block{i}", here + skips.pop(), width, embedding, attends=last)
            here = width
    yield from _norm(f"dec_{net._name(0)}_aux_norm", here)
    yield from _conv(f"dec_{net._name(0)}_aux_conv", here, net.out_channels)


def _edm2_block(
    net: edm2.EDM2UNet, name: str, inside: int, outside: int, encoder: bool, attends: bool
) -> Iterator[Leaf]:
    embedding = net.channels * max(net.multipliers)
    yield f"{name}/emb_gain", ()
    yield f"{name}/emb_linear/kernel", (embedding, outside)
    yield f"{name}/conv_res0/kernel", (3, 3, outside if encoder else inside, outside)
    yield f"{name}/conv_res1/kernel", (3, 3, outside, outside)
    if inside != outside:
        yield f"{name}/conv_skip/kernel", (inside, outside)
    if attends and outside >= net.head_channels:
        yield f"{name}/attn_qkv/kernel", (outside, 3 * outside)
        yield f"{name}/attn_proj/kernel", (outside, outside)


def _edm2(net: edm2.EDM2UNet, channels: int) -> Iterator[Leaf]:
    first, embedding = net.channels * net.multipliers[0], net.channels * max(net.multipliers)
    size = net.channels * net.noise_channels or first
    yield from (("emb_fourier/freqs", (size,)), ("emb_fourier/phases", (size,)), ("out_gain", ()))
    yield "emb_noise/kernel", (size, embedding)
    if net.classes is not None:
        yield "emb_label/kernel", (net.classes, embedding)
    here, skips = first, [first]
    yield f"{net.name_of('enc', 0)}_conv/kernel", (3, 3, channels + 1, first)
    for level, multiplier in enumerate(net.multipliers):
        name, width = net.name_of("enc", level), net.channels * multiplier
        if level:
            yield from _edm2_block(net, f"{name}_down", here, here, True, False)
            skips.append(here)
        for i in range(net.blocks):
            yield from _edm2_block(net, f"{name}_block{i}", here, width, True, net.attends(level))
            here = width
            skips.append(here)
    for level, multiplier in reversed(list(enumerate(net.multipliers))):
        name, width = net.name_of("dec", level), net.channels * multiplier
        if level == len(net.multipliers) - 1:
            yield from _edm2_block(net, f"{name}_in0", here, here, False, True)
            yield from _edm2_block(net, f"{name}_in1", here, here, False, False)
        else:
            yield from _edm2_block(net, f"{name}_up", here, here, False, False)
        for i in range(net.blocks + 1):
            yield from _edm2_block(net, f"{name}_block{i}", here + skips.pop(), width, False, net.attends(level))
            here = width
    yield "out_conv/kernel", (3, 3, here, net.out_channels)


def _convnet(net: convnet.ConvUNet, channels: int) -> Iterator[Leaf]:
    widths = [int(net.channels * m) for m in net.multipliers]
    embedding, patch = 2 * net.channels, net.patch**2
    yield from _dense("embed0", net.channels, embedding)
    yield from _dense("embed1", embedding, embedding)
    yield from _conv("first", channels * patch, widths[0])
    for level, width in enumerate(widths):
        if level:
            yield from _dense(f"down{level}", widths[level - 1], width)
            yield from _dense(f"up{level - 1}", width, widths[level - 1])
        for name in (f"{way}{level}_{i}" for way in ("down", "up") for i in range(net.blocks)):
            yield from _dense(f"{name}/film", embedding, 2 * width)
            for part in ("in", "out"):
                yield f"{name}/norm_{part}/gain", (width,)
                yield from _conv(f"{name}/conv_{part}", width, width)
    yield "norm_last/gain", (widths[0],)
    yield from _conv("last", widths[0], net.out_channels * patch)


def _srnet(net: srnet.SRNet, channels: int) -> Iterator[Leaf]:
    width = net.channels
    yield from _conv("first", channels, width)
    yield from _conv("noisy", channels * net.scale**2, width)
    yield from _dense("embed", width, 2 * width)
    for i in range(net.blocks):
        yield from _dense(f"block{i}/film", 2 * width, 2 * width)
        yield from _conv(f"block{i}/conv0", width, width)
        yield from _conv(f"block{i}/conv1", width, width)
    yield from _conv("head", width, net.out_channels * net.scale**2)


def _swin(net: ctmsr_unet.CTMSRUNet, name: str, channels: int, level: int, always: bool = False) -> Iterator[Leaf]:
    size, width = net.resolution >> level, net.embed or net.channels
    if not (always or size in net.attention):
        return
    window = min(net.window, size)
    yield from _dense(f"{name}_swin/embed", channels, width)
    yield from _norm(f"{name}_swin/norm1", width)
    yield from _dense(f"{name}_swin/attention/qkv", width, 3 * width)
    yield f"{name}_swin/attention/bias", ((2 * window - 1) ** 2, net.heads)
    yield from _dense(f"{name}_swin/attention/proj", width, width)
    yield from _norm(f"{name}_swin/norm2", width)
    yield from _dense(f"{name}_swin/fc1", width, 4 * width)
    yield from _dense(f"{name}_swin/fc2", 4 * width, width)
    yield from _dense(f"{name}_swin/unembed", width, channels)
    yield from _conv(f"{name}_swin/conv", channels, channels)


def _ctmsr(net: ctmsr_unet.CTMSRUNet, channels: int) -> Iterator[Leaf]:
    embedding = 4 * net.channels
    yield from _dense("map_layer0", net.channels, embedding)
    yield from _dense("map_layer1", embedding, embedding)
    yield from _conv(f"enc_{net._name(0)}_conv", channels * (net.scale**2 + 1), net.channels)
    here, skips = net.channels, []
    for level, multiplier in enumerate(net.multipliers):
        name, width = f"enc_{net._name(level)}", net.channels * multiplier
        if level:
            yield from _song_block(f"{name}_down", here, here, embedding, True)
        skips.append(here)
        for i in range(net.blocks):
            yield from _song_block(f"{name}_block{i}", here, width, embedding)
            yield from _swin(net, f"{name}_block{i}", width, level)
            here = width
            skips.append(here)
    for level, multiplier in reversed(list(enumerate(net.multipliers))):
        name, width = f"dec_{net._name(level)}", net.channels * multiplier
        if level == len(net.multipliers) - 1:
            yield from _song_block(f"{name}_in0", here, width, embedding)
            yield from _swin(net, f"{name}_in0", width, level, always=True)
            yield from _song_block(f"{name}_in1", width, width, embedding)
            here = width
        else:
            yield from _song_block(f"{name}_up", here, here, embedding, True)
        for i in range(net.blocks + 1):
            yield from _song_block(f"{name}_block{i}", here + skips.pop(), width, embedding)
            here = width
        yield from _swin(net, f"{name}_block{net.blocks}", here, level)
    yield from _norm(f"dec_{net._name(0)}_aux_norm", here)
    yield from _conv(f"dec_{net._name(0)}_aux_conv", here, net.channels)
    for i in range(net.scale.bit_length() - 1):
        yield from _conv(f"conv_up{i + 1}", net.channels, net.channels)
    yield from _conv("conv_last", net.channels, net.out_channels)


def _plain_block(name: str, inside: int, outside: int) -> Iterator[Leaf]:
    for i, width in ((1, inside), (2, outside)):
        yield from _norm(f"{name}/norm{i}", width)
        yield from _conv(f"{name}/conv{i}", width, outside)
    if inside != outside:
        yield from _dense(f"{name}/conv_shortcut", inside, outside)


def _coder_middle(net: autoencoder.AutoencoderKL, half: str, width: int) -> Iterator[Leaf]:
    for i in range(2):
        yield from _plain_block(f"{half}/mid_block_resnets_{i}", width, width)
    if net.attention:
        yield from _attention(f"{half}/mid_block_attentions_0", width)


def _coder(net: autoencoder.AutoencoderKL, half: str, first: int, last: int) -> Iterator[Leaf]:
    """Encoder or decoder, of `first` channels to `last`."""
    down = half == "encoder"
    widths = [round(net.channels * m) for m in net.multipliers][:: 1 if down else -1]
    side, resample, op = ("down", "downsamplers", "op") if down else ("up", "upsamplers", "conv")
    yield from _conv(f"{half}/conv_in", first, here := widths[0])
    yield from _coder_middle(net, half, widths[-1 if down else 0])
    for level, width in enumerate(widths):
        name = f"{half}/{side}_blocks_{level}"
        for i in range(net.blocks + (not down)):
            yield from _plain_block(f"{name}_resnets_{i}", here, width)
            here = width
        if level < len(widths) - 1:
            yield from _conv(f"{name}_{resample}_0/{op}", width, width)
    yield from _norm(f"{half}/conv_norm_out", here)
    yield from _conv(f"{half}/conv_out", here, last)


def _autoencoder(net: autoencoder.AutoencoderKL, channels: int) -> Iterator[Leaf]:
    codes = net.code_channels
    yield from _coder(net, "encoder", channels * net.patch**2, 2 * codes)
    yield from _coder(net, "decoder", codes, net.out_channels * net.patch**2)
    if net.quant:
        yield from _dense("quant_conv", 2 * codes, 2 * codes)
    if net.post_quant:
        yield from _dense("post_quant_conv", codes, codes)


def _dit(net: dit.DiT, channels: int) -> Iterator[Leaf]:
    width, patch = net.channels, net.patch**2
    yield from _dense("x_embedder_proj", patch * channels, width)
    yield from _dense("t_embedder_mlp_0", 256, width)
    yield from _dense("t_embedder_mlp_2", width, width)
    if net.classes is not None:
        yield "y_embedder_embedding_table/embedding", (net.classes, width)
    hidden = int(net.ratio * width)
    parts = {"adaLN_modulation_1": (width, 6 * width), "attn_qkv": (width, 3 * width), "attn_proj": (width, width)}
    for i in range(net.blocks):
        for name, sizes in {**parts, "mlp_fc1": (width, hidden), "mlp_fc2": (hidden, width)}.items():
            yield from _dense(f"blocks_{i}/{name}", *sizes)
    yield from _dense("final_layer_adaLN_modulation_1", width, 2 * width)
    yield from _dense("final_layer_linear", width, patch * net.out_channels)


COUNTED: dict[type, Callable[[Any, int], Iterator[Leaf]]] = {
    unet.UNet: _unet,
    song.SongUNet: _song,
    edm2.EDM2UNet: _edm2,
    convnet.ConvUNet: _convnet,
    srnet.SRNet: _srnet,
    ctmsr_unet.CTMSRUNet: _ctmsr,
    autoencoder.AutoencoderKL: _autoencoder,
    dit.DiT: _dit,
}


def _traced(net: Any, channels: int) -> Iterator[Leaf]:
    """By the network's own `init`, `(key, x, condition)`, on a picture of its `resolution`, or of 64 x 64."""
    side = getattr(net, "resolution", 64)
    net = net.clone(plain_conv=True) if hasattr(net, "plain_conv") else net  # the other looks for a device
    draw = lambda: net.init(jax.random.key(0), jnp.zeros((side, side, channels), jnp.float32), jnp.float32(0))
    tree = jax.eval_shape(draw)
    for name, leaf in traverse_util.flatten_dict(tree["params"], sep="/").items():
        yield name, leaf.shape


def leaves(net: Any, channels: int) -> dict[str, Shape]:
    """`{"params/a/b/kernel": shape}` of a network for pictures of `channels` channels; all static.

    An upscaler's low-resolution input has as many channels. A network without an entry in `COUNTED` is traced.
    """
    return {f"params/{name}": shape for name, shape in COUNTED.get(type(net), _traced)(net, channels)}
