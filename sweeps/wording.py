"""Times, sizes and references as people write and read them. Imports nothing, so that `--help` comes at once."""

REFERENCE = "the beginning of a stage id, SWEEP (its best trial), SWEEP/TRIAL (its last finished stage) or SWEEP/TRIAL/STAGE"


def format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def cost_text(seconds: float) -> str:
    """Device time; below a minute with a tenth of a second."""
    return f"{seconds:.1f} s" if seconds < 59.95 else format_duration(seconds)


def bytes_text(num_bytes: float) -> str:
    """In the largest unit that leaves a figure of one or more."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1024:.1f} KiB"


def parse_bytes(text: str) -> int:
    """`200G` as a number of bytes; K, M, G and T are powers of 1024. Raises ValueError for anything else."""
    factor = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(text[-1:].upper(), 1)
    num_bytes = float(text if factor == 1 else text[:-1]) * factor
    if not 0 <= num_bytes < 2**63:
        raise ValueError(f"{text!r} is not a number of bytes, such as 200G")
    return int(num_bytes)
