"""Processes and grids of scheduler configurations, against diffusers' own schedulers."""

import json
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from ornstein.adapters.diffusers import diffusers_denoiser
from ornstein.adapters.schedulers import (
    FlowMatchGrid,
    FlowMatching,
    flow_grid,
    load_scheduler_config,
    scheduler_prediction,
    scheduler_process,
)
from ornstein.errors import UserError
from ornstein.inversion.edit_friendly import EditFriendlyInversion
from ornstein.noise import SampleNoise
from ornstein.process.ddpm import DDPM
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.vp import VP
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.unipc import UniPC
from tests.core.adapters.tiny import sd3
from tests.core.inversion.exact import random

FLOWS = [
    {},
    {"shift": 3.0},
    {"shift": 3.0, "num_train_timesteps": 500},
    {"shift": 3.0, "use_karras_sigmas": True},
    {"shift": 0.7, "use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"shift": 2.0, "shift_terminal": 0.1},
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear", "base_shift": 0.8, "shift_terminal": 0.02},
]


def mu(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int) -> float | None:
    """The shift that the pipelines give the scheduler for a picture of `tokens`."""
    c = scheduler.config
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return slope * tokens + c.base_shift - slope * c.base_image_seq_len if c.use_dynamic_shifting else None


@pytest.mark.parametrize("options", FLOWS, ids=str)
def test_the_grid_is_that_of_the_scheduler(options: dict[str, object]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    for steps in (2, 7, 28):
        scheduler.set_timesteps(steps, mu=mu(scheduler, 1024))
        process, grid = scheduler_process(scheduler.config), flow_grid(scheduler.config, tokens=1024)
        times = grid(process, steps)
        torch.testing.assert_close(times.float(), scheduler.sigmas, rtol=1e-5, atol=1e-6)
        assert times[-1] == 0
        told = process.network_time(times[:-1]).float()
        torch.testing.assert_close(told, scheduler.timesteps, rtol=1e-5, atol=1e-3)


def test_pipelines_that_end_at_one_over_the_steps() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 4, 4), mu=mu(scheduler, 4096))
    grid = replace(flow_grid(scheduler.config, tokens=4096), end=None)
    torch.testing.assert_close(grid(FlowMatching(), 4).float(), scheduler.sigmas)


@pytest.mark.parametrize("sampler", [Euler, VelocityFlow, lambda n, grid: DPMSolverPP(n, grid, order=1)])
@pytest.mark.parametrize("options", [FLOWS[0], FLOWS[1], FLOWS[7]], ids=str)
def test_steps_on_a_network_of_sd3_are_those_of_the_scheduler(options: dict[str, object], sampler) -> None:  # type: ignore[no-untyped-def]
    model, scheduler = sd3(), FlowMatchEulerDiscreteScheduler(**options)
    text = {"encoder_hidden_states": random(2, 5, 6).float(), "pooled_projections": random(2, 5, seed=1).float()}
    start = random(2, 4, 8, 8, seed=2).float()
    scheduler.set_timesteps(6, mu=mu(scheduler, 16))
    state, expected = start, []
    with torch.no_grad():
        for t in scheduler.timesteps:
            state = scheduler.step(model(state, timestep=t.expand(2), **text).sample, t, state).prev_sample
            expected.append(state)
    denoiser = diffusers_denoiser(
        model, scheduler_process(scheduler.config), scheduler_prediction(scheduler.config)
    ).requires_grad_(False)
    run = sampler(6, flow_grid(scheduler.config, tokens=16))
    found = list(run.trajectory(denoiser, start, None, None, **text))
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-4, atol=2e-5)
    plain = diffusers_denoiser(model, RectifiedFlow(), "flow_prediction").requires_grad_(False)
    wrong = list(run.trajectory(plain, start, None, None, **text))
    assert not torch.allclose(wrong[-1], expected[-1], atol=1e-3), "the network must notice its time"


def test_other_solvers_and_inversion_on_a_network_of_sd3() -> None:
    config = FlowMatchEulerDiscreteScheduler(shift=3.0).config
    denoiser = diffusers_denoiser(sd3().double(), scheduler_process(config), scheduler_prediction(config))
    denoiser.requires_grad_(False)
    text = {"encoder_hidden_states": random(1, 5, 6), "pooled_projections": random(1, 5, seed=1)}
    start, grid = random(1, 4, 8, 8, seed=2), flow_grid(config)
    exact = VelocityFlow(200, grid, method="heun")(denoiser, start, None, None, None, **text)
    for sampler in (Euler, DPMSolverPP, UniPC):
        few, many = (sampler(n, grid)(denoiser, start, None, None, None, **text) for n in (16, 128))
        assert (many - exact).abs().amax() < 0.4 * (few - exact).abs().amax()
    edit = EditFriendlyInversion(4, FlowMatchGrid(3.0, start=0.9))
    code = edit(denoiser, exact, SampleNoise([0]), **text)
    torch.testing.assert_close(edit.decode(denoiser, code, **text), exact, rtol=0, atol=1e-6)


