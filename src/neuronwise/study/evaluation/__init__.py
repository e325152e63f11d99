"""What editors do to facts: edited, asked before and after, and taken out again."""
