"""Networks are dropped when the end is projected too late, and hearing ends before the time is over. Nothing here waits."""

from dataclasses import replace

import pytest
import torch
from made_up_detector import loudness_detector, with_weight

from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.submission.pace import MARGIN, FewerMembersError, OutOfTimeError, Pace, Stopwatch, deadline


class Clock:
    """Seconds that pass only when something takes them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Run:
    """Files of 600 s in batches of 100 s; each network takes `member_s` a batch and the rest `shared_s`."""

    def __init__(
        self, deadline: float | None, *, num_files: int = 10, member_s=(4.0, 2.0, 2.0), shared_s: float = 2.0, threads: int = 1
    ) -> None:
        self.clock, self.said = Clock(), []
        self.watch = Stopwatch(self.clock, [0.0] * len(member_s))
        self.member_s, self.shared_s, self.num_files = member_s, shared_s, num_files
        self.pace = Pace(self.watch, deadline, 600.0 * num_files, len(member_s), self.said.append, threads)
        self.threads = threads
        self.heard: list[tuple[int, int]] = []

    def batch(self) -> None:
        self.clock.now += self.shared_s
        for number in range(self.pace.num_members):
            self.clock.now += self.member_s[number]
            self.watch.seconds[number] += self.member_s[number] * self.threads

    def file(self, number: int) -> None:
        while True:
            members = self.pace.num_members
            try:
                self.pace.begin(600.0)
                for end_s in range(100, 601, 100):
                    self.batch()
                    self.pace.advance(end_s * 32_000.0)
                self.heard.append((number, members))
                return
            except FewerMembersError:
                continue

    def all(self) -> "Run":
        for number in range(self.num_files):
            self.file(number)
        return self


def test_with_enough_time_all_networks_hear_everything():
    run = Run(700.0).all()  # 60 batches of 10 s
    assert run.heard == [(number, 3) for number in range(10)] and run.said == [] and run.clock.now == 600.0
    assert Run(None).all().clock.now == 600.0


def test_two_threads_that_hear_at_once_do_not_count_twice():
    """Each network takes its time in both. Counted twice, two networks would seem to need no more than 4 s a batch, and one would be enough."""
    assert Run(560.0, threads=2).all().heard == Run(560.0).all().heard
    run = Run(560.0, threads=2)
    run.file(0)
    assert run.pace.projected_end(2, 6000.0) - run.clock.now == pytest.approx(MARGIN * 8.0 * 60)


def test_networks_are_dropped_from_the_end_as_far_as_the_time_needs():
    """With two networks a batch takes 8 s: 60 of them and the beginning of the first file end before 560."""
    run = Run(560.0).all()
    assert {members for _, members in run.heard} == {2} and len(run.heard) == 10
    assert run.clock.now < 560.0
    (line,) = run.said
    assert line.startswith("Too slow by ") and line.endswith(": going on with the first 2 of 3 models, with their own weights.")


def test_one_network_is_left_and_the_late_rows_are_announced_once():
    run = Run(150.0)
    with pytest.raises(OutOfTimeError):
        run.all()
    assert run.pace.num_members == 1
    assert [" first 1 of 3 " in line for line in run.said] == [True, False]
    assert run.said[1].endswith("fewer models do not help: the last rows will not be heard.")
    assert 140.0 < run.clock.now <= 150.0, "stops when the next batch would end too late, and not much before"


def test_a_network_that_gets_slow_is_noticed_later():
    run = Run(700.0)
    for number in range(5):
        run.file(number)
    run.member_s = (4.0, 2.0, 20.0)
    for number in range(5, 10):
        run.file(number)
    assert run.heard[4] == (4, 3) and run.heard[-1][1] < 3


def test_the_first_batch_does_not_count_and_neither_does_too_little_audio():
    run = Run(560.0)
    run.pace.begin(600.0)
    run.clock.now += 100.0
    run.pace.advance(100 * 32_000.0)
    run.batch()
    run.pace.advance(200 * 32_000.0)
    assert run.pace.projected_end(3, 1000.0) == pytest.approx(110.0 + MARGIN * 100.0)
    assert run.pace.projected_end(1, 1000.0) == pytest.approx(110.0 + MARGIN * 60.0)
    assert run.said == []


def test_writing_has_its_share_of_the_time():
    assert deadline(None, 5.0, 10**9) is None
    assert deadline(7200.0, 100.0, 0) == pytest.approx(7156.0)
    assert deadline(7200.0, 100.0, 10**7) == pytest.approx(7126.0)


def test_a_stopwatch_times_each_network_and_changes_no_output():
    member = loudness_detector().members[0]
    detector = DeployedDetector((with_weight(member, 2.0), member))
    clock = Clock()
    original = member.runtime.__call__

    def slow(mel_BKFN):
        clock.now += 3.0
        return original(mel_BKFN)

    watch = Stopwatch(clock, [0.0, 0.0])
    timed = watch.timed(DeployedDetector(tuple(replace(item, runtime=slow) for item in detector.members)))
    mel_BKFN = torch.zeros(2, 1, 16, 64)
    assert torch.equal(timed.members[1].runtime(mel_BKFN).clip_BC, member.runtime(mel_BKFN).clip_BC)
    timed.members[1].runtime(mel_BKFN)
    assert watch.seconds == [0.0, 6.0] and timed.model_id == detector.model_id
