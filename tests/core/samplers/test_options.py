"""Options that a sampler cannot take are refused by name, before or at the start of a run."""

from collections.abc import Callable

import pytest
import torch

from ornstein.analysis.examples import MIXTURE
from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.denoiser import Denoiser
from ornstein.digits.model import digit_denoiser
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.guidance.minority import minority_scores
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import Mask
from ornstein.inverse_problems.pigdm import PiGDM, PseudoinverseGuidance
from ornstein.inverse_problems.red_diff import REDDiff
from ornstein.parameterization import EDMPreconditioning, Parameterization, V, Velocity
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ddpm import DDPM
from ornstein.process.interpolant import QuadraticGamma, StochasticInterpolant
from ornstein.process.ouve import OUVE
from ornstein.process.vp import VP, CosineVP
from ornstein.samplers.adams import LMS
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.samplers.consistency import Consistency
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolverPP2S, DPMSolverPPSDE
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.lml import LML, DDIMBase
from ornstein.samplers.momentum import HeavyBall
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.pndm import PLMS
from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector
from ornstein.samplers.time_grids import (
    DiscreteGrid,
    KarrasGrid,
    PowerGrid,
    QuadraticGrid,
    ShiftedGrid,
    TruncatedGrid,
    UniformGrid,
    UserGrid,
)

