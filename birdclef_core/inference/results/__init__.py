"""From the logits of a file to rows, and from rows to the files of other programs."""
