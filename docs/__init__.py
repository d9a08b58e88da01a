"""The documentation: pages in Markdown, and what makes the numbers and figures in them. Not part of the wheel."""