def test_flow_configurations_of_multistep_solvers() -> None:
    config = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0).config
    assert scheduler_process(config) == FlowMatching(1000)
    assert scheduler_prediction(config) == "flow_prediction"
    with pytest.raises(UserError, match="choose a grid"):
        flow_grid({**config, "_class_name": "UniPCMultistepScheduler"})
    assert scheduler_process(diffusers.FlowMatchHeunDiscreteScheduler().config) == FlowMatching(1000)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01, 0.02, 0.5], "num_train_timesteps": 3},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    ],
    ids=str,
)
def test_the_process_is_that_of_the_scheduler(options: dict[str, object]) -> None:
    scheduler = DDPMScheduler(**options)
    process = scheduler_process(scheduler.config)
    assert isinstance(process, DDPM)
    assert scheduler_prediction(scheduler.config) == "epsilon"
    t = torch.arange(1, len(scheduler.alphas_cumprod) + 1, dtype=torch.float64)
    a = process.coefficients(t).a
    torch.testing.assert_close(a.square(), scheduler.alphas_cumprod.double(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(process.network_time(t), t - 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "sigmoid"}, "ListedBetas"),
        ({"beta_schedule": "linear"}, "no usable betas"),
        ({"trained_betas": [0.1, 2.0], "num_train_timesteps": 2}, "no usable betas"),
        ({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": "many"}, "num_train_timesteps"),
        ({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 0}, "num_train_timesteps"),
        ({}, "neither betas nor a flow"),
        ({"_class_name": "KarrasVeScheduler", "sigma_min": 0.02}, "KarrasVeScheduler has neither betas nor a flow"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDMPreconditioning"),
        (dict(diffusers.EulerDiscreteScheduler(timestep_type="continuous").config), "EDMPreconditioning"),
        (dict(diffusers.CogVideoXDDIMScheduler().config), "snr_shift_scale"),
        ({**FlowMatchEulerDiscreteScheduler().config, "invert_sigmas": True}, "invert_sigmas"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_scheduler_that_cannot_be_read_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scheduler_process(config)


def test_grids_that_cannot_be_made() -> None:
    config = dict(FlowMatchEulerDiscreteScheduler().config)
    for change, message in (
        ({"use_dynamic_shifting": True}, "give tokens"),
        ({"shift": "three"}, "no usable shift"),
        ({"shift": -1.0}, "must be positive"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "karras and beta"),
    ):
        with pytest.raises(UserError, match=message):
            flow_grid({**config, **change})
    with pytest.raises(UserError, match="choose a grid"):
        flow_grid(DDPMScheduler().config)
    with pytest.raises(UserError, match="cubic"):
        flow_grid({**config, "use_dynamic_shifting": True, "time_shift_type": "cubic"}, tokens=4)
    for bad in ({"start": 1.5}, {"end": 0.0}, {"terminal": 1.0}, {"spacing": "even"}):
        with pytest.raises(UserError):
            FlowMatchGrid(**bad)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="two steps"):
        FlowMatchGrid(terminal=0.1)(FlowMatching(), 1)
    with pytest.raises(UserError, match="at least one step"):
        FlowMatchGrid()(FlowMatching(), 0)
    with pytest.raises(UserError, match="T = 1"):
        FlowMatchGrid()(DDPM(), 4)
    with pytest.raises(UserError, match="at least 1"):
        FlowMatching(0)
    assert FlowMatchGrid()(VP(), 1).tolist() == [1.0, 0.0]


def test_a_configuration_is_read_from_a_pipeline_folder(tmp_path: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.save_pretrained(tmp_path / "scheduler")
    config = load_scheduler_config(tmp_path)
    assert config["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert flow_grid(config) == flow_grid(scheduler.config)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    for text, message in (("{", "cannot read"), (json.dumps([1]), "holds no scheduler")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_scheduler_config(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        load_scheduler_config(tmp_path / "elsewhere")
