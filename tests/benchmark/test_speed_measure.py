import torch

from dpnorm.benchmark.speed.measure import in_turns, peak_growth

CPU = torch.device("cpu")


class Clock:
    """A clock that runs move, and a record of who moved it."""

    def __init__(self, monkeypatch):
        self.now, self.order = 0.0, []
        monkeypatch.setattr("dpnorm.benchmark.speed.measure.time.perf_counter", lambda: self.now)

    def run(self, name, seconds):
        def work():
            self.order.append(name)
            self.now += seconds

        return work


def test_runs_take_turns_from_either_end(monkeypatch):
    clock = Clock(monkeypatch)
    runs = [clock.run("a", 1.0), clock.run("b", 2.0)]
    times = in_turns(runs, repeats=4, budget=100.0, device=CPU)
    assert "".join(clock.order[4:]) == "abbaabba"  # two each for warm-up
    assert times == [(1.0,) * 4, (2.0,) * 4]


def test_what_is_fast_is_run_several_times_a_sample(monkeypatch):
    clock = Clock(monkeypatch)
    runs = [clock.run("a", 0.001), clock.run("b", 0.5)]
    times = in_turns(runs, repeats=3, budget=100.0, device=CPU)
    assert clock.order.count("a") == 2 + 3 * 5
    assert clock.order.count("b") == 2 + 3
    assert max(abs(t - 0.001) for t in times[0]) < 1e-9


def test_a_budget_bounds_the_number_of_pairs(monkeypatch):
    clock = Clock(monkeypatch)
    for budget, rounds in ((100.0, 15), (20.0, 10), (5.0, 6), (1.0, 3)):
        runs = [clock.run("a", 1.0), clock.run("b", 1.0)]
        assert len(in_turns(runs, repeats=15, budget=budget, device=CPU)[0]) == rounds


def test_the_peak_is_what_a_run_holds_at_most():
    megabytes = 64
    growth = peak_growth(lambda: torch.ones(megabytes * 2**18).sum(), CPU)
    assert growth is None or abs(growth / 2**20 - megabytes) < 16
