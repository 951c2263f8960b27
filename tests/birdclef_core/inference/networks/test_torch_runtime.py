"""Every runtime gives the outputs of the model itself. Torch is the first; others are one more parameter here."""

from dataclasses import replace

import pytest
import torch
from made_up_detector import tiny_config

from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.models.detector import Detector

CPU = torch.device("cpu")


def model_of(head: str, axes: str = "frequency_time") -> Detector:
    torch.manual_seed(3)
    return Detector(replace(tiny_config(head), encoder_axes=axes), 4).eval()


@pytest.fixture(params=[TorchRuntime])
def runtime_of(request):
    return lambda model: request.param(model, CPU)


@pytest.mark.parametrize(("head", "axes"), [("sed", "frequency_time"), ("cnn", "frequency_time"), ("cnn", "time_frequency")])
def test_it_gives_the_outputs_of_the_model(runtime_of, head, axes):
    model = model_of(head, axes)
    mel_BKFN = model.spectrograms(0.1 * torch.randn(3, 160_000, generator=torch.Generator().manual_seed(1)))
    with torch.inference_mode():
        expected = model(mel_BKFN)
    outputs = runtime_of(model)(mel_BKFN)
    torch.testing.assert_close(outputs.clip_BC, expected.logits_BC)
    if head == "sed":
        torch.testing.assert_close(outputs.segments_BSC, expected.frame_logits_BNC)
    else:
        assert outputs.segments_BSC is None
    assert outputs.embedding_BD.shape[0] == 3 and outputs.embedding_BD.dtype == torch.float32


def test_a_cnn_takes_windows_that_are_no_whole_pieces(runtime_of):
    """The model itself refuses 160 frames: it wants 161."""
    model = model_of("cnn")
    mel_BKFN = torch.rand(2, 1, 32, 160)
    with pytest.raises(Exception, match="multiple of 161 frames"):
        model(mel_BKFN)
    with torch.inference_mode():
        expected = model.head(model.encoder(mel_BKFN)).logits_BC
    torch.testing.assert_close(runtime_of(model)(mel_BKFN).clip_BC, expected)


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_a_batch_equals_window_by_window(runtime_of, head):
    run = runtime_of(model_of(head))
    mel_BKFN = torch.rand(5, 1, 32, 160, generator=torch.Generator().manual_seed(2))
    together = run(mel_BKFN)
    alone = [run(mel_BKFN[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together.clip_BC, torch.cat([item.clip_BC for item in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.embedding_BD, torch.cat([item.embedding_BD for item in alone]), atol=1e-5, rtol=1e-5)


def test_dropout_and_batch_statistics_are_those_of_evaluation(runtime_of):
    model = model_of("sed").train()
    run = runtime_of(model)
    mel_BKFN = torch.rand(2, 1, 32, 160)
    torch.testing.assert_close(run(mel_BKFN).clip_BC, run(mel_BKFN).clip_BC, atol=0, rtol=0)


def test_torch_takes_fewer_windows_at_once_where_memory_is_small(monkeypatch):
    model = model_of("sed")
    mel_BKFN = torch.rand(5, 1, 32, 160)
    expected = TorchRuntime(model, CPU)(mel_BKFN)
    sizes = []
    original = model.encoder.forward

    def small(part):
        if len(part) > 2:
            raise torch.OutOfMemoryError("made up")
        sizes.append(len(part))
        return original(part)

    monkeypatch.setattr(model.encoder, "forward", small)
    run = TorchRuntime(model, CPU)
    for _ in range(2):
        for got, wanted in zip(run(mel_BKFN), expected, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert sizes == [2, 2, 1] * 2, "it remembers what fits"
    monkeypatch.setattr(model.encoder, "forward", lambda part: (_ for _ in ()).throw(torch.OutOfMemoryError("made up")))
    with pytest.raises(torch.OutOfMemoryError):
        run(mel_BKFN)
