"""The model card of a bundle, `card.md`: what it is, what it was compared with, how it is used and what it is not good for."""

from collections.abc import Iterator

from birdclef_core.inference.bundle.parity import Parity
from birdclef_core.inference.bundle.record import BundleMember, BundleRecord

CARD_FILE = "card.md"
_DIGITS = 16
_SHOWN = 20


def card(record: BundleRecord, parity: Parity) -> str:
    """Return the card as Markdown."""
    return "\n".join(_lines(record, parity)) + "\n"


def _lines(record: BundleRecord, parity: Parity) -> Iterator[str]:
    procedure = record.procedure
    yield f"# Detector of {len(record.species)} species"
    yield ""
    yield f"Model {record.model_id[:_DIGITS]}, made of {record.source} at {record.created_at}. Format {record.format}, {record.precision}."
    yield ""
    yield f"It hears {procedure.context_s:g} s around each window of {procedure.window_s:g} s of a recording, at 32 kHz, and gives each species a score."
    yield ""
    yield "| network | head | encoder | weight | CPU ms a window, one thread | stage |"
    yield "|---|---|---|---|---|---|"
    for member, weight in zip(record.members, record.weights, strict=True):
        yield _row(member, weight)
    yield ""
    yield f"Times are of the network and of its spectrogram, on {record.made_with.get('processor') or 'an unknown processor'}. Networks "
    yield "with the same decibels share a spectrogram."
    yield ""
    yield "## Use"
    yield ""
    yield "```"
    yield "python runtime.py RECORDINGS... -o detections.csv"
    yield "birdclef predict RECORDINGS... --model THIS_FOLDER -o found    # with the project that made it"
    yield "```"
    yield ""
    yield "## Compared with what it was made of"
    yield ""
    yield from _parity_lines(parity)
    yield ""
    yield "## Limits"
    yield ""
    yield "- A score is no probability that a bird was there, unless the bundle has a calibration for your site: recordings that models are"
    yield "  trained on have other shares of species than a site has."
    yield "- It knows no other species. A sound of another one can get a high score of one that it knows."
    yield "- Scores of rare species are less certain. Listen to some detections of each species before you count them."
    yield ""
    yield "## Species"
    yield ""
    shown = [f"{code} ({record.names[code]})" if record.names.get(code) else code for code in record.species]
    more = f", and {len(shown) - _SHOWN} more: `bundle.json` has all" if len(shown) > _SHOWN else ""
    yield f"{', '.join(shown[:_SHOWN])}{more}."


def _row(member: BundleMember, weight: float) -> str:
    stages = ", ".join(stage_id[:_DIGITS] for stage_id in (member.stage_id, *member.souped_with))
    model, head = member.model, member.head
    own = ", encoder included" if head and head.encoder else ", spectrogram in the network"
    spectrogram = own if member.takes_sound else f" + {member.spectrogram_ms:.0f}"
    kind = f"on embeddings of {head.clip_s:g} s" if head else model.head
    return (
        f"| {member.recipe} | {kind} | {model.encoder} | {weight:.3f} | {member.network_ms:.0f}{spectrogram} "
        f"| {member.stage} {stages} |"
    )


def _parity_lines(parity: Parity) -> Iterator[str]:
    if parity.largest_probability_difference is None:
        yield f"**It was written by force and was compared with nothing: {parity.source}**"
        return
    yield f"On {parity.source}, the largest difference of a score is {parity.largest_probability_difference:.2g}."
    if parity.cmap is not None and parity.original_cmap is not None:
        yield f"The cmAP is {parity.cmap:.4f}, and {parity.original_cmap:.4f} in torch and float32 ({parity.num_species} species)."
        yield "The difference of the two is what is checked: these windows are too few to say how good the detector is."
    for rule in parity.broken_rules:
        yield f"**It was written by force: {rule}.**"
