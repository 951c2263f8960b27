"""Encoders by name, and where their pretrained weights come from. The only file that imports timm.

Shapes: B clips, K channels, F mel bins, N frames, D features, H and W the size of the feature map (frequency, time).
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, group_parameters
from torch import Tensor, nn

from birdclef_core.config import SAMPLE_RATE_HZ, EncoderAxes, ModelConfig
from birdclef_core.errors import InputError, TrainingError
from birdclef_core.identity import file_sha256

HUB_TIMEOUT_S = 4.0
"""Longest wait for an answer of the Hugging Face hub."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_PROBE_S = 5
_REASON_LENGTH = 200


@dataclass(frozen=True)
class PretrainedWeights:
    """Where an encoder's first weights come from. `resolve_pretrained` decides that once for a sweep. Picklable."""

    name: str
    """`random`, `timm:<architecture>.<tag>` or `file:<sha256>`; part of a stage's identity."""
    path: Path | None = field(default=None, compare=False)
    """File with the weights; None: no file is needed, or timm downloads them from the hub when a model is built."""
    found: str = field(default="", compare=False)
    """What was looked for and what was found, in one line for the user."""


RANDOM = PretrainedWeights("random", found="random weights")


class Encoder(nn.Module):
    """A timm model without its classifier: mel_BKFN -> features_BDHW, for models of any inner layout and either order of axes."""

    def __init__(self, model: Any, *, axes: EncoderAxes, from_tokens: bool, shape: tuple[int, ...]) -> None:
        """`shape`: (K, F, N) of a spectrogram that the model takes."""
        super().__init__()
        self.model = model
        self.shape = shape
        self._layer_groups: list[list[nn.Parameter]] = []
        self.time_first = axes == "time_frequency"
        self.from_tokens = from_tokens
        self.channels_last_map = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, mel_BKFN: Tensor) -> Tensor:
        """Return features with frequency before time, whatever the order is inside."""
        if self.time_first:
            return self._map(mel_BKFN.transpose(2, 3)).transpose(2, 3)
        return self._map(mel_BKFN)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters by groups of layers as timm has them, from the input on: the stem, each stage, and what comes after.

        A group that makes no features, such as layers after pooling, is joined with the one before. Raises InputError for a model of which timm knows no groups.
        """
        if not hasattr(self.model, "group_matcher"):
            raise InputError(
                f"layer_decay, frozen_blocks and thaw_every need an encoder of which timm knows the groups of layers, but of "
                f"{type(self.model).__name__} it knows none."
            )
        if self._layer_groups:
            return self._layer_groups
        used, groups = self._used_parameters(), self._layer_groups
        for group in group_parameters(self.model, self.model.group_matcher(coarse=True), return_values=True).values():
            if groups and used.isdisjoint(group):
                groups[-1].extend(group)
            else:
                groups.append(list(group))
        return groups

    def _used_parameters(self) -> set[nn.Parameter]:
        """The parameters that features depend on, found without computing anything; all where that does not work."""
        own = dict(self.named_parameters())
        state = {name: torch.empty_like(tensor, device="meta") for name, tensor in (*own.items(), *self.named_buffers())}
        stand_ins = [state[name].requires_grad_() for name in own]
        try:
            with torch.enable_grad():
                features = torch.func.functional_call(self, state, torch.empty((2, *self.shape), device="meta"))
            slopes = torch.autograd.grad(features.sum(), stand_ins, allow_unused=True)
        except Exception:  # any error of an architecture on the meta device
            return set(own.values())
        return {parameter for parameter, slope in zip(own.values(), slopes, strict=True) if slope is not None}

    def _map(self, picture: Tensor) -> Tensor:
        """Features with the axes of the picture."""
        if self.from_tokens:
            return self.model.forward_intermediates(picture, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[0]
        features = self.model.forward_features(picture)
        return features.permute(0, 3, 1, 2) if self.channels_last_map else features


def build_encoder(config: ModelConfig, pretrained: PretrainedWeights) -> tuple[Encoder, int]:
    """Return the encoder and D, its number of features. Random weights come from torch's global generator: seed it first.

    Raises InputError when timm does not know the name, or the encoder cannot turn a spectrogram of the config's size into a map of
    features; TrainingError when weights that were found at the start of the sweep can no longer be downloaded.
    """
    model = _create(config, pretrained)
    shape = (1, config.spectrogram.num_channels, config.spectrogram.num_mels, _probe_frames(config))
    reasons = []
    for from_tokens in (False, True):
        encoder = Encoder(model, axes=config.encoder_axes, from_tokens=from_tokens, shape=shape[1:])
        try:
            features_BDHW = _probe(encoder, shape)
        except Exception as error:  # any error of an architecture is a reason to refuse it
            reasons.append(_brief(error))
            continue
        if features_BDHW.ndim == 4 and features_BDHW.shape[3] > 1:
            return encoder, features_BDHW.shape[1]
        reasons.append(f"its features have the shape {tuple(features_BDHW.shape)}, without a time axis")
    raise InputError(
        f"An encoder must turn a spectrogram of {shape[2]} mel bins x {shape[3]} frames into a map of features over time, "
        f"but {config.encoder!r} does not: {'; '.join(dict.fromkeys(reasons))}. Choose another encoder or spectrogram size."
    )


def resolve_pretrained(encoder: str, mode: str) -> PretrainedWeights:
    """Decide which weights `encoder` starts from. Call this once, on the driver, and give the result to every worker.

    mode: `off` (random), `auto` (from the hub if it answers within seconds, otherwise random), `require` (from the hub, otherwise
    InputError), or a path: a file of timm weights, or a folder with one file per encoder, named after it.
    """
    check_name(encoder)
    if mode == "off":
        return RANDOM
    if mode not in ("auto", "require"):
        return _from_path(encoder, Path(mode))
    weights, reason = _from_hub(encoder)
    if weights is not None:
        return weights
    if mode == "require":
        raise InputError(
            f"Pretrained weights are required, but for {encoder!r} {reason}. Connect to the Hugging Face hub, "
            f"give a file or folder with --pretrained PATH, or train from random weights with --pretrained off."
        )
    return PretrainedWeights(RANDOM.name, found=f"{encoder}: random weights, because {reason}")


def check_name(encoder: str) -> None:
    """Raise InputError for a name that timm does not know; the message has similar names."""
    if timm.is_model(encoder):
        return
    near = difflib.get_close_matches(encoder, timm.list_models() + timm.list_pretrained(), n=4)
    hint = f" Similar names: {', '.join(near)}." if near else ""
    raise InputError(f"An encoder must be a model of timm {timm.__version__}, but {encoder!r} is not.{hint}")


def _from_path(encoder: str, path: Path) -> PretrainedWeights:
    if path.is_dir():
        candidates = [path / f"{encoder}{suffix}" for suffix in WEIGHT_SUFFIXES]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            raise InputError(
                f"A folder of pretrained weights must hold one of {[c.name for c in candidates]}, but {path} does not."
            )
    elif path.is_file():
        file = path
    else:
        raise InputError(f"--pretrained takes auto, require, off, or a file or folder that exists, but got {str(path)!r}.")
    return PretrainedWeights(f"file:{file_sha256(file)}", file.resolve(), f"{encoder}: weights of {file}")


def _from_hub(encoder: str) -> tuple[PretrainedWeights | None, str]:
    """The hub's weights, or None and the reason. Asks once with a short timeout: timm itself retries for most of a minute."""
    source = get_pretrained_cfg(encoder)
    if source is None or not source.hf_hub_id:
        return None, "timm has no weights on the Hugging Face hub"
    name = f"timm:{source.architecture}.{source.tag}" if source.tag else f"timm:{source.architecture}"
    file_name = source.hf_hub_filename or "model.safetensors"
    repository, _, revision = source.hf_hub_id.partition("@")
    cached = huggingface_hub.try_to_load_from_cache(repository, file_name, revision=revision or None)
    if isinstance(cached, str) and Path(cached).suffix in WEIGHT_SUFFIXES:
        return PretrainedWeights(name, Path(cached), f"{encoder}: pretrained weights of {repository} (on this machine)"), ""
    url = huggingface_hub.hf_hub_url(repository, file_name, revision=revision or None)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S)
    except EntryNotFoundError:
        return None, f"{url} does not exist"
    except Exception as error:  # without a network, every version of the client raises another class
        return None, f"the Hugging Face hub cannot be reached ({type(error).__name__})"
    return PretrainedWeights(name, None, f"{encoder}: pretrained weights of {repository} (from the hub)"), ""


