"""What `experiments.reconstruct` may be told: every value is taken, or refused in one line before anything compiles."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffinv as di
from configs import reconstruct
from diffinv import operators, schema
from diffinv.weights.convert import schedule
from experiments.methods import grids, solvers
from experiments.methods.table import METHODS
from experiments.restore import fields
from experiments.restore import operators as damage
from experiments.restore.operators import OPERATORS, require_fit


def configuration(mode="", **changes):
    """configs/reconstruct.py with changes by full name, `__` for the point."""
    config = reconstruct.get_config(mode)
    for path, value in changes.items():
        *sections, name = path.split("__")
        part = config
        for section in sections:
            part = part[section]
        with part.ignore_type():
            part[name] = value
    return config


def line(**changes):
    """The first refusal, "" where there is none."""
    config = configuration(**changes)
    try:
        schema.require(fields.FIELDS, config.to_dict())
        fields.check(config)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize(
    "field",
    "sigma_y dps__zeta daps__lr daps__tau daps__spread daps__decay daps__sigma_min daps__sigma_max daps__sigma_end "
    "tds__spread reguidance__rho reguidance__horizon reguidance__power guided__eta blur__std random__masked".split(),
)
def test_a_number_that_is_none_is_refused_by_name(field, value):
    name = f"config.{field.replace('__', '.')}"
    assert line(**{field: value}).startswith(f"{name} is {schema.shown(value)}; give a number ")


@pytest.mark.parametrize("value", [-1, 2.5, 10**20, None, "3"])
@pytest.mark.parametrize(
    "field",
    "group steps factor optimisation box__size blur__size dps__steps daps__steps daps__ode_steps daps__mcmc_steps "
    "guided__steps guided__iterations reguidance__steps mri__acceleration mri__coils every "
    "total_variation__steps".split(),
)
def test_a_count_that_is_none_is_refused_by_name(field, value):
    assert line(**{field: value}).startswith(f"config.{field.replace('__', '.')} is {schema.shown(value)}; give ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": 0}, "config.group is 0; give a whole number at least 1"),
        ({"pictures": -1}, "config.pictures is -1; give a whole number at least 0"),
        ({"optimisation": 7}, "config.optimisation is 7; give a whole number at least 0 and at most 3"),
        ({"seed": -1}, "config.seed is -1"),
        ({"guided__eta": 2.0}, "config.guided.eta is 2.0; give a number at least 0 and at most 1"),
        ({"dps__zeta": 0.0}, "config.dps.zeta is 0.0; give a number above 0"),
        ({"dps__clip": 1}, "config.dps.clip is 1; give True or False"),
        ({"solver": "daps", "daps__sigma_min": 100.0}, "config.daps.sigma_min is 100.0; give a number below sigma_max"),
        ({"daps__chain": "hmcc"}, "config.daps.chain is 'hmcc'; did you mean 'hmc'?"),
        ({"task": ""}, "config.task is ''; give one or several"),
        ({"task": "bicubic,bicubic"}, "config.task is 'bicubic,bicubic'; give one or several"),
        ({"solver": "dps,"}, "config.solver is 'dps,'; give one or several"),
        ({"solver": "dbs"}, "config.solver is 'dbs'; "),
        ({"base": "reguidance"}, "config.base is 'reguidance'"),
        ({"name": ".."}, "config.name is '..'; give a name without a path"),
        ({"name": "/abs"}, "config.name is '/abs'"),
        ({"name": "a\nb"}, "config.name is 'a\\nb'"),
        ({"daps": 3}, "config.daps is 3; give a section with steps, ode_steps"),
        (
            {"sigma_y": 1e-40, "solver": "tds"},
            "config.sigma_y is 1e-40, whose square is 0 in single precision, by which tds divides; give",
        ),
        ({"sigma_y": 0.0, "solver": "dps,mgps"}, "config.sigma_y is 0, by which mgps divides"),
        ({"sigma_y": 0.0, "solver": "reguidance", "base": "tds"}, "config.sigma_y is 0, by which tds divides"),
        (
            {"sigma_y": 0.0, "solver": "reguidance", "reguidance__convention": "likelihood"},
            'config.sigma_y is 0, by which reguidance with convention "likelihood" divides',
        ),
    ],
)
def test_the_rows_that_users_met(changes, words):
    found = line(**changes)
    assert found.startswith(words) and "\n" not in found


def test_what_is_right_passes():
    for changes in (
        {"seed": 10**20},
        {"pictures": 0},
        {"sigma_y": 0.0},
        {"sigma_y": 1},
        {"task": "bicubic, motion_blur"},
    ):
        assert line(**changes) == ""
    assert line(sigma_y=0.0, solver="dps", base="mgps") == ""  # ReGuidance is not asked for


def test_checking_takes_no_time():
    config = configuration().to_dict()
    start = time.perf_counter()
    schema.require(fields.FIELDS, config)
    assert time.perf_counter() - start < 0.05


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("gaussian_blur", {"blur__size": 1001}, "config.blur.size is 1001"),
        ("motion_blur", {"blur__size": 33}, "(33, 33)"),
        ("nonlinear_blur", {"blur__size": 65}, "65"),
        ("gaussian_blur", {"blur__size": 8}, "size is 8; a kernel's size must be odd"),
        ("super_resolution", {"factor": 5}, "5"),
        ("bicubic", {"factor": 64}, "64"),
        ("box_inpainting", {"box__top": 20}, "the box must lie in (32, 32)"),
    ],
)
def test_tasks_that_do_not_fit_the_prior(task, changes, words):
    with pytest.raises(ValueError) as error:
        require_fit(configuration(**changes), ["freeform_inpainting", task], (32, 32, 3))
    assert str(error.value).startswith(f"config.task is {task}, on pictures of 32 x 32: ") and words in str(error.value)


def test_every_task_fits_the_pictures_of_shipped_priors_and_grey_refuses_colour(tmp_path):
    for sides in ((64, 64), (256, 256), (64, 128)):
        config = configuration(mask=mask(tmp_path, *sides))
        require_fit(config, [name for name, each in OPERATORS.items() if not each.kspace], (*sides, 3))
        require_fit(config, [name for name, each in OPERATORS.items() if not each.colour], (*sides, 1))
    with pytest.raises(ValueError, match="colourisation, and the prior's pictures are grey"):
        require_fit(configuration(), ["colourisation"], (64, 64, 1))
    for task in ("mri", "mri_4", "mri_8"):
        with pytest.raises(ValueError, match=f"{task}, and the prior's pictures are RGB; give one of slices, brain128"):
            require_fit(configuration(), [task], (64, 64, 3))


def mask(folder, height, width, inside=200):
    """The file of a mask whose middle is hidden."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = inside
    Image.fromarray(pixels).save(folder / f"{height}-{width}-{inside}.png")
    return str(folder / f"{height}-{width}-{inside}.png")