NAN = float("nan")
H, R = Mask(torch.tensor([1.0, 0.0])), torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ancestral(eta=2.0), "between 0"),
        (lambda: Ancestral(eta=-1.0), "between 0"),
        (lambda: DPMSolverPP(eta=-1.0), "not negative"),
        (lambda: DPMSolverPP(second="foo"), "midpoint and heun, not 'foo'"),
        (lambda: VelocityFlow(method="rk4"), "not 'rk4'"),
        (lambda: DiscreteGrid("foo"), "not 'foo'"),
        (lambda: DPMSolverPP2S(eta=2.0), "between 0"),
        (lambda: DPMSolverPPSDE(eta=-1.0), "between 0"),
        (lambda: ChurnedHeun(churn=-1.0), "not negative"),
        (lambda: PredictorCorrector(corrector_steps=-1), "not negative"),
        (lambda: PredictorCorrector(noise_scale=-1.0), "not negative"),
        (lambda: KarrasGrid(rho=0.0), "rho of KarrasGrid has to be positive"),
        (lambda: ShiftedGrid(0.0), "shift of ShiftedGrid has to be positive"),
        (lambda: PowerGrid(-1.0), "power of PowerGrid has to be positive"),
        (lambda: ChurnedHeun(churn=NAN), "not negative"),
        (lambda: ChurnedHeun(rho_min=9.0, rho_max=1.0), "no s/a lies between 9.0 and 1.0"),
        (lambda: PredictorCorrector(noise_scale=NAN), "not negative"),
        (lambda: Langevin(snr=-1.0), "ratio of a correction is not negative, got -1.0"),
        (lambda: AnnealedLangevin(snr=NAN), "got nan"),
        (lambda: ProbabilityFlowODE(rtol=-1.0), "tolerances rtol and atol have to be positive"),
        (lambda: ProbabilityFlowODE(method="euler"), "'euler' does not choose its steps; take one of dopri5, "),
        (lambda: LMS(order=2.5), "orders 1 to 5 here, not 2.5"),  # type: ignore[arg-type]
        (lambda: PLMS(order=2.5), "orders 1 to 4, not 2.5"),  # type: ignore[arg-type]
        (lambda: Consistency(rho_min=-1.0), "not negative, got -1.0"),
        (lambda: PublishedBridge(mode="foo"), "modes sde and ode, not 'foo'"),  # type: ignore[arg-type]
        (lambda: PublishedResidual(eta=-1.0), "between 0"),
        (lambda: DPS(operator=H, measurement=R, eta=3.0), "between 0"),
        (lambda: DPS(operator=H, measurement=R, scale=-1.0), "scale weighs the correction"),
        (lambda: PiGDM(operator=H, measurement=R, scale=NAN), "scale weighs the correction"),
        (lambda: PiGDM(operator=H, measurement=R, sigma=-1.0), "sigma is a standard deviation"),
        (lambda: DDRM(operator=H, measurement=R, sigma=NAN), "needs sigma >= 0"),
        (
            lambda: REDDiff(operator=H, measurement=R, weighting="foo"),  # type: ignore[arg-type]
            "weights linear, sqrt, square, log, clip, constant, not 'foo'",
        ),
        (lambda: REDDiff(operator=H, measurement=R, learning_rate=0.0), "learning_rate and epsilon are positive"),
        (lambda: REDDiff(operator=H, measurement=R, weight=-1.0), "not negative"),
    ],
)
def test_refused_when_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeavyBall(base=HeavyBall(beta=0.5)), "HeavyBall does not take HeavyBall .* only the inner"),
        (lambda: HeavyBall(base=LML(base=HeavyBall())), "HeavyBall does not take HeavyBall"),
        (lambda: HeavyBall(base=DDIMBase()), "HeavyBall does not take DDIMBase .* does not converge"),
        (lambda: HeavyBall(base=LML(base=DDIMBase())), "HeavyBall does not take DDIMBase"),
        (lambda: LML(base=LML()), "LML does not take LML .* only the inner"),
        (lambda: LML(base=HeavyBall(base=LML())), "LML does not take LML"),
        (lambda: LML(base=Consistency()), "LML does not take Consistency .* anew"),
    ],
)
def test_bases_that_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (HeavyBall(4, base=Heun()), "HeavyBall needs a base of one call a step, which Heun is not"),
        (LML(4, base=Heun()), "LML needs a base of one call a step"),
        (LML(4, base=Ancestral()), "not Ancestral"),  # type: ignore[arg-type]
        (Euler(2, UserGrid((1.5, 0.5, 0.1))), r"outside \[0, 1\] on VP: 1.5, 0.5, 0.1"),
        (Euler(2, UserGrid((1.0, 0.5, -0.1))), "outside"),
        (Euler(2, QuadraticGrid(end=-0.1)), "-0.1 is negative"),
        (Euler(2.5), "and a whole number of them"),  # type: ignore[arg-type]
    ],
)
def test_refused_at_the_start(sampler: Sampler, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampler(MixtureDenoiser(MIXTURE, VP()), torch.randn(2, 2, dtype=torch.float64))


def wrong_shapes() -> list[tuple[Callable[[], object], str]]:
    """Batches that do not fit each other, with what is said."""
    plain, observed = MixtureDenoiser(MIXTURE, VP()), MixtureDenoiser(MIXTURE, OUVE())
    x, rows, labels = torch.zeros(2, 2).double(), torch.zeros(3, 2).double(), torch.tensor([1, 2, 3])
    digits, blank = digit_denoiser(), torch.zeros(2, 1, 8, 8)
    guided = ClassifierFreeGuidance(digits, 2.0, {"label": torch.tensor(10)})
    return [
        (lambda: Euler(3)(observed, x, rows), r"observation \(3, 2\); give an observation of the same shape"),
        (lambda: Euler(3)(observed, x, torch.zeros(2, 1).double()), "of the same shape"),
        (lambda: Euler(3)(plain, x, rows), "as many rows"),
        (lambda: Euler(3)(plain, x[0]), r"signals of this mixture are \(B, \*\)"),
        (lambda: Ancestral(3)(plain, x, None, lambda like: rows), r"noise has shape \(3, 2\), the state \(2, 2\)"),
        (lambda: Euler(3)(digits, blank, label=labels), "condition label has 3 rows and the batch 2 samples"),
        (lambda: Euler(3)(guided, blank, label=labels), "condition label has 3 rows and the batch 2 samples"),
        (lambda: guided(blank, 0.5, label=labels), "condition label has 3 rows and the batch 2 samples"),
        (lambda: Euler(3)(guided, blank, label=torch.tensor([1.0, 2.0])), "labels are whole numbers"),
        (lambda: Euler(3)(digits, blank, embedding=torch.zeros(2, 7)), "embeddings have 128 values here"),
        (lambda: digits(blank, 0.5, label=labels[:2], embedding=torch.zeros(2, 128)), "give one"),
        (lambda: DPS(3, operator=H, measurement=rows)(plain, x), r"measurement has shape \(3, 2\)"),
        (lambda: DDRM(3, operator=H, measurement=torch.zeros(2, 5))(plain, x), r"measurement has shape \(2, 5\)"),
        (lambda: DDRM(3, operator=H, measurement=torch.zeros(2, 5)).start(VP(), torch.zeros_like), "does not fit"),
        (lambda: PseudoinverseGuidance(plain, H, rows, 0.1)(x, 0.5), r"measurement has shape \(3, 2\)"),
        (lambda: Euler(5, DiscreteGrid())(plain, x), "DiscreteGrid takes the times of a table .* VP has no table"),
        (lambda: Euler(5, TruncatedGrid())(plain, x), "VP has no table; take UniformGrid"),
        (lambda: minority_scores(plain, x, 5.0, torch.zeros_like), "t is 5.* from 0 to 1"),
    ]


@pytest.mark.parametrize(("make", "message"), wrong_shapes())
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_one_condition_for_all_is_one_for_each() -> None:
    guided = ClassifierFreeGuidance(digit_denoiser(), 2.0, {"label": torch.tensor(10)})
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    each = Euler(3)(guided, x, label=torch.tensor([4, 4]))
    for label in (torch.tensor(4), torch.tensor([4])):
        torch.testing.assert_close(Euler(3)(guided, x, label=label), each)


@pytest.mark.parametrize("meaning", [V(), EDMPreconditioning(), Velocity()])
def test_a_network_that_says_nothing_at_the_start_of_a_bridge(meaning: Parameterization) -> None:
    class Shrinks(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 0.1 * x

    y = torch.ones(2, 3)
    with pytest.raises(ValueError, match="as at this time of SchroedingerBridge; begin below T"):
        Euler(3)(Denoiser(Shrinks(), SchroedingerBridge(), meaning), y, y)


def test_half_precision_is_not_taken_for_a_bad_start() -> None:
    """The limit of divergence is beyond what half precision holds."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        sample = Euler(4, UniformGrid(end=0.05))(MixtureDenoiser(MIXTURE, VP()), x.to(dtype))
        assert sample.dtype == dtype
        assert sample.isfinite().all()


def test_many_times_are_not_all_told() -> None:
    times = tuple(float(t) for t in range(2020, 1999, -1))
    with pytest.raises(UserError, match=r"outside \[0, 1000\] on DDPM: 2020, .*, \.\.\., .*, 2000;"):
        Euler(20, UserGrid(times))(MixtureDenoiser(MIXTURE, DDPM()), torch.randn(2, 2, dtype=torch.float64))


def test_churn_is_not_raised_to_where_lambda_does_not_exist() -> None:
    process = StochasticInterpolant(gamma=QuadraticGamma())
    x, y = (torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert ChurnedHeun(5)(MixtureDenoiser(MIXTURE, process), x, y, torch.zeros_like).isfinite().all()


@pytest.mark.parametrize("steps", [7, 10, 20])
def test_the_flow_in_t_reaches_the_clean_end_of_the_cosine_schedule(steps: int) -> None:
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampler = VelocityFlow(steps, UniformGrid(start=0.99, end=0.0), method="heun")
    assert sampler(MixtureDenoiser(MIXTURE, CosineVP()), x).isfinite().all()
