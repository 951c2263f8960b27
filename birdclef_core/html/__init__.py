"""HTML pages for people: one style sheet, templates, and SVG pictures."""
