"""What a finished run looks like: tables and Markdown."""
