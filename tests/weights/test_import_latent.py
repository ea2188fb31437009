"""The import command on folders of diffusers: an autoencoder, and a transformer over its codes."""

import json

import jax
import numpy as np
import pytest
import references
from absl import flags
from absl.testing import flagsaver

from diffinv import weights
from diffinv.nn import dit
from diffinv.weights.convert import safetensors
from experiments import import_checkpoint

flags.FLAGS.mark_as_parsed()
CODER = {
    "_class_name": "AutoencoderKL", "block_out_channels": [4, 8], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 2, "sample_size": 8, "mid_block_add_attention": False,
}  # fmt: skip
TRANSFORMER = {
    "_class_name": "DiTTransformer2DModel", "num_attention_heads": 1, "attention_head_dim": 8, "in_channels": 4,
    "out_channels": 8, "num_layers": 1, "sample_size": 4, "patch_size": 2, "num_embeds_ada_norm": 2,
}  # fmt: skip


def run(*sources, **options):
    """The command in this process."""
    with jax.enable_x64(False), flagsaver.flagsaver(**{name: str(v) if name in ("out", "autoencoder") else v
                                                       for name, v in options.items()}):  # fmt: skip
        import_checkpoint.main([str(source) for source in sources])


def folder(path, config, state, scheduler=False):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    (path / "diffusion_pytorch_model.safetensors").write_bytes(safetensors.written(state))
    if scheduler:
        (path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    return path


@pytest.fixture
def folders(tmp_path):
    """The autoencoder's and the transformer's."""
    coder = references.Parameters()
    x = np.zeros((3, 8, 8), np.float32)
    references.autoencoder(coder, x, widths=(4, 8), blocks=1, codes=4, groups=2, attention=False)
    transformer = references.Parameters()
    topology = {"width": 8, "blocks": 1, "heads": 1, "patch": 2, "out": 8, "classes": 3}
    references.dit(transformer, np.zeros((4, 4, 4), np.float32), 1.0, 0, **topology)
    names = {
        "x_embedder": "pos_embed",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    block, state = "transformer_blocks.0", {}
    inside = {
        "t_embedder.mlp.0": f"{block}.norm1.emb.timestep_embedder.linear_1",
        "t_embedder.mlp.2": f"{block}.norm1.emb.timestep_embedder.linear_2",
        "y_embedder": f"{block}.norm1.emb.class_embedder", "blocks.0.adaLN_modulation.1": f"{block}.norm1.linear",
        "blocks.0.attn.proj": f"{block}.attn1.to_out.0", "blocks.0.mlp.fc1": f"{block}.ff.net.0.proj",
        "blocks.0.mlp.fc2": f"{block}.ff.net.2",
    }  # fmt: skip
    for name, value in transformer.state.items():
        if ".qkv." in name:
            parts = zip("qkv", np.split(value, 3), strict=True)
            state |= {f"{block}.attn1.to_{part}.{name.rpartition('.')[2]}": each for part, each in parts}
            continue
        for ours, theirs in {**names, **inside}.items():
            name = name.replace(ours, theirs) if name.startswith(ours) else name
        state[name] = value
    return folder(tmp_path / "vae", CODER, coder.state), folder(tmp_path / "dit", TRANSFORMER, state, True)


def test_two_folders_become_a_latent_prior(folders, tmp_path, capsys):
    vae, transformer = folders
    out = tmp_path / "priors"
    run(vae, out=out, name="coder")
    assert "8 x 8 x 3 to 4 x 4 x 4; give it to the import of a prior" in capsys.readouterr().out
    run(transformer, out=out, name="codes", label=2, autoencoder=out / "coder")
    assert (
        "4 x 4 x 4, linear beta from 0.0001 to 0.02, 1000 steps; predicts eps, learned variance"
        in capsys.readouterr().out
    )
    found = weights.load_latent(str(out / "codes"))
    assert found.shape == (8, 8, 3) and isinstance(weights.architecture(weights.read_card(str(out / "codes"))), dit.DiT)
    np.testing.assert_allclose(found.codec.params["codes"]["scale"], np.float32(0.18215))
    run(out / "codes", verify=True)
    assert "reference outputs agree to" in capsys.readouterr().out


def test_what_does_not_fit_leaves_nothing(folders, tmp_path):
    vae, transformer = folders
    out = tmp_path / "priors"
    other = json.loads((vae / "config.json").read_text())
    with pytest.raises(ValueError, match="schedule given for an autoencoder"):
        run(vae, out=out, schedule="linear")
    with pytest.raises(ValueError, match="is of a prior, and autoencoder is wanted"):
        run(transformer, out=out, label=2, autoencoder=weights.embedded())
    (vae / "config.json").write_text(json.dumps({**other, "latent_channels": 2}))
    with pytest.raises(ValueError, match="has shape"):
        run(vae, out=out)
    assert not out.exists()
