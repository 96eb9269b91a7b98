"""`interconn bench`: how fast this machine computes; all of it is measured by accel.bench."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from accel.bench.options import add_options
from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import Group

if TYPE_CHECKING:
    from accel.bench.gpu import Result

_MOST_ROUNDS: Final = 1000
_LARGEST: Final = 1 << 20


def add(group: Group) -> None:
    kernels = group.command("kernels", bench_kernels, "the kernels against other products'", node=False)
    add_options(kernels)
    gpu = group.command("gpu", bench_gpu, "the CUDA kernels against the fastest on the CPU", node=False)
    gpu.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    gpu.add_argument("--batch", type=int, default=8192, help="numbers or points in a batch (8192)")
    gpu.add_argument("--threads", type=int, default=1, help="threads of the CPU backend (1)")


def bench_kernels(call: Call) -> Exit:
    from rich.console import Console  # noqa: PLC0415  # as in gateway.cli.show

    from accel.bench import report, run  # noqa: PLC0415  # loads numpy

    try:
        done = run.run(call.arguments, Console(stderr=True, highlight=False))
    except run.NothingWanted as error:
        raise UsageError(str(error)) from error
    if call.out_dir is not None:
        run.write(done, call.out_dir)
    call.out.value(done.value(), lambda: report.show(done, call.out.console()))
    return Exit.OK


def bench_gpu(call: Call) -> Exit:
    from accel.bench import gpu  # noqa: PLC0415  # loads numpy
    from accel.kernels import MAX_THREADS, DeviceFailed  # noqa: PLC0415

    for option, most in (("rounds", _MOST_ROUNDS), ("batch", _LARGEST), ("threads", MAX_THREADS)):
        if not 1 <= getattr(call, option) <= most:
            raise UsageError(f"--{option}: 1 to {most}")
    results: list[Result] = []
    failure: str | None = gpu.missing()
    if failure is None:
        try:
            for result in gpu.measured(gpu.jobs(call.batch), gpu.GPU, rounds=call.rounds, threads=call.threads):
                results.append(result)
                call.out.line(f"measured: {result.kernel}, {result.detail}")
        except (DeviceFailed, gpu.Disagreement) as error:
            failure = str(error)
    value = {"failure": failure, "results": [asdict(result) for result in results]}
    call.out.value(value, lambda: _print(call, results, failure))
    return Exit.OK if failure is None else Exit.FAILED


def _print(call: Call, results: "list[Result]", failure: str | None) -> None:
    rows = [
        [r.kernel, r.detail, r.unit, f"{r.rate:,.0f}", r.cpu_backend, f"{r.cpu_rate:,.0f}", f"{r.ratio:.2f}"]
        for r in results
    ]
    if rows:
        call.out.table(("kernel", "what", "unit", "GPU", "CPU backend", "CPU", "GPU / CPU"), rows, empty="")
    if failure:
        call.out.line(f"{failure[0].upper()}{failure[1:]}.")