def _create(config: ModelConfig, pretrained: PretrainedWeights) -> Any:
    check_name(config.encoder)
    source: dict[str, Any] = {"pretrained": False}
    if pretrained.path is not None and pretrained.path.is_file():
        source = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": _read_weights(pretrained.path)}}
    elif pretrained.name.startswith("file:"):
        raise InputError(f"Pretrained weights {pretrained.path} must be readable on every machine, but are not on this one.")
    elif pretrained.name != RANDOM.name:
        source = {"pretrained": True}
    try:
        model = _create_with_known_options(config, source)
    except Exception as error:
        if not source["pretrained"]:
            raise
        if pretrained.path is None:
            raise TrainingError(
                f"{pretrained.name} was on the hub when the sweep began, but cannot be fetched now: {_brief(error)}"
            ) from error
        raise InputError(f"{pretrained.path} does not fit {config.encoder!r}: {_brief(error)}") from error
    if "pretrained_cfg_overlay" in source:
        _check_all_loaded(model, source["pretrained_cfg_overlay"]["state_dict"], pretrained, config.encoder)
        model.pretrained_cfg.pop("state_dict", None)  # otherwise a second copy of the weights stays in memory
    return model


def _create_with_known_options(config: ModelConfig, source: dict[str, Any]) -> Any:
    """timm has no list of the options of a constructor: try all, then fewer, until it accepts them."""
    dynamic = {"dynamic_img_size": True, "dynamic_img_pad": True}
    drop_path, drop = {"drop_path_rate": config.drop_path_rate}, {"drop_rate": config.drop_rate}
    refused: TypeError | None = None
    for options in (dynamic | drop_path | drop, drop_path | drop, drop, {}):
        try:
            return timm.create_model(config.encoder, in_chans=config.spectrogram.num_channels, num_classes=0, **source, **options)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            refused = error
    raise InputError(f"timm cannot build {config.encoder!r} as an encoder: {refused}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file; a pickle is read without running code in it."""
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"Pretrained weights must be a state dict, but {path} cannot be read: {_brief(error)}") from error


def _check_all_loaded(model: nn.Module, weights: dict[str, Tensor], pretrained: PretrainedWeights, encoder: str) -> None:
    """Raise InputError when a file lacks parameters: timm is silent then, and a half random model must not count as pretrained."""
    missing = [name for name, _ in model.named_parameters() if name not in weights]
    if missing and pretrained.name.startswith("file:"):
        raise InputError(f"{pretrained.path} lacks {len(missing)} of the parameters of {encoder!r}, such as {missing[0]}.")


def _probe(encoder: Encoder, shape: tuple[int, ...]) -> Tensor:
    encoder.eval()
    with torch.no_grad():
        features = encoder(torch.zeros(shape))
    encoder.train()
    return features


def _probe_frames(config: ModelConfig) -> int:
    return _PROBE_S * SAMPLE_RATE_HZ // config.spectrogram.hop_length + 1


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__
