"""An edit in the forms that others read: a PEFT adapter, a full checkpoint, a repository of the hub."""
