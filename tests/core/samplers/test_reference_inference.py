"""Published solvers step by step (inference, README of the vectors), on mixtures whose denoiser is exact."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.process.affine import Coefficients, Process
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.samplers.adams import DEIS, LMS, ExponentialAdams
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.compat_evodiff import PublishedEVODiff
from ornstein.samplers.dpm_multistep import DPMSolver, DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolver2, DPMSolverPP2S, DPMSolverPPSDE
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.lml import LML, DDIMBase
from ornstein.samplers.momentum import GHVB, HeavyBall
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.pndm import PLMS
from ornstein.samplers.time_grids import DiscreteGrid, UserGrid
from ornstein.samplers.unipc import UniPC

from .listed import Listed, RescaledTime, ddpm_rho, mixture_of, replay

T64 = {"rtol": 1e-9, "atol": 1e-9}


def steps_of(case: str) -> int:
    return int(case.rsplit("__", 1)[1])


def cases(*names: str) -> Callable[[ReferenceFile], list[str]]:
    """Arrays NAME__n whose number n of steps is whole."""

    def find(vectors: ReferenceFile) -> list[str]:
        found = [name for name in vectors.names if "__" in name and name.rsplit("__", 1)[1].isdigit()]
        return [name for name in found if any(name.startswith(start) for start in names)]

    return find


def trajectory(vectors: ReferenceFile, sampler: Sampler, process: Process) -> Tensor:
    """The states, start first."""
    x = vectors.tensor("x_T")
    noise = replay(vectors.tensor("noise")) if "noise" in vectors else None
    return torch.stack([x, *sampler.trajectory(MixtureDenoiser(mixture_of(vectors), process), x, None, noise)])


# -- k-diffusion -------------------------------------------------------------------------------------------------------

K_DIFFUSION: dict[str, Sampler] = {
    "euler": Euler(),
    "heun": Heun(),
    "dpm_2": DPMSolver2(),
    "lms": LMS(order=4),
    "dpmpp_2m": DPMSolverPP(),
    "euler_ancestral_eta1.0": Ancestral(),
    "dpmpp_2s_ancestral_eta1.0": DPMSolverPP2S(eta=1.0),
    "dpmpp_2m_sde_eta1.0_solver_typemidpoint": DPMSolverPP(eta=1.0),
    "dpmpp_2m_sde_eta0.7_solver_typeheun": DPMSolverPP(eta=0.7, second="heun"),
    "dpmpp_3m_sde_eta1.0": DPMSolverPP(order=3, eta=1.0, second="heun"),
    "dpmpp_3m_sde_eta0.0": DPMSolverPP(order=3, second="heun"),
    "dpmpp_sde_eta1.0": DPMSolverPPSDE(),
}


@reference_files("inference", "kdiffusion_ve*.npz", cases=cases(*(f"{name}__" for name in K_DIFFUSION)), needs=["x_T"])
def test_k_diffusion(vectors: ReferenceFile, case: str) -> None:
    name, n = case.rsplit("__", 1)
    process = Listed(vectors.tensor(f"sigmas_{n}"), preserving=False)
    sampler = replace(K_DIFFUSION[name], steps=int(n))
    torch.testing.assert_close(trajectory(vectors, sampler, process), vectors.tensor(case), **T64)
    assert sampler.evaluations(process) == vectors.number(f"{case}_nfe")


# -- azula -------------------------------------------------------------------------------------------------------------

AZULA: dict[str, Sampler] = {
    "ddim": Euler(),
    "euler": Euler(),
    "ddpm": Ancestral(),
    "heun": Heun(),
    "zAB3": LMS(order=3),
    "zEAB2": DEIS(order=2),
    "xEAB2": ExponentialAdams(order=2),
}


class Azula(Process):
    """The schedules of azula: sigma^2 = 1 - alpha^2 + sigma_min^2 leaves a little noise at t = 0."""

    def __init__(self, name: str, alpha_min: float, sigma_min: float) -> None:
        self.name, self.alpha_min, self.sigma_min = name, alpha_min, sigma_min

    def coefficients(self, t: Tensor) -> Coefficients:
        if self.name == "rectified":
            a, s = 1 - (1 - self.alpha_min) * t, self.sigma_min + (1 - self.sigma_min) * t
        elif self.name == "ve":
            a, s = torch.ones_like(t), self.sigma_min ** (1 - t) * 100**t
        else:
            angle = math.acos(self.alpha_min) * t
            a = torch.cos(angle) if self.name == "cosine" else torch.exp(t**2 * math.log(self.alpha_min))
            s = (1 - a**2 + self.sigma_min**2).sqrt()
        return Coefficients(a=a, b=torch.zeros_like(t), s=s, phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        raise NotImplementedError


def azula_cases(vectors: ReferenceFile) -> list[str]:
    return [name for name in vectors.names if name.count("__") == 2 and name.split("__")[1] in AZULA]


@reference_files("inference", "azula_uniform_t*.npz", cases=azula_cases, needs=["alpha_min", "sigma_min"])
def test_azula(vectors: ReferenceFile, case: str) -> None:
    schedule, name, n = case.split("__")
    process = Azula(schedule, vectors.number("alpha_min"), vectors.number("sigma_min"))
    sampler = replace(AZULA[name], steps=int(n))
    denoiser = MixtureDenoiser(mixture_of(vectors), process)
    result = sampler(denoiser, vectors.tensor(f"{schedule}__x_T"), noise=replay(vectors.tensor("noise")))
    torch.testing.assert_close(result, vectors.tensor(case), **T64)


# -- diffusers ---------------------------------------------------------------------------------------------------------

BELOW_15 = 15
"""diffusers lowers the order of the last steps below 15 steps."""

ON_SIGMAS: dict[str, Sampler] = {
    "dpmpp_1m_linspace_zero": DPMSolverPP(order=1, easing=BELOW_15),
    "dpmpp_2m_linspace_zero": DPMSolverPP(easing=BELOW_15),
    "dpmpp_3m_linspace_zero": DPMSolverPP(order=3, easing=BELOW_15),
    "dpmpp_2m_heun_trailing_sigmin": DPMSolverPP(second="heun", easing=BELOW_15),
    "dpm_2m_eps_linspace_sigmin": DPMSolver(easing=BELOW_15),
    "sde_dpmpp_2m_linspace_zero": DPMSolverPP(eta=1.0, easing=BELOW_15),
    "unipc2_bh2_linspace_zero": UniPC(order=2),
    "unipc3_bh2_linspace_zero": UniPC(order=3),
    "unipc2_bh1_linspace_sigmin": UniPC(order=2, variant="bh1"),
    "unipc3_bh1_linspace_sigmin": UniPC(order=3, variant="bh1"),
    "unip2_nocorr_linspace_zero": UniPC(corrector=False),
    "deis2_linspace": DEIS(order=2, easing=BELOW_15),
}


@reference_files("inference", "diffusers_vp*.npz", cases=cases(*(f"{name}__" for name in ON_SIGMAS)), needs=["betas"])
def test_diffusers(vectors: ReferenceFile, case: str) -> None:
    process = Listed(vectors.tensor(f"{case}_sigmas"), preserving=True)
    sampler = replace(ON_SIGMAS[case.rsplit("__", 1)[0]], steps=steps_of(case))
    torch.testing.assert_close(trajectory(vectors, sampler, process), vectors.tensor(case), **T64)


ON_INDICES: dict[str, tuple[Sampler, DiscreteGrid]] = {
    "ddim_leading": (Euler(), DiscreteGrid("leading")),
    "ddim_trailing": (Euler(), DiscreteGrid("trailing")),
    "ddim_leading_off1_noone": (Euler(), DiscreteGrid("leading", offset=1, to_zero=False)),
    "ddim_eta1_trailing": (Ancestral(), DiscreteGrid("trailing")),
    "ddpm_small_trailing": (Ancestral(), DiscreteGrid("trailing")),
    "plms_leading": (PLMS(), DiscreteGrid("leading")),
}


def ddpm(betas: Tensor) -> Listed:
    """All indices of a DDPM as one process: index i is the time i + 1, time 0 is clean."""
    return Listed(ddpm_rho(betas, torch.arange(len(betas)).flip(0), 1.0), preserving=True)


@reference_files("inference", "diffusers_vp*.npz", cases=cases(*(f"{name}__" for name in ON_INDICES)), needs=["betas"])
def test_diffusers_on_indices(vectors: ReferenceFile, case: str) -> None:
    sampler, grid = ON_INDICES[case.rsplit("__", 1)[0]]
    process, expected = ddpm(vectors.tensor("betas")), vectors.tensor(case)
    sampler = replace(sampler, steps=steps_of(case), grid=grid)
    if f"{case}_t" in vectors:
        visited = torch.tensor(list(dict.fromkeys(vectors[f"{case}_t"].tolist()))).double()
        torch.testing.assert_close(sampler.times(process)[:-1], visited + 1)
    if isinstance(sampler, PLMS):  # the published states show the Euler step that the second call corrects
        expected = torch.cat([expected[:1], expected[2:]])
        assert sampler.evaluations(process) == sampler.steps + 1
    torch.testing.assert_close(trajectory(vectors, sampler, process), expected, **T64)


def linspace_cases(vectors: ReferenceFile) -> list[str]:
    return [name for name in vectors.prefixes("_t") if "_linspace" in name]


@reference_files("inference", "diffusers_vp*.npz", cases=linspace_cases, needs=["betas"])
def test_discrete_linspace(vectors: ReferenceFile, case: str) -> None:
    times = DiscreteGrid("linspace")(ddpm(vectors.tensor("betas")), steps_of(case))
    torch.testing.assert_close(times[:-1], vectors.tensor(f"{case}_t") + 1)


@reference_files("inference", "diffusers_vp*.npz", cases=cases("dpmpp_2m_lulambdas_sigmin__"), needs=["{case}_t"])
def test_a_network_asked_at_rounded_indices(vectors: ReferenceFile, case: str) -> None:
    """The update uses the exact lambda nodes, the model is evaluated at the nearest index."""
    process = Listed(vectors.tensor(f"{case}_sigmas"), preserving=True)
    table = ddpm(vectors.tensor("betas"))
    indices = vectors.tensor(f"{case}_t")
    denoiser = RescaledTime(
        MixtureDenoiser(mixture_of(vectors), table), process, lambda t: indices[len(indices) - int(t)] + 1
    )
    x = vectors.tensor("x_T")
    states = DPMSolverPP(steps_of(case), easing=BELOW_15).trajectory(denoiser, x)
    torch.testing.assert_close(torch.stack([x, *states]), vectors.tensor(case), **T64)


@reference_files("inference", "diffusers_vp*.npz", cases=cases("flow_euler__"), needs=["{case}_sigmas"])
def test_flow_euler(vectors: ReferenceFile, case: str) -> None:
    sampler = VelocityFlow(steps_of(case), UserGrid(tuple(vectors[f"{case}_sigmas"].tolist())))
    torch.testing.assert_close(trajectory(vectors, sampler, RectifiedFlow()), vectors.tensor(case), **T64)


# -- momentum ----------------------------------------------------------------------------------------------------------


@reference_files("inference", "momentum*.npz", cases=cases("hb_", "nt_", "ghvb_"), needs=["betas"])
def test_momentum(vectors: ReferenceFile, case: str) -> None:
    kind, order = case.rsplit("__", 1)[0].split("_")
    order, n = float(order), steps_of(case)
    plms = PLMS(order=math.ceil(order), corrected_start=False)
    beta = order - math.floor(order) or 1.0
    sampler = GHVB(n, order=order) if kind == "ghvb" else HeavyBall(n, base=plms, beta=beta, nesterov=kind == "nt")
    process = Listed(ddpm_rho(vectors.tensor("betas"), vectors.tensor(f"t_{n}"), 1.0), preserving=True)
    torch.testing.assert_close(trajectory(vectors, sampler, process), vectors.tensor(case), **T64)
    assert sampler.evaluations(process) == n


@reference_files("inference", "momentum*.npz", cases=cases("dpmpp2m_hb"), needs=["betas"])
def test_momentum_of_dpm_solver(vectors: ReferenceFile, case: str) -> None:
    beta, n = float(case.rsplit("__", 1)[0].removeprefix("dpmpp2m_hb")), steps_of(case)
    base = DPMSolverPP(easing=BELOW_15)
    sampler = HeavyBall(n, base=base, beta=beta, plain_first=True, plain_last=n < BELOW_15)
    process = Listed(ddpm_rho(vectors.tensor("betas"), vectors.tensor(f"dpm_t_{n}"), None), preserving=True)
    torch.testing.assert_close(trajectory(vectors, sampler, process), vectors.tensor(case), **T64)


# -- EVODiff and LML ---------------------------------------------------------------------------------------------------


@reference_files("inference", "evodiff*.npz", cases=cases("evodiff_"), needs=["{case}_t"])
def test_evodiff(vectors: ReferenceFile, case: str) -> None:
    sigmas = vectors.tensor(f"{case}_t")
    if "_dz1__" in case:
        sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    process = Listed(sigmas, preserving=False)
    sampler = PublishedEVODiff(len(sigmas) - 1)
    result = trajectory(vectors, sampler, process)[-1]
    torch.testing.assert_close(result, vectors.tensor(case), rtol=1e-7, atol=1e-7)
    assert sampler.evaluations(process) == vectors.number(f"{case}_nfe")


LML_BASES = {"ddim": DDIMBase(), "dpmpp2m": DPMSolverPP(easing=BELOW_15), "dpm3m": DPMSolver(order=3, easing=BELOW_15)}


@reference_files("inference", "lml*.npz", cases=cases(*(f"{name}_" for name in LML_BASES)), needs=["betas"])
def test_lml(vectors: ReferenceFile, case: str) -> None:
    name, n = case.split("_")[0], steps_of(case)
    t = vectors.tensor(f"{name}__t_{n}")
    final = 1.0 if name == "ddim" else None
    rho = ddpm_rho(vectors.tensor("betas"), t if name == "ddim" else torch.cat([t, t.new_zeros(1)]), final)
    sampler: Sampler = replace(LML_BASES[name], steps=n)
    if "_lam" in case:
        damping, memory = (float(value) for value in case.split("_lam")[1].rsplit("__", 1)[0].split("_kap"))
        sampler = LML(n, base=LML_BASES[name], damping=damping, memory=memory, relative=False)
    # upstream loses digits in q = e - m <e, m>/(lam + <m, m>), which is almost 0 where there is no memory yet
    tolerance = T64 if "_base" in case else {"rtol": 1e-7, "atol": 1e-6}
    torch.testing.assert_close(trajectory(vectors, sampler, Listed(rho, True)), vectors.tensor(case), **tolerance)
