"""How durations are written, everywhere: in the terminal and on pages."""


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: `42.3 s`, `3 min 20 s`, `2 h 05 min` or `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