def test_a_mask_hides_what_is_bright_and_must_be_of_the_pictures_size(tmp_path):
    found = damage.hidden(mask(tmp_path, 12, 16), (12, 16, 3))
    expected = np.zeros((12, 16), bool)
    expected[3:6, 4:8] = True
    np.testing.assert_array_equal(found, expected)
    operator = OPERATORS["inpaint"](configuration(mask=mask(tmp_path, 12, 16)), jax.random.key(0), (12, 16, 3))
    y = np.asarray(operator(jnp.ones((12, 16, 3), jnp.float32)))
    np.testing.assert_array_equal(y, np.repeat(~expected[..., None], 3, -1))
    with pytest.raises(ValueError, match="config.mask is 12 x 16, and the picture 16 x 12; give a mask of"):
        damage.hidden(mask(tmp_path, 12, 16), (16, 12, 3))
    with pytest.raises(ValueError, match="hides nothing"):
        damage.hidden(mask(tmp_path, 12, 16, inside=100), (12, 16, 3))
    with pytest.raises(ValueError, match="config.mask is '', and task inpaint needs one"):
        damage.hidden("", (16, 12, 3))


def test_a_kernel_is_read_and_normalised_and_must_fit(tmp_path):
    given = np.asarray([[0, 1, 0], [2, 4, 0]], np.float64)
    np.save(tmp_path / "k.npy", given)
    np.testing.assert_allclose(damage.kernel(str(tmp_path / "k.npy"), (9, 9, 3)), given / 7, rtol=1e-6)
    Image.fromarray((30 * given).astype(np.uint8)).save(tmp_path / "k.png")
    np.testing.assert_allclose(damage.kernel(str(tmp_path / "k.png"), (9, 9, 3)), given / 7, rtol=1e-6)
    with pytest.raises(ValueError, match="config.kernel is 2 x 3, and the picture 1 x 9; give a smaller kernel"):
        damage.kernel(str(tmp_path / "k.npy"), (1, 9, 3))
    for name, wrong in {"nan": [[np.nan]], "zero": [[0.0]], "negative": [[1.0, -1.0]], "flat": [1.0]}.items():
        np.save(tmp_path / f"{name}.npy", np.asarray(wrong))
        with pytest.raises(ValueError, match="give \\(h, w\\) numbers from 0 on, not all 0"):
            damage.kernel(str(tmp_path / f"{name}.npy"), (9, 9, 3))
    np.save(tmp_path / "object.npy", np.asarray([{}], object))
    with pytest.raises(ValueError, match="config.kernel is .*give a picture or a .npy file"):
        damage.kernel(str(tmp_path / "object.npy"), (9, 9, 3))


