"""Tables, figures and the shell of a page; nothing here knows a result."""
