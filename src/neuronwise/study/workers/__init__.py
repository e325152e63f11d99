"""What measures the cases of a study; the table of them is ``study.executors``."""