def test_what_is_restored_of_a_measurement_is_larger_where_the_task_enlarges():
    config = configuration(factor=3)
    assert damage.restored(config, "bicubic", (5, 7, 3)) == (15, 21, 3)
    assert damage.restored(config, "deblur", (5, 7, 3)) == (5, 7, 3)
    assert damage.damaged(config, "bicubic", (5, 7, 3)) == (6, 9, 3)  # which a third of has whole sides
    assert damage.damaged(config, "deblur", (5, 7, 3)) == (5, 7, 3)
    for task in ("random_inpainting", "motion_blur", "colourisation"):
        with pytest.raises(ValueError, match=f"config.task is {task}, which no given picture has suffered"):
            damage.restored(config, task, (8, 8, 3))


def test_every_solver_has_a_label_of_its_own():
    config = configuration()
    labels = [solvers.label(name, config) for name in METHODS]
    assert len(set(labels)) == len(labels) and "ReGuidance(DAPS)" in labels


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].wrap])
def test_the_registry_knows_which_solvers_divide_by_the_noise(name):
    """Built with a noise that is known to be 0, those refuse it themselves; the others do not."""
    prior = di.gaussian(di.process.VP(), jnp.zeros((4, 4, 3)), jnp.eye(48))
    measurement = di.measure(jax.random.key(0), operators.average_pool(prior.shape, 2), jnp.zeros((4, 4, 3)), 0.0)
    solver = solvers.solver(name, configuration("smoke"), prior)
    trace = lambda: jax.eval_shape(lambda key: solver(key, measurement), jax.random.key(0))
    if METHODS[name].needs_noise:
        with pytest.raises(ValueError, match="sigma_y is 0"):
            trace()
    else:
        trace()


@pytest.mark.parametrize(
    "process", [di.process.VP(), schedule.discrete(), schedule.discrete("cosine"), di.process.EDM()]
)
def test_grids_by_noise_level_are_mapped_by_the_priors_own_process(process):
    """The levels that DAPS and PnP-DM ask for are those at which the prior is asked; in float32, as the command."""
    with jax.enable_x64(False):
        config, ratio = configuration("smoke"), lambda t: float(process.sigma(t) / process.alpha(t))
        found = [ratio(t) for t in grids.cooling(process, 5, config)[:-1]]
        assert found == pytest.approx([10 * 0.9**k for k in range(5)], rel=1e-2)
        annealed = grids.annealing(process, 5, config)
        assert ratio(annealed[3]) == pytest.approx(float(100 * di.times.karras(5, 0.02, 100.0)[3]), rel=1e-2)


def test_diffpirs_levels_are_its_codes():
    """There `floor(sqrt(linspace(0, 1000^2, n)))` counts down from 1000, and the last is index 0, one thousandth."""
    times = np.asarray(grids.quadratic(None, 100, None))
    counted = np.floor(np.sqrt(np.linspace(0, 1000**2, 100)))
    theirs = np.append((1000 - counted)[:-1], 1) / 1000
    np.testing.assert_allclose(times[:-1], theirs, atol=1e-3)
    assert times[0] == 1 and times[-1] == 0 and times[-2] == pytest.approx(1e-3)
    for steps in (2, 5, 100_000):
        found = np.asarray(grids.quadratic(None, steps, None), np.float32)
        assert len(found) == steps + 1 and (np.diff(found) < 0).all()


def test_a_method_is_given_what_its_own_section_says(monkeypatch):
    """And runs for the paper's number of steps, or for `config.steps`."""
    asked = []
    monkeypatch.setitem(METHODS, "tds", METHODS["tds"]._replace(build=lambda prior, m, **given: asked.append(given)))
    monkeypatch.setattr(solvers, "guard", lambda sampler: sampler)
    monkeypatch.setattr(solvers, "as_solver", lambda method, grid: (method(None), len(grid) - 1))
    prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
    assert solvers.solver("tds", configuration(tds__spread=30.0, steps=7), prior) == (None, 7)
    assert solvers.solver("tds", configuration(steps=0), prior) == (None, 100)
    assert asked == [{"spread": 30.0}, {"spread": 1.0}]


def test_a_wrapper_runs_once_for_each_base():
    config = configuration(solver="ddrm,reguidance,dps", base="ddrm,daps")
    assert solvers.chosen(config) == ["ddrm", "reguidance(ddrm)", "reguidance(daps)", "dps"]
    labels = [solvers.label(name, config) for name in solvers.chosen(config)]
    assert labels == ["DDRM", "ReGuidance(DDRM)", "ReGuidance(DAPS)", "DPS"]
    assert solvers.base("reguidance", config) == "ddrm" and solvers.own("reguidance(daps)") == "reguidance"
    assert line(solver="reguidance", base="dps,tds", sigma_y=0.0).endswith("give a number above 0")
